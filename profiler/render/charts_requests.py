"""How long requests of loads took: every share of them against the time that it took at most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import altair as alt
import numpy as np

from profiler.analysis.request_times import Floats, RequestTimes, read_request_times
from profiler.errors import InputFileError
from profiler.render.charts import Chart, draw
from profiler.render.charts_shared import (
    IDENTITY,
    data,
    identity,
    left_out,
    log_axis,
    span,
    subject_colour,
    subject_dash,
    subjects_of,
)
from profiler.render.report_numbers import figure, plottable, unit_for
from profiler.render.report_subjects import Entry, Family
from profiler.render.report_view import DASH, Cell, Column, Figure, Panel, Row, Table, condensed

MAX_FAMILIES: Final = 2
MAX_LEVELS: Final = 3
MAX_POINTS: Final = 60
SHARES: Final = (50.0, 90.0, 99.0, 99.9)
_GAP: Final = "gap between chunks"
_TIMES: Final = (("TTFT", "ttft_s"), ("TPOT", "tpot_s"), (_GAP, "gap_s"), ("end to end", "e2e_s"))
_TICKS: Final = {50.0: "50%", 90.0: "90%", 99.0: "99%", 99.9: "99.9%", 99.99: "99.99%"}


class Load(NamedTuple):
    """A load with the times of its requests."""

    entry: Entry
    times: RequestTimes


class Line(NamedTuple):
    """One time of the requests of a load.

    Attributes:
        entry: the load.
        values: seconds, in ascending order.
        failed: requests that have none because they failed.
    """

    entry: Entry
    values: Floats
    failed: int


def requests_figure(families: Sequence[Family], *, interactive: bool = False) -> Figure | None:
    """Draw the loads of the fullest families; None where no run holds samples of a load."""
    served = [family for family in families if family.over != "batch"]
    ordered = sorted(served, key=lambda family: (-len(family.subjects), -len(family.entries)))
    shown = [(family, loads) for family in ordered[:MAX_FAMILIES] if (loads := _loads(family))]
    panels: list[Panel] = []
    rows: list[Row] = []
    for family, loads in shown:
        for title, name in _TIMES:
            lines = _lines(loads, name)
            if lines:
                number, heading = f"requests-{len(panels) + 1}", f"{title} · {family.title}"
                chart, description = _chart(title, lines)
                panels.append(draw(number, heading, description, chart, interactive=interactive))
                rows += [_row(family, title, line) for line in lines]
    if not panels:
        return None
    subjects = subjects_of(load.entry for _, loads in shown for load in loads)
    figures = (Column(name, "ms", True) for name in ("least", "p50", "p90", "p99", "p99.9", "greatest"))
    columns = (
        *IDENTITY[:-1],
        Column("load", "", True),
        Column("time"),
        Column("n", "", True),
        Column("failed", "", True),
        *figures,
    )
    every = sum(len(family.entries) for family in served)
    drawn = sum(len(loads) for _, loads in shown)
    caption = (
        "How long it took at most, for each share of the requests of a load; the axis gives the slow ones "
        "room: the slowest tenth lies right of 90%, the slowest hundredth right of 99%. Lower is better. "
        "Numbers at the ends of lines are users or requests per second. Failed requests count as infinitely "
        "slow, so that lines with some end early. Gaps are those between all chunks. Lines are thinned to "
        f"{MAX_POINTS} points, the least and the greatest kept."
    )
    if drawn < every:
        caption += f" Shown are {drawn} of {every} loads: the least, a middle and the greatest."
    return Figure(
        caption + left_out(len(shown), len(served), "workload"),
        tuple(panels),
        tuple(subject.legend for subject in subjects),
        condensed(Table("requests-data", "What is drawn", columns, tuple(rows))),
    )


def _loads(family: Family) -> list[Load]:
    """Return the loads of the least, the greatest and a middle level, those that can be read."""
    levels = sorted({entry.level for entry in family.entries if plottable(entry.level)})
    if len(levels) > MAX_LEVELS:
        levels = [levels[0], levels[len(levels) // 2], levels[-1]]
    found: list[Load] = []
    for entry in family.entries:
        ref = entry.case.samples
        if ref is None or entry.level not in levels:
            continue
        try:
            found.append(Load(entry, read_request_times(entry.subject.run.path, ref)))
        except InputFileError:
            # What cannot be read is named by `aiprof verify`; the page shows what there is.
            continue
    return found


def _lines(loads: Sequence[Load], name: str) -> list[Line]:
    found = []
    for entry, times in loads:
        values: Floats = getattr(times, name)
        values = values[(values > 1e-9) & (values < 1e9)]
        if len(values) > 1:
            found.append(Line(entry, values, 0 if name == "gap_s" else times.failed))
    return found


def _row(family: Family, title: str, line: Line) -> Row:
    shares = (_share(line, share) for share in SHARES)
    figures = (float(line.values[0]), *shares, float(line.values[-1]))
    cells = [Cell(figure(value * 1e3)) if value is not None else Cell(DASH) for value in figures]
    counts = (Cell(f"{len(line.values):,}"), Cell(f"{line.failed:,}"))
    return Row((*identity(family, line.entry), Cell(title), *counts, *cells))


def _share(line: Line, share: float) -> float | None:
    """Return what a share of requests took at most; None where it falls on failed ones or on none."""
    n = len(line.values) + line.failed
    if share > 50 and n * (100 - share) < 100:
        return None
    place = max(0, math.ceil(n * share / 100 - 1e-9) - 1)
    return float(line.values[place]) if place < len(line.values) else None


def _chart(title: str, lines: Sequence[Line]) -> tuple[Chart, str]:
    """Return a line per load, and a description."""
    medians = [float(np.median(line.values)) for line in lines]
    unit = unit_for("s", medians)
    rows: list[dict[str, Any]] = []
    ends: list[dict[str, Any]] = []
    for number, line in enumerate(lines):
        same = {"subject": line.entry.subject.label, "line": number, "load": f"{line.entry.level:g}"}
        rows += [same | {"tail": tail, "time": time / unit.size} for tail, time in _points(line)]
        ends.append(rows[-1])
    subjects = subjects_of(line.entry for line in lines)
    most = max(row["tail"] for row in rows)
    ticks = {_tail(share): text for share, text in _TICKS.items() if _tail(share) <= most}
    x = alt.X(
        "tail:Q",
        title="share of gaps" if title == _GAP else "share of requests",
        scale=alt.Scale(domain=[0, most * 1.09], nice=False),
        # Fixed words only; nothing from a record gets into an expression.
        axis=alt.Axis(values=list(ticks), labelExpr=_label_expression(ticks), labelOverlap=False),
    )
    domain = span([row["time"] for row in rows])
    y = alt.Y(**log_axis("time", f"{title}, {unit.text}", domain))
    tips = [alt.Tooltip("subject:N"), alt.Tooltip("load:N"), alt.Tooltip("time:Q", format=".4g")]
    course = alt.Chart(data(rows)).mark_line(strokeWidth=1.8).encode(
        x=x, y=y, detail="line:N", order="tail:Q", tooltip=tips,
        color=subject_colour(subjects), strokeDash=subject_dash(subjects),
    )  # fmt: skip
    names = (
        alt.Chart(data(_apart(ends, most, domain)))
        .mark_text(dx=4, align="left")
        .encode(x=x, y=y, text="load:N")
    )
    low, high = (figure(pick(medians) / unit.size) for pick in (min, max))
    longest = figure(max(float(line.values[-1]) for line in lines) / unit.size)
    description = (
        f"{title} of {len(lines)} loads, {sum(len(line.values) for line in lines):,} values: medians from "
        f"{low} to {high} {unit.text}, the longest {longest} {unit.text}."
    )
    return alt.layer(course, names), description


def _apart(ends: Sequence[dict[str, Any]], most: float, domain: tuple[float, float]) -> list[dict[str, Any]]:
    """Return the names at the ends of lines, one for those that would lie on each other."""
    height = math.log(domain[1] / domain[0])
    kept: list[dict[str, Any]] = []
    for end in sorted(ends, key=lambda end: float(end["time"])):
        for other in kept:
            near = abs(end["tail"] - other["tail"]) < 0.07 * most
            if near and abs(math.log(end["time"] / other["time"])) < 0.07 * height:
                if end["load"] not in other["load"].split(", "):
                    other["load"] += f", {end['load']}"
                break
        else:
            kept.append(dict(end))
    return kept


def _tail(share: float) -> float:
    """Return where a share in percent stands: each unit to the right is a tenth of the requests before."""
    return -math.log10(1 - share / 100)


def _label_expression(ticks: dict[float, str]) -> str:
    expression = "''"
    for tail, text in ticks.items():
        expression = f"abs(datum.value - {tail:.6f}) < 0.001 ? '{text}' : {expression}"
    return expression


def _points(line: Line) -> list[tuple[float, float]]:
    """Return (tail, time) of about evenly spaced places in ascending order, the ends among them.

    Value i of n stands for the share (i + 0.5) / n of all, failed ones included.
    """
    known = len(line.values)
    n = known + line.failed
    last = -math.log10(1 - (known - 0.5) / n)
    shares = 1 - 10.0 ** -np.linspace(0, last, MAX_POINTS)
    places = np.unique(np.clip(np.rint(shares * n - 0.5), 0, known - 1).astype(np.int64))
    places = np.union1d(places, [0, known - 1])
    return [(-math.log10(1 - (place + 0.5) / n), float(line.values[place])) for place in places.tolist()]
