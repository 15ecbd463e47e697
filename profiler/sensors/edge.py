"""The energy of a counter at one moment, the end of a window, and the least and most that it can have been.

Pure functions on ticks; the method and what its bound promises are in ``docs/method.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from profiler.sensors.comb import sharpen
from profiler.sensors.ticks import Floats, Integers

# Powers seen up to this long before and after a window say how much the power moves.
_VICINITY_NS = 1_000_000_000
# Power moves more within a tick than the means over ticks do.
_HIDDEN_SPREAD = 0.2  # of the range of the means, added on both sides
_HIDDEN_LEVEL = 0.1  # of the largest mean, added on both sides
_NEAR_TICKS = 24  # on each side, for finding out when a regular counter ticked
# A mean over an interval whose ends are uncertain by more than this part of it says nothing of the power.
_SHARP = 0.25
# Half a bracket, in ticks: reads that are further apart than ticks leave 0.75, dense ones 0.05.
_LOOSE = 0.4
# Powers that differ by no more than this factor are one; what a mean over loose ticks is taken over.
_ALIKE = 1.2
_LONG_TICKS = 5.0

Booleans = NDArray[np.bool_]


@dataclass(frozen=True)
class Edge:
    """The counter at one end of a window.

    Attributes:
        joules: most likely value, since the first tick.
        least_j: the least that it can have been, with the power in its range.
        most_j: the most.
    """

    joules: float
    least_j: float
    most_j: float


@dataclass(frozen=True)
class Nodes:
    """Ticks of one unbroken run: earliest and latest moment of each (ns), and the energy then."""

    lo_ns: Integers
    hi_ns: Integers
    joules: Floats

    @property
    def middle_ns(self) -> Integers:
        """The middle of each bracket."""
        return (self.lo_ns + self.hi_ns) // 2


def power_range(nodes: Nodes, t0_ns: int, t1_ns: int) -> tuple[float, float]:
    """Return between which powers the device is taken to have been around a window, from means over ticks."""
    middle = nodes.middle_ns
    first = int(np.searchsorted(middle, t0_ns - _VICINITY_NS, side="right")) - 1
    last = int(np.searchsorted(middle, t1_ns + _VICINITY_NS)) + 1
    near = slice(max(0, first), last)
    means = _means(middle[near], (nodes.hi_ns - nodes.lo_ns)[near], nodes.joules[near])
    low, high = float(means.min()), float(means.max())
    hidden = _HIDDEN_SPREAD * (high - low) + _HIDDEN_LEVEL * high
    return max(0.0, low - hidden), high + hidden


def _means(middle_ns: Integers, width_ns: Integers, joules: Floats) -> Floats:
    """Return mean powers from tick to tick, without those over times too short to be known.

    Reads that are unevenly apart leave ticks whose moments are known to a tenth of a millisecond beside
    others that are known to a few, and the quotient over a short time between two such would be anything.
    """
    length = np.diff(middle_ns)
    sharp = (width_ns[1:] + width_ns[:-1]) / 2 <= _SHARP * length
    kept = sharp | (length >= usual_interval_ns(middle_ns) / 2)
    return np.diff(joules)[kept] / (length[kept] * 1e-9)


def usual_interval_ns(middle_ns: Integers) -> float:
    """Return how far ticks are apart for most of the time: a moment of dense reads counts little."""
    length = np.sort(np.diff(middle_ns))
    passed = np.cumsum(length)
    return float(length[int(np.searchsorted(passed, passed[-1] / 2))])


def edge_at(nodes: Nodes, moment_ns: int, range_w: tuple[float, float], tick_s: float | None) -> Edge:
    """Return the counter at a moment between its ticks.

    With the power between ``low`` and ``high`` every tick in the neighbourhood limits the energy at the
    moment, from both sides: it is that of the tick and at least ``low``, at most ``high`` times the time in
    between. The moments of the ticks themselves are known only to within their brackets.

    Args:
        nodes: ticks, at least two, around the moment.
        moment_ns: on the clock of the reads.
        range_w: ``low`` and ``high``.
        tick_s: usual time between ticks, or None where it is not known.
    """
    at = int(np.searchsorted(nodes.middle_ns, moment_ns))
    near = slice(max(0, at - _NEAR_TICKS), at + _NEAR_TICKS)
    lo = (nodes.lo_ns[near] - moment_ns).astype(np.float64) * 1e-9
    hi = (nodes.hi_ns[near] - moment_ns).astype(np.float64) * 1e-9
    if tick_s is not None:
        lo, hi = sharpen(lo, hi, tick_s)
    joules = nodes.joules[near]
    value, mean_w = _likely(lo, hi, joules, tick_s)
    low, high = range_w
    if mean_w is not None:
        low, high = min(low, mean_w), max(high, mean_w)
    # The moment is time 0: ticks before it have negative times.
    most = float((joules + high * np.maximum(-lo, 0.0) - low * np.maximum(lo, 0.0)).min())
    least = float((joules + low * np.maximum(-hi, 0.0) - high * np.maximum(hi, 0.0)).max())
    least, most = min(least, most), max(least, most)
    return Edge(float(np.clip(value, least, most)), least, most)


def _likely(lo: Floats, hi: Floats, joules: Floats, tick_s: float | None) -> tuple[float, float | None]:
    """Return the likely energy at time 0, and the power between the ticks around it if that is known.

    Reads that became dense at the edge leave a tick that is known to no better than a tick before
    well-known ones. Where a regular one explains the energy up to the first of these it is taken for that;
    where it does not, because a tick came late or power did something else, the line through the well-known
    ones is drawn back.
    """
    times = (lo + hi) / 2
    loose = np.zeros(len(lo), dtype=np.bool_) if tick_s is None else (hi - lo) / 2 > _LOOSE * tick_s
    at = int(np.clip(np.searchsorted(times, 0.0, side="right") - 1, 0, len(times) - 2))
    sharp = None if tick_s is None else _well_known_after(times, loose, at)
    if sharp is None or tick_s is None:
        mean = _power(times, joules, at)
        if not loose[max(0, at - 1) : at + 3].any() and 0 < at < len(times) - 2:
            return _kinked(times, joules, at, _power(times, joules, at - 1)), mean
        value = float(joules[at]) - mean * float(times[at])
        return value, mean if loose.all() or not loose[at : at + 2].any() else None
    after_w = _power(times, joules, sharp)
    times[sharp - 1] = np.clip(times[sharp] - tick_s, lo[sharp - 1], hi[sharp - 1])
    regular_w, earlier_w = _power(times, joules, sharp - 1), _mean_before(times, joules, sharp - 1, tick_s)
    if not min(after_w, earlier_w) / _ALIKE <= regular_w <= max(after_w, earlier_w) * _ALIKE:
        return float(joules[sharp]) - after_w * float(times[sharp]), None
    if times[sharp - 1] > 0:
        return float(joules[sharp - 1]) - regular_w * float(times[sharp - 1]), None
    return _kinked(times, joules, sharp - 1, earlier_w), None


def _kinked(times: Floats, joules: Floats, at: int, before_w: float) -> float:
    """Return the energy at time 0 between two ticks, where the power changed once between them or not at all.

    The power before and after says when it changed: the energy runs along one line, then along the other.
    """
    mean_w, after_w = _power(times, joules, at), _power(times, joules, at + 1)
    if max(before_w, after_w) > _ALIKE * min(before_w, after_w):
        before_j = float(joules[at]) - before_w * float(times[at])
        after_j = float(joules[at + 1]) - after_w * float(times[at + 1])
        if before_w < mean_w < after_w:
            return max(before_j, after_j)
        if before_w > mean_w > after_w:
            return min(before_j, after_j)
    return float(joules[at]) - mean_w * float(times[at])


def _power(times: Floats, joules: Floats, at: int) -> float:
    """Return the mean power from one tick to the next."""
    return float((joules[at + 1] - joules[at]) / (times[at + 1] - times[at]))


def _well_known_after(times: Floats, loose: Booleans, at: int) -> int | None:
    """Return the first of two well-known ticks in a row right after time 0 and a tick that is not, if any."""
    for sharp in (at + 1, at + 2):
        if sharp + 1 < len(times) and loose[sharp - 1] and not loose[sharp : sharp + 2].any():
            return sharp
    return None


def _mean_before(times: Floats, joules: Floats, at: int, tick_s: float) -> float:
    """Return the power up to a tick, over a time long enough for it to be known."""
    first = max(0, min(at - 1, int(np.searchsorted(times, times[at] - _LONG_TICKS * tick_s)) - 1))
    return float((joules[at] - joules[first]) / (times[at] - times[first])) if at else 0.0
