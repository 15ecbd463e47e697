"""What charts have in common: sizes, logarithmic axes, the looks of subjects, columns of their tables."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import altair as alt

from profiler.render.report_subjects import Entry, Family, Over, Subject
from profiler.render.report_view import Cell, Column, plural
from profiler.render.visible import visible_in

MAX_PANELS: Final = 6

LEVELS: Final[Mapping[Over, str]] = {
    "batch": "requests that run together",
    "users": "users at once",
    "rate": "requests per second, as scheduled",
}
"""Titles of the axis of what a family's levels are."""

IDENTITY: Final = (
    Column("box"),
    Column("model"),
    Column("workload"),
    Column("formats"),
    Column("batch", "", True),
)


def data(rows: Sequence[Mapping[str, object]]) -> alt.InlineData:
    """Return rows as the data of a chart; the specification then holds everything."""
    # As one text: Altair would copy and validate every value several times.
    text = json.dumps(visible_in([dict(row) for row in rows]), allow_nan=False)
    return alt.InlineData(values=text, format=alt.JsonDataFormat(type="json"))


def span(values: Iterable[float], *, factor: float = 1.15) -> tuple[float, float]:
    """Return a logarithmic domain with a margin; at least half a decade, so that noise looks like noise."""
    known = list(values)
    low, high = min(known) / factor, max(known) * factor
    if high / low < 3:
        centre = math.sqrt(low * high)
        low, high = centre / math.sqrt(3), centre * math.sqrt(3)
    return low, high


def log_ticks(low: float, high: float) -> list[float]:
    """Return ticks of a logarithmic axis: 1, 2, 5 over few decades, then decades, then fewer of them."""
    decades = math.log10(high / low)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps: tuple[float, ...] = (1, 2, 5) if decades <= 2.2 else (1,)
    if decades <= 0.8:
        steps = (1, 1.5, 2, 3, 4, 5, 6, 8)
    stride = max(1, math.ceil(decades / 7))
    ticks = [step * 10.0**power for power in range(first, last + 1, stride) for step in steps]
    return [tick for tick in ticks if low <= tick <= high]


def log_axis(
    field: str, title: str, domain: tuple[float, float], *, ticks: Sequence[float] | None = None
) -> dict[str, Any]:
    """Return the arguments of a logarithmic ``alt.X`` or ``alt.Y``.

    Args:
        field: name of the field.
        title: what it is, with its unit.
        domain: of the axis.
        ticks: where to put ticks; by default what :func:`log_ticks` gives.
    """
    values = list(ticks) if ticks is not None else log_ticks(*domain)
    # SI prefixes only where digits would not end; "100m tokens/s" is not how people write 0.1.
    wide = max(values, default=1.0) >= 1e5
    return {
        "shorthand": f"{field}:Q",
        "title": title,
        "scale": alt.Scale(type="log", domain=list(domain), nice=False),
        "axis": alt.Axis(values=values, format="~s" if wide else ",~g", labelOverlap="greedy"),
    }


def decimated(values: Sequence[float], limit: int) -> list[float]:
    """Return at most ``limit`` values in order: the least and the greatest of each stretch.

    Args:
        values: a series in order.
        limit: even, at least 2.
    """
    if len(values) <= limit:
        return list(values)
    kept: list[float] = []
    stretches = limit // 2
    for number in range(stretches):
        stretch = values[number * len(values) // stretches : (number + 1) * len(values) // stretches]
        low = min(range(len(stretch)), key=stretch.__getitem__)
        high = max(range(len(stretch)), key=stretch.__getitem__)
        kept += [stretch[index] for index in sorted({low, high})]
    return kept


def subject_colour(subjects: Sequence[Subject], field: str = "subject") -> alt.Color:
    """Return the colours of ``subjects`` as an encoding of the field that holds their labels."""
    return alt.Color(
        f"{field}:N",
        legend=None,
        scale=alt.Scale(
            domain=[subject.label for subject in subjects],
            range=[f"var(--{subject.colour})" for subject in subjects],
        ),
    )


def subject_shape(subjects: Sequence[Subject]) -> alt.Shape:
    """Return the shapes of ``subjects`` for the field ``subject``."""
    return alt.Shape(
        "subject:N",
        legend=None,
        scale=alt.Scale(
            domain=[subject.label for subject in subjects], range=[subject.shape for subject in subjects]
        ),
    )


def subject_dash(subjects: Sequence[Subject]) -> alt.StrokeDash:
    """Return the dashes of ``subjects`` for the field ``subject``."""
    return alt.StrokeDash(
        "subject:N",
        legend=None,
        scale=alt.Scale(
            domain=[subject.label for subject in subjects],
            range=[list(subject.dash) or [1, 0] for subject in subjects],
        ),
    )


def identity(family: Family, entry: Entry) -> tuple[Cell, ...]:
    """Return the cells under :data:`IDENTITY`."""
    return (
        Cell(entry.subject.label, link=entry.anchor),
        Cell(family.model),
        Cell(family.workload),
        Cell(family.formats),
        Cell(entry.level_text),
    )


def subjects_of(entries: Iterable[Entry]) -> list[Subject]:
    """Return the subjects of ``entries``, each once and in order."""
    found = {entry.subject.index: entry.subject for entry in entries}
    return [found[index] for index in sorted(found)]


def with_batches(families: Sequence[Family]) -> list[Family]:
    """Return the families in which some subject was measured at two batches or loads, fullest first."""
    several = [
        family
        for family in families
        if any(len({entry.level for entry in family.of(subject)}) > 1 for subject in family.subjects)
    ]
    return sorted(several, key=lambda family: (-len(family.subjects), -len(family.entries)))


def left_out(shown: int, total: int, what: str) -> str:
    """Say what a figure does not show; empty when it shows everything."""
    if shown >= total:
        return ""
    return f" Shown are {shown} of {plural(total, what)}, those with the most boxes and batches."
