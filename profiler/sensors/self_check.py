"""What a sensor is worth here: its tick, the cost of a read, and whether counter and power agree.

Pure functions on reads. A counter that fails is marked, never left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from profiler.backends.base import Unavailable
from profiler.sensors.base import Energy, SensorInfo
from profiler.sensors.power import power_energy
from profiler.sensors.ticks import Series, find_ticks
from profiler.sensors.window import counter_energy

# Windows for which the accuracy is stated.
_PHASE_S = 1.0
# Counter and power of one device differ by up to a quarter on working hardware (idle, averaging);
# beyond it one of the two is wrong.
_AGREES = 0.25
_HIGHEST = 1.2  # of the power limit


@dataclass(frozen=True)
class SelfCheck:
    """What a few seconds of reads say about a sensor.

    Attributes:
        key: of the sensor.
        tick_s: time between new values, or None when it is shorter than the time between reads.
        call_median_s: time that one read takes.
        call_p99_s: time that one read in a hundred exceeds.
        failed: part of the reads that failed.
        largest_gap_s: longest time without a good read.
        power_mean_w: mean power over the check, or None.
        relative_bound_1s: bound of the energy of a 1 s window now, relative to it, or None.
        counter_to_power: energy by the counter over energy by the power sensor, or None.
        flags: ``sensor_disagrees``, ``implausible``, ``read_failures``.
        unavailable: why the sensor cannot be used, or None.
    """

    key: str
    tick_s: float | None
    call_median_s: float | None
    call_p99_s: float | None
    failed: float
    largest_gap_s: float | None
    power_mean_w: float | None
    relative_bound_1s: float | None
    counter_to_power: float | None
    flags: tuple[str, ...]
    unavailable: Unavailable | None


def self_check(info: SensorInfo, reads: Series, power: tuple[SensorInfo, Series] | None = None) -> SelfCheck:
    """Judge a sensor by its reads of a few seconds (two at least, longer for slow ticks).

    Args:
        info: of an energy counter or power sensor.
        reads: of it.
        power: for a counter, a power sensor of the same device and scope with its reads.
    """
    if info.unavailable is not None or not len(reads):
        why = info.unavailable or Unavailable("no_samples", "the sensor was never read")
        return SelfCheck(info.key, None, None, None, 0.0, None, None, None, None, (), why)
    flags = []
    failed = float(np.mean(reads.failure != 0))
    if failed:
        flags.append("read_failures")
    duration_s = (reads.t_after_ns - reads.t_before_ns) * 1e-9
    good = reads.good()
    gaps_s = np.diff(good.t_before_ns) * 1e-9
    whole = _longest(info, reads)
    ratio = None
    if power is not None and whole.joules is not None:
        other = power_energy(power[1], power[0], whole.t0_ns, whole.t1_ns)
        if other.joules is not None and other.bound_j is not None:
            ratio = whole.joules / other.joules
            uncertain = other.bound_j / other.joules
            if abs(ratio - 1) > _AGREES + uncertain:
                flags.append("sensor_disagrees")
    mean_w = whole.mean_power_w
    if mean_w is not None and info.max_power_w is not None and mean_w > _HIGHEST * info.max_power_w:
        flags.append("implausible")
    return SelfCheck(
        key=info.key,
        tick_s=whole.tick_s,
        call_median_s=float(np.median(duration_s)),
        call_p99_s=float(np.quantile(duration_s, 0.99)),
        failed=failed,
        largest_gap_s=float(gaps_s.max()) if len(gaps_s) else None,
        power_mean_w=mean_w,
        relative_bound_1s=_bound_of_a_phase(info, reads, whole),
        counter_to_power=ratio,
        flags=tuple(flags),
        unavailable=whole.reason,
    )


def power_beside(counter: SensorInfo, infos: Iterable[SensorInfo]) -> SensorInfo | None:
    """Return the power sensor of the same device and scope that a counter is held against, or None."""
    if counter.kind != "energy_counter":
        return None
    same = [
        info
        for info in infos
        if (info.device, info.scope) == (counter.device, counter.scope) and info.unavailable is None
    ]
    # Power of the moment is of the same time as the counter; averages are of a while ago.
    for kind in ("power_instant", "power_average"):
        for info in same:
            if info.kind == kind:
                return info
    return None


def _energy(info: SensorInfo, reads: Series, t0_ns: int, t1_ns: int) -> Energy:
    if info.kind == "energy_counter":
        return counter_energy(reads, info, t0_ns, t1_ns, widen=False)
    return power_energy(reads, info, t0_ns, t1_ns)


def _longest(info: SensorInfo, reads: Series) -> Energy:
    """Energy between the first and the last new value, or why there is none."""
    good = reads.good()
    begin, end = int(reads.t_before_ns[0]), int(reads.t_after_ns[-1])
    if info.kind == "energy_counter":
        ticks = find_ticks(reads, info)
        if len(ticks.hi_ns) >= 2:
            begin, end = int(ticks.hi_ns[0]), int(ticks.lo_ns[-1])
    elif len(good):
        margin_ns = round(((info.average_window_s or 0.0) / 2 + 2 / info.poll_hz) * 1e9)
        begin, end = begin + margin_ns, end - margin_ns
    return _energy(info, reads, begin, end)


def _bound_of_a_phase(info: SensorInfo, reads: Series, whole: Energy) -> float | None:
    """Worst relative bound over windows of one second that fit into the check."""
    length_ns = round(_PHASE_S * 1e9)
    if whole.joules is None or whole.t1_ns - whole.t0_ns < length_ns:
        return None
    starts = np.linspace(whole.t0_ns, whole.t1_ns - length_ns, 8)
    bounds = [_energy(info, reads, int(at), int(at) + length_ns).relative_bound for at in starts]
    known = [bound for bound in bounds if bound is not None]
    return max(known) if len(known) == len(bounds) else None
