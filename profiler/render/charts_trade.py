"""The trade between what one user gets and what the device gives in all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from profiler.render.charts import Chart, draw
from profiler.render.charts_shared import (
    IDENTITY,
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
from profiler.render.report_subjects import Entry, Family, Subject
from profiler.render.report_view import Cell, Column, Figure, Panel, Row, Table, condensed


def trade_figure(families: Sequence[Family], *, interactive: bool = False) -> Figure | None:
    """Draw what a single user gets against what the device gives in all; None with a single batch."""
    usable = [
        (family, points) for family in with_batches(families) if len(points := _trade_points(family)) > 1
    ]
    if not usable:
        return None
    chosen = usable[:MAX_PANELS]
    panels: list[Panel] = []
    rows: list[Row] = []
    for number, (family, points) in enumerate(chosen):
        subjects = subjects_of(entry for entry, _, _ in points)
        panels.append(
            draw(
                f"trade-{number + 1}",
                family.title,
                "Each line is a box; along it the batch grows, what one user gets falls and what all users "
                "get together rises. Up and to the right is better.",
                _trade_chart(points, subjects),
                interactive=interactive,
            )
        )
        for entry, per_user, total in points:
            output = entry.measured("output_tokens_per_s")
            time = entry.measured("tpot_s")
            rows.append(
                Row(
                    (
                        *identity(family, entry),
                        Cell(figure(per_user), half_width(time) if time else ""),
                        Cell(figure(total), half_width(output) if output else ""),
                    )
                )
            )
    columns = (*IDENTITY, Column("per user", "tokens/s", True), Column("per device", "tokens/s", True))
    subjects = subjects_of(entry for _, points in chosen for entry, _, _ in points)
    return Figure(
        "What one user gets while the device serves a batch (1 / time per output token) against what the "
        "device gives in all. Numbers beside marks are batches, users or requests per second; whiskers are "
        "95% intervals. Up and to the right is better. Both axes are logarithmic."
        + left_out(len(chosen), len(usable), "workload"),
        tuple(panels),
        tuple(subject.legend for subject in subjects),
        condensed(Table("trade-data", "What is drawn", columns, tuple(rows))),
    )


def _trade_points(family: Family) -> list[tuple[Entry, float, float]]:
    found = []
    for entry in family.entries:
        time, total = entry.value("tpot_s"), entry.value("output_tokens_per_s")
        if time is not None and total is not None and plottable(time, total, entry.level):
            found.append((entry, 1 / time, total))
    return found


def _trade_chart(points: Sequence[tuple[Entry, float, float]], subjects: Sequence[Subject]) -> Chart:
    rows: list[dict[str, Any]] = []
    batches: dict[int, list[float]] = {}
    for entry, _, _ in points:
        batches.setdefault(entry.subject.index, []).append(entry.level)
    for entry, per_user, total in points:
        found = entry.measured("output_tokens_per_s")
        low, high = (found.ci95 if found else None) or (total, total)
        if not plottable(low, high):
            low = high = total
        own = batches[entry.subject.index]
        named = entry.level in (min(own), max(own))
        rows.append(
            {
                "subject": entry.subject.label,
                "batch": entry.level,
                "user": per_user,
                "total": total,
                "low": low,
                "high": high,
                "label": f"{entry.level:g}" if named else "",
            }
        )
    x = alt.X(**log_axis("user", "tokens/s per user", span([row["user"] for row in rows], factor=1.25)))
    domain = span([row[end] for row in rows for end in ("low", "high")], factor=1.25)
    scale = log_axis("total", "output tokens/s per device", domain)
    y = alt.Y(**scale)
    base = alt.Chart(data(rows)).encode(color=subject_colour(subjects))
    tips = [alt.Tooltip("subject:N"), alt.Tooltip("batch:Q")]
    tips += [alt.Tooltip("user:Q", format=".4g"), alt.Tooltip("total:Q", format=".4g")]
    line = base.mark_line(strokeWidth=2).encode(x=x, y=y, order="batch:Q", strokeDash=subject_dash(subjects))
    whisker = base.mark_rule(strokeWidth=1.5).encode(
        x=x, y=alt.Y(**scale | {"shorthand": "low:Q"}), y2="high:Q", color=subject_colour(subjects)
    )
    marks = base.mark_point(filled=True, size=60, opacity=1).encode(
        x=x, y=y, shape=subject_shape(subjects), tooltip=tips
    )
    names = alt.Chart(data(rows)).mark_text(dx=9, dy=-7, align="left").encode(x=x, y=y, text="label:N")
    return alt.layer(line, whisker, marks, names)
