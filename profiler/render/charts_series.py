"""Charts of a metric over the batch: throughput against concurrency, and energy per token."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import altair as alt

from profiler.render.charts import Chart, draw
from profiler.render.charts_shared import (
    IDENTITY,
    LEVELS,
    MAX_PANELS,
    data,
    identity,
    left_out,
    log_axis,
    span,
    subject_colour,
    subject_dash,
    subject_shape,
    subjects_of,
    with_batches,
)
from profiler.render.report_numbers import figure, half_width, plottable
from profiler.render.report_subjects import Entry, Family
from profiler.render.report_view import Cell, Column, Figure, Panel, Row, Table, condensed
from profiler.results.schema import Measurement


def concurrency_figure(families: Sequence[Family], *, interactive: bool = False) -> Figure | None:
    """Draw throughput over the number of requests that run together; None with a single batch."""
    return _series_figure(
        "concurrency",
        families,
        metric=_throughput,
        column=Column("throughput", "tokens/s", True),
        axis=_throughput_axis,
        caption="Tokens per second of the whole batch over the number of requests that run together: output "
        "tokens with prefill included, or prompt tokens where a workload is nothing but prefill. Both axes "
        "are logarithmic; bands are 95% intervals. Of loads on a server it is what came in their steady "
        "part, and bands hold within one load.",
        interactive=interactive,
    )


def _throughput(entry: Entry) -> Measurement | None:
    name = "output_tokens_per_s" if entry.spec.output_tokens > 1 else "prefill_tokens_per_s"
    if entry.spec.load is not None:
        # Filling up and running empty are not what the server does under this load.
        return entry.measured("output_tokens_per_s_steady") or entry.measured("output_tokens_per_s")
    return entry.measured(name)


def _throughput_axis(family: Family) -> str:
    if family.over != "batch":
        return "output tokens/s, all users"
    return f"{'output' if family.lengths[1] > 1 else 'prompt'} tokens/s, whole batch"


def energy_figure(families: Sequence[Family], *, interactive: bool = False) -> Figure | None:
    """Draw energy per output token over the batch; None where it was measured nowhere."""
    return _series_figure(
        "joules",
        families,
        metric=lambda entry: entry.measured("energy_per_output_token_j"),
        column=Column("energy", "J/token", True),
        axis=lambda _: "J per output token",
        caption="Energy per output token over the number of requests that run together: all of the energy "
        "that the sensor covers, idle power and prefill included. Both axes are logarithmic. Bands are "
        "bounds of sampling, not of a sensor that is wrong by a constant factor.",
        interactive=interactive,
        single=True,
    )


def _series_figure(
    name: str,
    families: Sequence[Family],
    *,
    metric: Callable[[Entry], Measurement | None],
    column: Column,
    axis: Callable[[Family], str],
    caption: str,
    interactive: bool,
    single: bool = False,
) -> Figure | None:
    """Draw a metric over the batch, one panel per family.

    Args:
        name: prefix of ids.
        families: candidates.
        metric: what is drawn.
        column: heading of the metric in the table.
        axis: title of the vertical axis of a family.
        caption: of the figure.
        interactive: keep the specifications.
        single: whether a single batch is worth a panel.
    """

    def drawable(entry: Entry) -> bool:
        found = metric(entry)
        return found is not None and plottable(found.value, entry.level)

    candidates = list(families) if single else with_batches(families)
    usable = [family for family in candidates if any(map(drawable, family.entries))]
    if not usable:
        return None
    chosen = usable[:MAX_PANELS]
    panels: list[Panel] = []
    rows: list[Row] = []
    for number, family in enumerate(chosen):
        entries = [entry for entry in family.entries if drawable(entry)]
        chart, description = _series_chart(entries, metric, axis(family), LEVELS[family.over])
        panels.append(draw(f"{name}-{number + 1}", family.title, description, chart, interactive=interactive))
        for entry in entries:
            found = metric(entry)
            if found is not None and found.value is not None:
                shown = Cell(figure(found.value), half_width(found))
                rows.append(Row((*identity(family, entry), shown)))
    columns = (*IDENTITY, column)
    subjects = subjects_of(entry for family in chosen for entry in family.entries)
    return Figure(
        caption + left_out(len(chosen), len(usable), "workload"),
        tuple(panels),
        tuple(subject.legend for subject in subjects),
        condensed(Table(f"{name}-data", "What is drawn", columns, tuple(rows))),
    )


def _series_chart(
    entries: Sequence[Entry], metric: Callable[[Entry], Measurement | None], axis: str, below: str
) -> tuple[Chart, str]:
    """Return lines with bands and marks over the batch or load, and a description."""
    rows = _series_rows(entries, metric)
    batches = sorted({row["batch"] for row in rows})
    x = alt.X(
        **log_axis(
            "batch",
            below,
            (batches[0] / 1.15, batches[-1] * 1.15),
            ticks=_batch_ticks(batches),
        )
    )
    domain = span([row["low"] for row in rows] + [row["high"] for row in rows])
    scale = log_axis("value", axis, domain)
    y = alt.Y(**scale)
    subjects = subjects_of(entries)
    base = alt.Chart(data(rows)).encode(color=subject_colour(subjects))
    tips = [
        alt.Tooltip("subject:N"),
        alt.Tooltip("batch:Q"),
        alt.Tooltip("value:Q", format=".4g", title=axis),
    ]
    band = base.mark_area(opacity=0.22).encode(x=x, y=alt.Y(**scale | {"shorthand": "low:Q"}), y2="high:Q")
    line = base.mark_line(strokeWidth=2).encode(x=x, y=y, strokeDash=subject_dash(subjects))
    # A band has no width where there is one batch; a rule shows its interval.
    whisker = base.mark_rule(strokeWidth=1.5).encode(
        x=x, y=alt.Y(**scale | {"shorthand": "low:Q"}), y2="high:Q", color=subject_colour(subjects)
    )
    marks = base.mark_point(filled=True, size=60, opacity=1).encode(
        x=x, y=y, shape=subject_shape(subjects), tooltip=tips
    )
    ends = [pick(rows, key=lambda row: float(row["value"])) for pick in (min, max)]
    least, best = (f"{figure(row['value'])} ({row['subject']}, at {row['batch']:g})" for row in ends)
    description = f"{axis} for {batches[0]:g} to {batches[-1]:g} {below}: from {least} to {best}."
    return alt.layer(band, line, whisker, marks), description


def _series_rows(
    entries: Sequence[Entry], metric: Callable[[Entry], Measurement | None]
) -> list[dict[str, Any]]:
    """Return the data of a chart; a figure without an interval that can be drawn has one of no width."""
    rows: list[dict[str, Any]] = []
    for entry in entries:
        found = metric(entry)
        if found is None or found.value is None:
            continue
        low, high = found.ci95 or (found.value, found.value)
        if not plottable(low, high):
            low = high = found.value
        rows.append(
            {
                "subject": entry.subject.label,
                "batch": entry.level,
                "value": found.value,
                "low": low,
                "high": high,
            }
        )
    return rows


def _batch_ticks(batches: Sequence[float]) -> list[float]:
    """Return the batches themselves, thinned to about eight."""
    stride = max(1, math.ceil(len(batches) / 8))
    return [float(batch) for batch in batches[::stride]]
