"""Cases on several devices: what each of them took, and all together."""

from __future__ import annotations

from dataclasses import dataclass

from profiler.render.units import format_bytes
from profiler.results.schema import CaseRecord, CaseSpec, EnergyRecord, ServerStart, StartRecord

DEVICE = "device"


@dataclass(frozen=True)
class DeviceUse:
    """What one device of a case took.

    Attributes:
        key: of the device.
        watts: mean power while requests were worked on, over all starts, or None.
        relative_bound: of that, or None.
        joules_per_token: energy over output tokens, or None.
        memory_bytes: most memory in use in any sample, or None.
        reason: why there is no power, or empty.
    """

    key: str
    watts: float | None
    relative_bound: float | None
    joules_per_token: float | None
    memory_bytes: int | None
    reason: str = ""


def name_of(spec: CaseSpec, name: str) -> str:
    """Return the name of a case's device, with how many there are."""
    count = len(spec.all_devices)
    return name if count == 1 else f"{count} x {name}"


def uses(case: CaseRecord) -> list[DeviceUse]:
    """Return what each device took, in their order; nothing for a case on one device."""
    if len(case.spec.all_devices) < 2:
        return []
    return [_use(case, key) for key in case.spec.all_devices]


def _use(case: CaseRecord, key: str) -> DeviceUse:
    own = [one for one in case.energies if (one.covers, one.phase) == (f"{DEVICE}:{key}", "trials")]
    used = [size for memory in _memories(case) for size in memory.get(key, ())]
    most = max(used, default=None)
    reason = next((one.reason.text for one in own if one.reason is not None), "")
    known = [one for one in own if one.joules is not None and one.active_s > 0]
    if not known or len(known) < len(own):
        return DeviceUse(key, None, None, None, most, reason or "no sensor of its own was read")
    joules, seconds = sum(map(_joules, known)), sum(one.active_s for one in known)
    tokens = sum(one.tokens or 0 for one in known)
    bound = sum(one.bound_j or 0.0 for one in known)
    return DeviceUse(key, joules / seconds, bound / joules, joules / tokens if tokens else None, most)


def _joules(one: EnergyRecord) -> float:
    return one.joules or 0.0


def _memories(case: CaseRecord) -> list[dict[str, tuple[int, ...]]]:
    servers = () if case.served is None else case.served.servers
    starts: tuple[StartRecord | ServerStart, ...] = (*case.starts, *servers)
    return [start.memory.per_device_used_bytes for start in starts if start.memory is not None]


def device_line(case: CaseRecord) -> str:
    """Return one line about the devices of a case, empty for one device."""
    found = uses(case)
    if not found:
        return ""
    parts: list[str] = []
    watts = [one.watts for one in found if one.watts is not None]
    if len(watts) == len(found):
        together = case.measurements.get("power_mean_w")
        total = "" if together is None or together.value is None else f", {together.value:,.0f} W together"
        parts.append(f"mean power {min(watts):,.0f} to {max(watts):,.0f} W each{total}")
    else:
        parts.append(f"no power: {next(one.reason for one in found if one.watts is None)}")
    sizes = [one.memory_bytes for one in found if one.memory_bytes is not None]
    if len(sizes) == len(found):
        together = case.measurements.get("max_sampled_all_devices_bytes")
        total = (
            "" if together is None or together.value is None else f", {format_bytes(together.value)} together"
        )
        parts.append(f"memory {format_bytes(min(sizes))} to {format_bytes(max(sizes))} each{total}")
    return f"{len(found)} devices: {'; '.join(parts)}"
