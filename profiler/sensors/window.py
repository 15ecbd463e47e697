"""Energy of a window from ticks of a counter: interpolated, with a bound on its error.

Pure functions on arrays of reads; the method and what its bound promises are in ``docs/method.md``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from profiler.backends.base import Unavailable
from profiler.sensors.base import Energy, SensorInfo
from profiler.sensors.edge import Nodes, edge_at, power_range, usual_interval_ns
from profiler.sensors.ticks import Integers, Series, Ticks, find_ticks

_SHORT_TICKS = 5
_LATE = 3.0  # a tick this many times later than usual is a gap
_STUCK_TICKS = 10
_STUCK_S = 2.0
# A bound as large as the value says nothing.
_USELESS = 1.0


def counter_energy(
    reads: Series,
    info: SensorInfo,
    t0_ns: int,
    t1_ns: int,
    *,
    widen: bool = True,
    max_relative_bound: float | None = None,
) -> Energy:
    """Return the energy between two moments from reads of a cumulative counter.

    Args:
        reads: from at least a tick before ``t0_ns`` to a tick after ``t1_ns``; a second on both sides
            makes the bound better.
        info: of the counter.
        t0_ns: beginning of the window, CLOCK_MONOTONIC.
        t1_ns: its end.
        widen: where an end lies in a gap (the sampler was starved, or a tick was late), move it outwards
            to the next tick; the result then is for a longer window, and flagged ``widened``.
        max_relative_bound: refuse a value whose bound is a larger part of it. By default only a bound as
            large as the value itself is refused.

    Returns:
        An :class:`Energy`; with a reason instead of a value for windows that the reads do not cover, that
        are too short, or in which the counter was lost, stuck, reset or went backwards.
    """
    if t1_ns <= t0_ns:
        return _none(info, t0_ns, t1_ns, Unavailable("not_in_order", "the window ends before it begins"))
    ticks = find_ticks(reads, info)
    found = _within_one_segment(ticks, reads, info, t0_ns, t1_ns)
    if isinstance(found, Unavailable):
        return _none(info, t0_ns, t1_ns, found, _read_flags(reads, t0_ns, t1_ns, found.code), ticks.tick_s)
    nodes = found.middle_ns
    flags = _read_flags(reads, t0_ns, t1_ns)
    start, end = t0_ns, t1_ns
    if widen:
        start, end = _outwards(nodes, t0_ns, -1), _outwards(nodes, t1_ns, +1)
        if (start, end) != (t0_ns, t1_ns):
            flags.append("widened")
    range_w = power_range(found, start, end)
    first = edge_at(found, start, range_w, ticks.tick_s)
    last = edge_at(found, end, range_w, ticks.tick_s)
    value = last.joules - first.joules
    # A window holds most with the most at its end and the least at its beginning.
    off = max(last.most_j - first.least_j - value, value - (last.least_j - first.most_j))
    bound = off + 2 * _resolution(reads, info) * info.scale
    inside = (nodes >= start) & (nodes <= end)
    flags += _window_flags(ticks, nodes, info, start, end)
    energy = Energy(
        value, bound, "counter_tick_interpolated", info.scope, start, end, int(inside.sum()), ticks.tick_s,
        tuple(dict.fromkeys(flags)), simulated=info.simulated,
    )  # fmt: skip
    return refuse_if_too_wide(energy, max_relative_bound)


def _window_flags(ticks: Ticks, nodes: Integers, info: SensorInfo, start: int, end: int) -> list[str]:
    """Return what limits a value: late ticks, few of them, wraps, what the counter covers."""
    flags = []
    usual_ns = usual_interval_ns(nodes)
    if (np.diff(nodes) > _LATE * usual_ns)[_touched(nodes, start, end)].any():
        flags.append("gap")
    if end - start < _SHORT_TICKS * usual_ns:
        flags.append("short_window")
    if any(start <= moment <= end for moment in ticks.wrapped_ns):
        flags.append("wrapped")
    if info.scope == "module":
        flags.append("scope_module")
    return flags


def refuse_if_too_wide(energy: Energy, max_relative_bound: float | None) -> Energy:
    """Return the energy, or why its window is too short for the bound that was asked for."""
    if energy.joules is None or energy.bound_j is None:
        return energy
    most = _USELESS if max_relative_bound is None else max_relative_bound
    if energy.joules > 0 and energy.bound_j <= most * energy.joules:
        return energy
    text = (
        f"the window of {energy.duration_s:.3g} s is too short: {energy.joules:.3g} J would be "
        f"uncertain by {energy.bound_j:.3g} J"
    )
    remedy = "measure over a longer window"
    if energy.joules > 0:
        needed_s = energy.bound_j / (most * energy.joules) * energy.duration_s
        remedy += f", about {needed_s:.2g} s for {most:.0%}"
    flags = tuple(dict.fromkeys((*energy.flags, "short_window")))
    reason = Unavailable("window_too_short", text, remedy)
    return replace(energy, joules=None, bound_j=None, method="none", flags=flags, reason=reason)


def _within_one_segment(
    ticks: Ticks, reads: Series, info: SensorInfo, t0_ns: int, t1_ns: int
) -> Nodes | Unavailable:
    """Return the ticks of the unbroken run that covers the window, or why there is none."""
    for broken in ticks.breaks:
        if broken.t0_ns < t1_ns and t0_ns < broken.t1_ns:
            return broken.why
    nodes = (ticks.lo_ns + ticks.hi_ns) // 2
    if len(nodes) >= 2:
        # Breaks outside the window leave the run in which its middle lies.
        middle = int(np.clip(np.searchsorted(nodes, (t0_ns + t1_ns) // 2), 1, len(nodes) - 1))
        same = ticks.segment == ticks.segment[middle - 1]
        covered = nodes[same]
        if len(covered) >= 2 and covered[0] <= t0_ns and t1_ns <= covered[-1]:
            return Nodes(ticks.lo_ns[same], ticks.hi_ns[same], ticks.joules[same])
    return _why_not_covered(ticks, reads, info, t0_ns, t1_ns)


def _why_not_covered(ticks: Ticks, reads: Series, info: SensorInfo, t0_ns: int, t1_ns: int) -> Unavailable:
    good = reads.good()
    ended_ns = int(good.t_after_ns[-1]) if len(good) else None
    # Failures that were followed by good reads (a meter that takes a moment to start) end nothing.
    bad = (reads if ended_ns is None else reads.between(ended_ns + 1, t1_ns)).failures()
    if not len(good) and not bad:
        return Unavailable("no_samples", "the sensor was never read", "see whether the sampler runs")
    if bad:
        return lost(bad[0], None if ended_ns is None else (ended_ns - t0_ns) * 1e-9)
    since = int(ticks.hi_ns[-1]) if len(ticks.hi_ns) else int(good.t_before_ns[0])
    assert ended_ns is not None
    quiet_s = (ended_ns - since) * 1e-9
    if quiet_s > max(_STUCK_S, _STUCK_TICKS * (ticks.tick_s or info.tick_s or 0.0)):
        text = f"the counter has not moved for {quiet_s:.1f} s"
        return Unavailable("stuck_counter", text, "see whether other tools show the same; reload the driver")
    text = "the sensor was not read (or showed no new value) before and after the whole window"
    return Unavailable("window_not_covered", text, "sample for longer before and after it")


def lost(code: str, after_s: float | None) -> Unavailable:
    """Return why a sensor that stopped answering gives no energy."""
    when = "from the beginning" if after_s is None else f"{after_s:.1f} s after the window began"
    remedies = {"lost": "see dmesg; reboot", "permission": "see `aiprof devices` for the remedy"}
    if code == "lost":
        return Unavailable("lost_at", f"the device was lost {when}", remedies["lost"])
    return Unavailable(code, f"reading the sensor failed ({code}) {when}", remedies.get(code, ""))


def _read_flags(reads: Series, t0_ns: int, t1_ns: int, code: str = "") -> list[str]:
    """Flags that reads and refusals give: failed reads, and the code of a counter's fault."""
    flags = [code] if code in ("counter_reset", "counter_backwards", "stuck_counter") else []
    if reads.between(t0_ns, t1_ns).failures():
        flags.append("read_failures")
    return flags


def _none(
    info: SensorInfo,
    t0_ns: int,
    t1_ns: int,
    reason: Unavailable,
    flags: list[str] | None = None,
    tick_s: float | None = None,
) -> Energy:
    return Energy(
        None, None, "none", info.scope, t0_ns, t1_ns, 0, tick_s, tuple(flags or ()), reason, info.simulated
    )


def _resolution(reads: Series, info: SensorInfo) -> int:
    """Return the step of the counter in raw units: what the source says, or a finer one that is seen."""
    steps = np.diff(reads.good().raw)
    seen = int(np.gcd.reduce(steps)) if len(steps) else 0
    return min(info.resolution, seen) if seen > 0 else info.resolution


def _outwards(nodes: Integers, moment: int, direction: int) -> int:
    """Return ``moment``, or where it lies in a gap the next tick in ``direction``."""
    at = int(np.clip(np.searchsorted(nodes, moment, side="right") - 1, 0, len(nodes) - 2))
    if nodes[at + 1] - nodes[at] <= _LATE * usual_interval_ns(nodes):
        return moment
    return int(nodes[at] if direction < 0 else nodes[at + 1])


def _touched(nodes: Integers, t0_ns: int, t1_ns: int) -> slice:
    """Return which intervals between ticks the window touches."""
    first = max(0, int(np.searchsorted(nodes, t0_ns, side="right")) - 1)
    last = max(first + 1, int(np.searchsorted(nodes, t1_ns, side="left")))
    return slice(first, last)
