"""Which sensors speak for the energy of a device, and which for the rest of the box.

A meter is one sensor, or several whose energies may be added. Meters overlap (the wall contains all others)
and are never added to each other; each is a figure of its own with its scope.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from profiler.backends.base import Device, Unavailable
from profiler.sensors.base import ENERGY_KINDS, Scope, SensorInfo
from profiler.sensors.box import is_box_wide, is_made_up, names_of

DEVICE = "device"
"""What the meter of the device under test covers."""

# A counter misses nothing; of power readings those of the moment work for shorter windows.
_OF_A_DEVICE: tuple[Scope, ...] = ("chip", "board", "module", "socket")


@dataclass(frozen=True)
class Meter:
    """Sensors that together are one figure, or why there are none.

    Attributes:
        covers: ``device``, ``cpu``, ``cpu-package-0``, ``dram``, ``platform`` or ``wall``.
        scope: scope of its sensors.
        sensors: to be added up; empty with a reason.
        unavailable: why nothing can be read, or None.
    """

    covers: str
    scope: Scope
    sensors: tuple[SensorInfo, ...]
    unavailable: Unavailable | None = None


def meters_for(device: Device, infos: Sequence[SensorInfo]) -> tuple[Meter, ...]:
    """Return the device's own meter first, then those of the box that can be read.

    For a CPU its own meter is the sum of all packages; memory has a meter of its own.

    Args:
        device: under test.
        infos: all sensors of the box.
    """
    energy = [info for info in infos if info.kind in ENERGY_KINDS]
    packages = _box_meters(energy)
    own = _own_meter(device, energy, packages)
    others = [meter for meter in packages if meter.sensors != own.sensors]
    return (own, *others)


def meters_of_several(devices: Sequence[Device], infos: Sequence[SensorInfo]) -> tuple[Meter, ...]:
    """Return the meter of all devices together first, then that of each, then those of the box.

    The sum is there only where each device has a meter of its own and all of them cover the same: chips and
    boards are not added up, and what one meter sees of two devices counts once.

    Args:
        devices: under test, at least two.
        infos: all sensors of the box.
    """
    each = [meters_for(device, infos) for device in devices]
    own = [meters[0] for meters in each]
    named = [
        replace(meter, covers=f"{DEVICE}:{device.key}") for device, meter in zip(devices, own, strict=True)
    ]
    return (_sum_of(devices, own), *named, *each[0][1:])


def _sum_of(devices: Sequence[Device], own: Sequence[Meter]) -> Meter:
    """Return the meter of all devices together, or why there is none."""
    sensors = tuple(info for meter in own for info in meter.sensors)
    scopes = {meter.scope for meter in own}
    for device, meter in zip(devices, own, strict=True):
        if meter.unavailable is not None:
            why = replace(meter.unavailable, text=f"{device.key}: {meter.unavailable.text}")
            return Meter(DEVICE, meter.scope, (), why)
    if len({info.key for info in sensors}) < len(sensors):
        text = "one sensor speaks for several of the devices, so that nothing says what each of them takes"
        return Meter(DEVICE, own[0].scope, (), Unavailable("shared_sensor", text, "read each device's own"))
    if len(scopes) > 1:
        text = f"the sensors of the devices cover different things ({', '.join(sorted(scopes))})"
        return Meter(DEVICE, own[0].scope, (), Unavailable("mixed_scopes", text, "see `aiprof devices`"))
    return Meter(DEVICE, own[0].scope, sensors)


def state_sensors(device: Device, infos: Sequence[SensorInfo]) -> list[SensorInfo]:
    """Return the readable sensors that say in what state a device is: clocks, temperature and the like."""
    names = names_of(device)
    return [
        info
        for info in infos
        if info.unavailable is None
        and info.kind not in ENERGY_KINDS
        and (info.device in names or (device.backend == "cpu" and info.source == "cpu"))
    ]


def _own_meter(device: Device, infos: Sequence[SensorInfo], box: Sequence[Meter]) -> Meter:
    if is_made_up(device):
        text = "a simulated device has no sensors"
        return Meter(DEVICE, "board", (), Unavailable("simulated", text, "measure a real device"))
    if device.backend == "cpu":
        return _of_the_cpu(infos, box)
    names = names_of(device)
    own = [info for info in infos if info.device in names]
    for kind in ENERGY_KINDS:
        readable = [info for info in own if info.kind == kind and info.unavailable is None]
        if readable:
            return Meter(DEVICE, readable[0].scope, (readable[0],))
    # A meter of the user's own that measures one board or module, and does not know its name.
    users = [info for info in infos if info.source == "command" and info.scope in _OF_A_DEVICE]
    users = [info for info in users if info.unavailable is None]
    if users:
        return Meter(DEVICE, users[0].scope, (users[0],))
    reasons = [info.unavailable for info in own if info.unavailable is not None]
    nobody = Unavailable(
        "no_sensor",
        f"no sensor belongs to {device.name}",
        "`aiprof devices` lists what was looked for; AIPROF_POWER_COMMAND names a meter of your own",
    )
    return Meter(DEVICE, own[0].scope if own else "board", (), reasons[0] if reasons else nobody)


def _of_the_cpu(infos: Sequence[SensorInfo], box: Sequence[Meter]) -> Meter:
    for meter in box:
        if meter.covers == "cpu":
            return Meter(DEVICE, meter.scope, meter.sensors)
    reasons = [info.unavailable for info in _blocked(infos, "package") if info.unavailable is not None]
    nobody = Unavailable("no_sensor", "this machine has no energy counter of its CPU")
    return Meter(DEVICE, "package", (), reasons[0] if reasons else nobody)


def _blocked(infos: Sequence[SensorInfo], scope: str) -> list[SensorInfo]:
    """Return the counters that belong into the sum of a scope and cannot be read: there is no sum then."""
    return [
        info
        for info in infos
        if info.source == "rapl"
        and info.scope == scope
        and info.kind == "energy_counter"
        and info.unavailable is not None
        and info.unavailable.code != "mirrored_of"
    ]


def _box_meters(infos: Sequence[SensorInfo]) -> list[Meter]:
    """Return the readable meters of the box: packages together and each, memory, platform, the wall."""
    readable = [info for info in infos if info.unavailable is None and is_box_wide(info)]
    meters: list[Meter] = []
    for scope, name in (("package", "cpu"), ("dram", "dram"), ("platform", "platform")):
        group = tuple(info for info in readable if info.scope == scope and info.kind == "energy_counter")
        through_perf = any(info.key.startswith("rapl:perf") for info in group)  # stands in for all zones
        whole = through_perf or not _blocked(infos, scope)
        if group and whole:
            meters.append(Meter(name, group[0].scope, group))
        if scope == "package" and (len(group) > 1 or not whole):
            meters += [Meter(info.device, info.scope, (info,)) for info in group]
    walls: dict[str, SensorInfo] = {}
    for kind in ENERGY_KINDS:
        for info in readable:
            if info.scope == "wall" and info.kind == kind:
                # One controller shows power and energy of the same chassis.
                walls.setdefault(info.key.rpartition("/")[0], info)
    meters += [Meter("wall", "wall", (info,)) for info in walls.values()]
    return meters
