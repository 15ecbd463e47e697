"""Power, clocks and temperatures of a box while it is watched, and the summary of the whole time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from profiler.backends.base import Device, Unavailable
from profiler.sensors.base import ENERGY_KINDS, Energy, Kind, SensorInfo
from profiler.sensors.box import names_of
from profiler.sensors.sampler import Sampler

_LIVE_S = 1.0
# Counters tick up to ten times a second; power of the last second is that of a second that has been seen.
_BEHIND_S = 0.3
_CHUNK_S = 900.0
# Why there is no power of the last second although nothing is wrong: no new value came yet.
_MOMENTARY = ("", "window_not_covered", "no_samples", "window_too_short")


@dataclass(frozen=True)
class Line:
    """One part of the box that has a power of its own.

    Attributes:
        name: for people.
        device: key of the device, ``cpu-package-0`` or ``wall``.
        meter: the sensor that shows its power best.
        states: its other sensors by kind, one each.
    """

    name: str
    device: str
    meter: SensorInfo
    states: Mapping[Kind, SensorInfo]


@dataclass
class Tally:
    """What a meter has shown so far.

    Attributes:
        power_w: mean of the last second, or the last reading; None where there is none now.
        missing: code of what is wrong where there is none now, or None.
        max_power_w: highest of those so far.
        joules: energy of the parts of the time that are closed.
        bound_j: bound of it.
        seconds: length of those parts.
        reason: why a part has no energy, or None.
        flags: of all parts.
    """

    power_w: float | None = None
    missing: str | None = None
    max_power_w: float | None = None
    joules: float = 0.0
    bound_j: float = 0.0
    seconds: float = 0.0
    method: str = "none"
    reason: Unavailable | None = None
    flags: set[str] = field(default_factory=set)

    def add(self, energy: Energy) -> None:
        """Add the energy of a part of the time."""
        self.flags |= set(energy.flags)
        if energy.joules is None or energy.bound_j is None:
            self.reason = self.reason or energy.reason
            return
        self.joules += energy.joules
        self.bound_j += energy.bound_j
        self.seconds += energy.duration_s
        self.method = energy.method

    @property
    def mean_power_w(self) -> float | None:
        """Mean power of the parts that have an energy, or None."""
        return self.joules / self.seconds if self.seconds else None


def lines_of(infos: Sequence[SensorInfo], devices: Sequence[Device]) -> list[Line]:
    """Return what has a power that can be read, the devices first, in their order.

    Args:
        infos: sensors of the box.
        devices: found by the backends, for their names.
    """
    names = {name: f"{one.backend}:{one.ordinal} {one.name}" for one in devices for name in names_of(one)}
    order = {name: at for at, one in enumerate(devices) for name in names_of(one)}
    readable = [info for info in infos if info.unavailable is None and info.poll_hz > 0]
    found: dict[tuple[str, str, str], Line] = {}
    for kind in ENERGY_KINDS:
        for info in readable:
            # Two meters of the wall are two meters; a controller's power and energy are one.
            meter = info.key.rpartition("/")[0] if info.scope == "wall" else ""
            place = (info.device, info.scope, meter)
            if info.kind != kind or place in found:
                continue
            name = names.get(info.device, info.device)
            if info.scope in ("dram", "platform") or (info.device not in names and info.device != info.scope):
                name = f"{name} ({info.scope})" if info.scope not in name else name
            states = {
                other.kind: other
                for other in reversed(readable)
                if other.device == info.device and other.kind not in ENERGY_KINDS
            }
            found[place] = Line(name, info.device, info, states if info.scope != "dram" else {})
    lines = list(found.values())
    names_given = [line.name for line in lines]
    lines = [
        replace(line, name=f"{line.name} ({line.meter.source})") if names_given.count(line.name) > 1 else line
        for line in lines
    ]
    return sorted(lines, key=lambda line: order.get(line.device, len(order)))


class PowerWatch:
    """Follows the meters of a box while a sampler reads them.

    Args:
        sampler: that reads the sensors of ``lines``, entered.
        lines: from :func:`lines_of`.
        clock: CLOCK_MONOTONIC in nanoseconds, which the sampler's reads are stamped with.
    """

    def __init__(
        self, sampler: Sampler, lines: Sequence[Line], clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._sampler = sampler
        self._clock = clock
        self.lines = list(lines)
        self.tallies = {line.meter.key: Tally() for line in lines}
        self.began_ns = clock()
        self._from_ns = self.began_ns

    @property
    def seconds(self) -> float:
        """How long it has been watched."""
        return (self._clock() - self.began_ns) * 1e-9

    def update(self) -> None:
        """Take over what is new; do so about once a second."""
        now_ns = self._clock()
        self._sampler.drain()
        for line in self.lines:
            self._live(line, now_ns)
        if now_ns - self._from_ns > _CHUNK_S * 1e9:
            self._close_chunk(now_ns)
            # Enough stays to see the beginning of the next part.
            self._sampler.forget(now_ns - 10 * 10**9)

    def state(self, line: Line, kind: Kind) -> float | None:
        """Return the value of a clock, temperature and the like in its unit now, or None.

        What was read before the last reads failed is no value of now: a lost device has no temperature.
        """
        info = line.states.get(kind)
        if info is None:
            return None
        reads = self._sampler.series(info.key)
        if not len(reads) or int(reads.failure[-1]):
            return None
        return float(reads.raw[-1]) * info.scale

    def finish(self) -> float:
        """Close the last part and return the seconds watched."""
        seconds = self.seconds
        self._close_chunk(self.began_ns + round(seconds * 1e9))
        return seconds

    def _live(self, line: Line, now_ns: int) -> None:
        tally, info = self.tallies[line.meter.key], line.meter
        if info.kind == "energy_counter":
            end_ns = now_ns - round(_BEHIND_S * 1e9)
            begin_ns = end_ns - round(_LIVE_S * 1e9)
            if begin_ns < self.began_ns:
                return
            energy = self._sampler.energy(info.key, begin_ns, end_ns, wait_s=0)
            tally.power_w = energy.mean_power_w
            code = "" if energy.reason is None else energy.reason.code
            tally.missing = None if code in _MOMENTARY else code
        else:
            reads = self._sampler.series(info.key, now_ns - round(5e9), now_ns)
            good, failures = reads.good(), reads.failures()
            lost = bool(len(reads)) and bool(int(reads.failure[-1]))
            tally.power_w = float(good.raw[-1]) * info.scale if len(good) and not lost else None
            tally.missing = failures[0] if lost else None
            if len(good):
                highest = float(np.max(good.raw)) * info.scale
                tally.max_power_w = max(tally.max_power_w or 0.0, highest)
        if tally.power_w is not None:
            tally.max_power_w = max(tally.max_power_w or 0.0, tally.power_w)

    def _close_chunk(self, end_ns: int) -> None:
        for line in self.lines:
            energy = self._sampler.energy(line.meter.key, self._from_ns, end_ns)
            if energy.reason is not None and energy.reason.code == "window_not_covered":
                energy = self._covered(line.meter, end_ns, energy)
            self.tallies[line.meter.key].add(energy)
        self._from_ns = end_ns

    def _covered(self, info: SensorInfo, end_ns: int, refused: Energy) -> Energy:
        """Leave out what lies before the first reading and after the last: nothing was seen of it."""
        good = self._sampler.series(info.key, self._from_ns, end_ns).good()
        if len(good) < 3:
            return refused
        margin_ns = round(((info.average_window_s or 0.0) / 2 + 2 / info.poll_hz) * 1e9)
        if info.kind == "energy_counter":
            moved = np.flatnonzero(np.diff(good.raw))
            if len(moved) < 2:
                return refused
            begin, end = int(good.t_after_ns[moved[0] + 1]), int(good.t_before_ns[moved[-1]])
        else:
            begin, end = int(good.t_after_ns[0]) + margin_ns, int(good.t_before_ns[-1]) - margin_ns
        shorter = self._sampler.energy(info.key, begin, end, wait_s=0) if end > begin else refused
        return shorter if shorter.joules is not None else replace(refused, reason=shorter.reason)
