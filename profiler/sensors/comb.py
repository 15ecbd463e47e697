"""When did a regular sensor tick, if each tick is only known to lie between two reads?

A sensor that updates every 100 ms ticks along a straight line: tick number ``n`` at ``a + b n``. Reads
every 10 ms give for each tick a bracket 10 ms wide, and all brackets together leave far less room for
the line than one of them alone. Where no line fits, the sensor is not regular and nothing is gained.
"""

from __future__ import annotations

import numpy as np

from profiler.sensors.ticks import Floats

_LEAST_TICKS = 8
# Ticks that waver by a small part of the bracket can still fit a line by chance; this much of the usual
# bracket is left open on both sides for them.
_WAVER = 0.1
_UNAMBIGUOUS = 0.6  # widest bracket, in periods
_REGULAR = 0.35  # furthest from a whole number of periods


def sharpen(lo: Floats, hi: Floats, tick_s: float) -> tuple[Floats, Floats]:
    """Return narrower brackets for the ticks of a regular sensor, or the same ones.

    Args:
        lo: earliest moment of each tick, seconds from any origin, increasing.
        hi: latest moment of each.
        tick_s: its usual period; irregular ones are recognised and left alone.

    Returns:
        Brackets that lie within the given ones.
    """
    middle = (lo + hi) / 2
    periods = np.diff(middle) / tick_s
    steps = np.rint(periods)
    if len(lo) < _LEAST_TICKS or (steps < 1).any() or (np.abs(periods - steps) > _REGULAR).any():
        return lo, hi
    if (hi - lo > _UNAMBIGUOUS * tick_s).any():
        return lo, hi  # after a pause: which of two ticks was seen is not known
    number = np.concatenate([[0.0], np.cumsum(steps)])
    lines = _feasible_lines(number, lo, hi)
    if not len(lines):
        return lo, hi
    moments = lines[:, :1] + lines[:, 1:] * number
    waver = _WAVER * float(np.median(hi - lo))
    return np.maximum(lo, moments.min(axis=0) - waver), np.minimum(hi, moments.max(axis=0) + waver)


def _feasible_lines(number: Floats, lo: Floats, hi: Floats) -> Floats:
    """Return the corners (a, b) of the set of lines that pass through all brackets.

    The set is a convex polygon, so the extremes of ``a + b n`` are at its corners. A corner is a line
    through the end of one bracket and the end of another.
    """
    x = np.concatenate([number, number])
    y = np.concatenate([lo, hi])
    first, second = np.triu_indices(len(x), 1)
    apart = x[first] != x[second]
    first, second = first[apart], second[apart]
    slope = (y[second] - y[first]) / (x[second] - x[first])
    start = y[first] - slope * x[first]
    moments = start[:, None] + slope[:, None] * number
    rounding = 1e-9
    fits = ((moments >= lo - rounding) & (moments <= hi + rounding)).all(axis=1)
    return np.stack([start[fits], slope[fits]], axis=1)
