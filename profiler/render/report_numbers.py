"""Figures of a column in one unit, so that they can be compared by eye and sorted."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from profiler.render.report_view import DASH, Cell
from profiler.render.units import format_rate
from profiler.results.schema import Measurement

# Beyond these nothing on a computer is; what a hostile record claims must not stretch an axis.
_PLAUSIBLE = (1e-12, 1e24)


@dataclass(frozen=True)
class Unit:
    """A unit that a whole column or axis is shown in.

    Attributes:
        text: as shown.
        size: base units in one of it.
    """

    text: str
    size: float = 1.0


_TIMED = ("s", "tokens/s")
_LADDERS = {
    "s": (Unit("µs", 1e-6), Unit("ms", 1e-3), Unit("s")),
    "bytes": (Unit("MiB", 2**20), Unit("GiB", 2**30), Unit("TiB", 2**40)),
    "J/token": (Unit("mJ/token", 1e-3), Unit("J/token")),
    "ratio": (Unit("%", 0.01),),
    "bytes/s": (Unit("GB/s", 1e9),),
}


def unit_for(base: str, values: Iterable[float | None]) -> Unit:
    """Return the unit in which most of ``values`` are easy to read.

    Args:
        base: unit of the values as in a record.
        values: in base units; None is left out.
    """
    known = sorted(abs(value) for value in values if value)
    ladder = _LADDERS.get(base, (Unit(base),))
    if not known:
        return ladder[-1]
    typical = median(known)
    return next((unit for unit in reversed(ladder) if typical >= unit.size * 0.999), ladder[0])


def figure(value: float) -> str:
    """Three significant digits, four from 1,000 on, and powers of ten where digits would not end."""
    if value == 0:
        return "0"
    size = abs(value)
    if not 1e-4 <= size < 1e9:
        return f"{value:.2e}"
    decimals = max(0, 2 - math.floor(math.log10(float(f"{size:.3g}"))))
    return f"{value:,.{decimals}f}"


def half_width(measurement: Measurement) -> str:
    """Return half of the 95% interval relative to the value, as ``±1.2%``; empty when there is none."""
    if measurement.ci95 is None or measurement.value is None:
        return ""
    half = measurement.ci95[1] / 2 - measurement.ci95[0] / 2
    if measurement.value == 0:
        return f"±{figure(half)}"
    share = half / abs(measurement.value)
    return f"±{share:.1%}" if share < 10 else "±>1000%"


def measured_cell(measurement: Measurement | None, unit: Unit, *, titles: bool, link: str = "") -> Cell:
    """Return a measurement in ``unit``.

    Args:
        measurement: of the column's metric, or None where the case has none.
        unit: of the column.
        titles: whether to say what is behind the figure; left out where a page would grow too large.
        link: id on the page that the figure leads to.
    """
    if measurement is None:
        return Cell(DASH)
    if measurement.value is None:
        return Cell(DASH, title=(measurement.reason or "") if titles else "")
    title = ""
    if titles:
        parts = [f"{measurement.method}; n = {measurement.n}; {measurement.scope}"]
        if measurement.ci95 is not None:
            low, high = (figure(end / unit.size) for end in measurement.ci95)
            parts.insert(0, f"95% interval {low} to {high} {unit.text}")
        title = "; ".join(parts)
    text = figure(measurement.value / unit.size)
    # A mean of times should have an interval; that there is none must not look like certainty.
    unknown = "±?" if measurement.method.startswith("mean of") and measurement.unit in _TIMED else ""
    return Cell(text, half_width(measurement) or unknown, title, link)


def rate_text(value: float, unit: str) -> str:
    """Return a rate as :func:`format_rate` does, in powers of ten where that would not end."""
    return format_rate(value, unit) if plottable(value) else f"{figure(value)} {unit}/s"


def plottable(*values: float | None) -> bool:
    """Whether all values can stand on a logarithmic axis without stretching it beyond sense."""
    return all(
        value is not None and math.isfinite(value) and _PLAUSIBLE[0] < value < _PLAUSIBLE[1]
        for value in values
    )
