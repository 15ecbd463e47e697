"""How much the times of single trials scatter: every trial as a tick about the mean of its case."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean, median
from typing import Any, Final, NamedTuple, TypeAlias

import altair as alt

from profiler.render.charts import Chart, Frame, draw
from profiler.render.charts_shared import (
    IDENTITY,
    MAX_PANELS,
    data,
    decimated,
    identity,
    left_out,
    subject_colour,
    subject_shape,
    subjects_of,
)
from profiler.render.report_numbers import figure, plottable, unit_for
from profiler.render.report_subjects import Entry, Family
from profiler.render.report_view import Cell, Column, Figure, Panel, Row, Table, condensed
from profiler.results.schema import TrialRecord

MAX_ROWS: Final = 12
MAX_TICKS: Final = 60
_ROW_HEIGHT = 21
# Rarer and further out than this is drawn at the edge.
_MOST_PERCENT = 200.0

Time: TypeAlias = Callable[[TrialRecord, int], float | None]


class Spread(NamedTuple):
    """The trial times of a case, in seconds and in the order measured."""

    entry: Entry
    times: list[float]


def _ttft(trial: TrialRecord, _: int) -> float | None:
    return trial.prefill_s


def _tpot(trial: TrialRecord, output_tokens: int) -> float | None:
    return trial.decode_s / (output_tokens - 1) if trial.decode_s and output_tokens > 1 else None


_TIMES: Final[tuple[tuple[str, Time], ...]] = (
    ("TTFT", _ttft),
    ("TPOT", _tpot),
)


def latency_figure(families: Sequence[Family], *, interactive: bool = False) -> Figure | None:
    """Draw the trials of the fullest families; None without at least two trials of a case."""
    ordered = sorted(families, key=lambda family: (-len(family.subjects), -len(family.entries)))
    found = [
        (family, title, spreads)
        for family in ordered
        for title, time in _TIMES
        if (spreads := _spreads(family, time))
    ]
    if not found:
        return None
    chosen = found[:MAX_PANELS]
    panels: list[Panel] = []
    rows: list[Row] = []
    for number, (family, title, spreads) in enumerate(chosen):
        name, heading = f"latency-{number + 1}", f"{title} · {family.title}"
        frame = Frame(height=_ROW_HEIGHT * len(spreads) + 12, left=130, top=8)
        description = (
            f"Each tick is the {title} of one trial, in percent of the mean of its case; "
            f"{len(spreads)} cases, {sum(len(spread.times) for spread in spreads)} trials."
        )
        panels.append(draw(name, heading, description, _chart(spreads), frame=frame, interactive=interactive))
        rows += [_row(family, title, spread) for spread in spreads]
    figures = (Column(name, "ms", True) for name in ("least", "median", "mean", "greatest"))
    columns = (*IDENTITY, Column("time"), Column("trials", "", True), *figures)
    subjects = subjects_of(spread.entry for _, _, spreads in chosen for spread in spreads)
    return Figure(
        "Every measured trial as a tick, in percent of the mean of its case; warm-up is left out. Beside "
        "each row stand its batch and its mean: TTFT, the time to the first token, or TPOT, the time per "
        "output token after it. All requests of a trial run in step, so a trial is one "
        "observation; with so few of them no percentile above the median can be stated, and none is."
        + left_out(len(chosen), len(found), "time"),
        tuple(panels),
        tuple(subject.legend for subject in subjects),
        condensed(Table("latency-data", "What is drawn", columns, tuple(rows))),
    )


def _spreads(family: Family, time: Time) -> list[Spread]:
    found: list[Spread] = []
    for entry in _shown(family):
        used = {start.index for start in entry.case.starts if start.used}
        times = [
            value
            for trial in entry.case.trials
            if trial.start in used and not trial.warm_up
            if (value := time(trial, entry.spec.output_tokens)) is not None and plottable(value)
        ]
        if len(times) > 1:
            found.append(Spread(entry, times))
    return found


def _shown(family: Family) -> list[Entry]:
    """Return the cases that there is room for; those with a single trial have nothing to show."""
    found = [entry for entry in family.entries if len(entry.case.trials) > 1]
    if len(found) <= MAX_ROWS:
        return found
    batches = sorted({entry.spec.batch for entry in found})
    kept: set[int] = set()
    # The smallest and the largest batches say most; the rest as far as there is room.
    for batch in (batches[0], batches[-1], *batches[1:-1]):
        if sum(entry.spec.batch in kept | {batch} for entry in found) <= MAX_ROWS:
            kept.add(batch)
    return [entry for entry in found if entry.spec.batch in kept][:MAX_ROWS] or found[:MAX_ROWS]


def _row(family: Family, title: str, spread: Spread) -> Row:
    times = [value * 1e3 for value in spread.times]
    figures = (min(times), median(times), fmean(times), max(times))
    cells = (Cell(title), Cell(f"{len(times):,}"), *(Cell(figure(value)) for value in figures))
    return Row((*identity(family, spread.entry), *cells))


def _chart(spreads: Sequence[Spread]) -> Chart:
    rows: list[dict[str, Any]] = []
    names: list[str] = []
    for place, (entry, times) in enumerate(spreads):
        mean = fmean(times)
        unit = unit_for("s", [mean])
        names.append(f"batch {entry.spec.batch}: {figure(mean / unit.size)} {unit.text}")
        rows += [
            {
                "place": place,
                "subject": entry.subject.label,
                "percent": 100 * (value / mean - 1),
                "ms": value * 1e3,
            }
            for value in decimated(times, MAX_TICKS)
        ]
    reach = min(_MOST_PERCENT, max(2.0, *(abs(row["percent"]) * 1.1 for row in rows)))
    y = alt.Y(
        "place:Q",
        title=None,
        scale=alt.Scale(domain=[len(spreads) - 0.4, -0.6], nice=False, zero=False),
        axis=alt.Axis(
            values=list(range(len(spreads))),
            # Figures and fixed words only; nothing from a record gets into an expression.
            labelExpr=f"{names!r}[datum.value]",
            grid=False,
            labelPadding=11,
        ),
    )
    x = alt.X(
        "percent:Q",
        title="from the mean of the case, %",
        scale=alt.Scale(domain=[-reach, reach], nice=False, clamp=True),
        axis=alt.Axis(grid=True, tickCount=5, format="~f"),
    )
    base = alt.Chart(data(rows))
    subjects = subjects_of(spread.entry for spread in spreads)
    ticks = base.mark_tick(thickness=1.5, size=13, opacity=0.75, orient="vertical").encode(
        x=x,
        y=y,
        color=subject_colour(subjects),
        tooltip=[alt.Tooltip("subject:N"), alt.Tooltip("ms:Q", format=".4g", title="ms")],
    )
    # Colour alone must not say whose row it is.
    whose = [
        {"place": place, "percent": -reach, "subject": spread.entry.subject.label}
        for place, spread in enumerate(spreads)
    ]
    marks = alt.Chart(data(whose)).mark_point(filled=True, size=50, opacity=1, clip=False)
    marks = marks.encode(x=x, y=y, color=subject_colour(subjects), shape=subject_shape(subjects))
    return alt.layer(ticks, marks)
