"""Figures of verdicts and prices as text: four digits, so that what is near a limit does not look like it."""

from __future__ import annotations

import math

UNKNOWN = "–"
_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_BARE = {"ratio", "fraction", "verdict"}


def number(value: float) -> str:
    """Return four significant digits; thousands with commas, extremes as powers of ten."""
    size = abs(value)
    if size != 0 and not 1e-4 <= size < 1e15:
        return f"{value:.3e}"
    return f"{value:,.0f}" if size >= 1000 else f"{value:.4g}"


def figure(value: float | None, unit: str) -> str:
    """Return a value in a unit of the record as a person reads it."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    for name, scales in (("s", _SECONDS), ("bytes", _BYTES)):
        if unit == name and value != 0:
            size = abs(value)
            scale, scaled = next((pair for pair in scales if size >= pair[0]), (1.0, unit))
            return f"{number(value / scale)} {scaled}"
    return number(value) if unit in _BARE else f"{number(value)} {unit}"


def interval(low: float | None, high: float | None, unit: str) -> str:
    """Return ``118 tokens/s to 127 tokens/s``, one end where the other is unbounded, or nothing."""
    if low is None and high is None:
        return ""
    if low is None or high is None:
        return f"at least {figure(low, unit)}" if high is None else f"at most {figure(high, unit)}"
    if low == high:
        return ""
    first, second = figure(low, unit), figure(high, unit)
    # The unit once, where both ends are in the same.
    head, _, tail = first.partition(" ")
    return f"{head} to {second}" if tail and second.endswith(f" {tail}") else f"{first} to {second}"


def limit(value: float | None, unit: str, better: str) -> str:
    """Return ``≥ 100 tokens/s`` or ``≤ 250 ms``."""
    if value is None:
        return "faithful"
    return f"{'≥' if better == 'higher' else '≤'} {figure(value, unit)}"
