"""The roofline of each device, with every case on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import altair as alt

from profiler.render.cells import label
from profiler.render.charts import Chart, draw
from profiler.render.charts_shared import (
    IDENTITY,
    MAX_PANELS,
    data,
    log_axis,
    span,
    subjects_of,
)
from profiler.render.report_numbers import figure, half_width, plottable
from profiler.render.report_subjects import Entry, Subject, format_label
from profiler.render.report_view import (
    Cell,
    Column,
    Figure,
    LegendEntry,
    Panel,
    Row,
    Table,
    condensed,
    listed,
    shorten,
)
from profiler.render.units import format_rate
from profiler.results.schema import Ceiling, Work

# Marks of one panel; more would lie on top of each other.
MAX_POINTS: Final = 160

PHASES: Final = ("prefill", "decode")


class Point(NamedTuple):
    """A phase of a case on the roofline: FLOP per byte, and FLOP per second."""

    entry: Entry
    phase: str
    intensity: float
    speed: float


def roofline_points(entries: Sequence[Entry]) -> list[Point]:
    """Return both phases of every finished case whose work was counted."""
    found: list[Point] = []
    for entry in entries:
        work = entry.case.work
        if work is not None and entry.case.status == "ok":
            found += [
                Point(entry, phase, flops / moved, flops / seconds)
                for phase, flops, moved, seconds in _phases(entry, work)
                if plottable(flops, moved, seconds) and plottable(flops / moved, flops / seconds)
            ]
    return found


def _phases(entry: Entry, work: Work) -> list[tuple[str, float, float, float]]:
    found: list[tuple[str, float, float, float]] = []
    prefill_s, rate = entry.value("prefill_s"), entry.value("decode_tokens_per_s")
    if prefill_s is not None:
        found.append(("prefill", work.prefill_flops, work.prefill_bytes, prefill_s))
    if rate is not None and plottable(rate):
        tokens = entry.spec.batch * (entry.spec.output_tokens - 1)
        found.append(("decode", work.decode_flops, work.decode_bytes, tokens / rate))
    return found


def roofline_figure(entries: Sequence[Entry], *, interactive: bool = False) -> Figure | None:
    """Draw the roofline of each subject; None where nothing can be placed on one."""
    points = roofline_points(entries)
    subjects = [
        subject
        for subject in subjects_of(point.entry for point in points)
        if _bandwidth(subject) is not None or _compute(subject)
    ]
    if not subjects:
        return None
    panels: list[Panel] = []
    rows: list[Row] = []
    merged = 0
    for number, subject in enumerate(subjects[:MAX_PANELS]):
        own = [point for point in points if point.entry.subject == subject]
        drawn = _thinned(own)
        merged += len(own) - len(drawn)
        title = subject.label
        chart, description = _chart(subject, own, drawn)
        panels.append(draw(f"roofline-{number + 1}", title, description, chart, interactive=interactive))
        rows += [_row(point, count) for point, count in drawn]
    columns = (
        *IDENTITY,
        Column("phase"),
        Column("intensity", "FLOP/byte", True),
        Column("reached", "GFLOP/s", True),
        Column("phases in this mark", "", True),
    )
    return Figure(
        _caption(subjects, merged, points),
        tuple(panels),
        (
            LegendEntry("prefill", "triangle-up-open", "text"),
            LegendEntry("decode", "circle", "text"),
            LegendEntry("what the device itself can do, measured", "none", "text", ""),
        ),
        condensed(Table("roofline-data", "What is drawn", columns, tuple(rows))),
    )


def _caption(subjects: Sequence[Subject], merged: int, points: Sequence[Point]) -> str:
    text = (
        "Work that a phase needs at least (FLOP and bytes moved, counted from the architecture) divided by "
        "the time it took. A mark on the line has reached what the device can do; how far it lies below is "
        "what is left. Left of the ridge memory bandwidth is the limit, right of it arithmetic."
    )
    without = [subject.label for subject in subjects if not _compute(subject)]
    if without:
        text += (
            " The arithmetic ceiling was not measured"
            + (f" for {listed(without)}" if len(without) < len(subjects) else "")
            + "; only the bandwidth roof is drawn."
        )
    if len(subjects) > MAX_PANELS:
        text += f" Shown are the first {MAX_PANELS} of {len(subjects)} devices."
    if merged:
        text += f" {merged:,} marks that would lie on others are merged with them."
    if any(point.entry.case.work and point.entry.case.work.expected for point in points):
        text += " Bytes of mixture-of-experts models rest on the expected number of distinct experts."
    return text


def _bandwidth(subject: Subject) -> Ceiling | None:
    return next(
        (
            ceiling
            for ceiling in subject.run.record.ceilings
            if ceiling.device_key == subject.device_key
            and ceiling.name == "read_bandwidth"
            and plottable(ceiling.measurement.value)
        ),
        None,
    )


def _compute(subject: Subject) -> list[Ceiling]:
    """Return the measured ceilings of arithmetic, in FLOP/s."""
    return [
        ceiling
        for ceiling in subject.run.record.ceilings
        if ceiling.device_key == subject.device_key
        and ceiling.name.startswith("matrix_flops")
        and plottable(ceiling.measurement.value)
    ]


def ceiling_label(name: str) -> str:
    """Return the name of a ceiling as a person says it: ``bf16 products`` for ``matrix_flops:bf16``."""
    kind, _, dtype = name.partition(":")
    if kind == "matrix_flops":
        return f"{dtype} products".strip()
    return " ".join([kind.replace("_", " "), dtype]).strip()


def _thinned(points: Sequence[Point]) -> list[tuple[Point, int]]:
    """Return one point for each cell of a fine grid, and how many lie there; all when they are few."""
    if len(points) <= MAX_POINTS:
        return [(point, 1) for point in points]
    for cells_per_decade in (24, 12, 8, 6, 4, 3, 2, 1):
        grid: dict[tuple[str, int, int], list[Point]] = {}
        for point in points:
            place = [round(math.log10(value) * cells_per_decade) for value in (point.intensity, point.speed)]
            grid.setdefault((point.phase, place[0], place[1]), []).append(point)
        if len(grid) <= MAX_POINTS:
            break
    # The fastest of each stays, so that the extremes do.
    return [(max(group, key=lambda point: point.speed), len(group)) for group in grid.values()]


def _row(point: Point, count: int) -> Row:
    spec, entry = point.entry.spec, point.entry
    measurement = entry.measured("prefill_s" if point.phase == "prefill" else "decode_tokens_per_s")
    return Row(
        (
            Cell(entry.subject.label, link=entry.anchor),
            Cell(spec.model_label),
            Cell(label(spec)),
            Cell(format_label(spec)),
            Cell(entry.level_text),
            Cell(point.phase),
            Cell(figure(point.intensity)),
            Cell(figure(point.speed / 1e9), half_width(measurement) if measurement else ""),
            Cell(f"{count:,}"),
        )
    )


def _chart(
    subject: Subject, points: Sequence[Point], drawn: Sequence[tuple[Point, int]]
) -> tuple[Chart, str]:
    bandwidth, compute = _bandwidth(subject), _compute(subject)
    slope = bandwidth.measurement.value if bandwidth else None
    tops = [(ceiling_label(ceiling.name), ceiling.measurement.value or 0.0) for ceiling in compute]
    low, high = span([point.intensity for point in points], factor=1.6)
    # Room above for the roof and its label, no more: an endless slope would flatten the rest.
    bottom, top = span([point.speed for point in points], factor=1.5)
    top = max([top * 4, *(flops * 3 for _, flops in tops)])
    if slope is not None:
        bottom = min(bottom, low * slope)
        high = max(high, low * 10, *(flops / slope * 4 for _, flops in tops))
    roof, labels = _roof(slope, tops, (low, high), (bottom, top))
    domain = bottom, top
    x = log_axis("x", "arithmetic intensity, FLOP/byte", (low, high))
    y = log_axis("y", "FLOP/s", domain)
    roofs = alt.Chart(data(roof)).mark_line(color="var(--text)", strokeWidth=1.5, clip=True)
    roofs = roofs.encode(x=alt.X(**x), y=alt.Y(**y), detail="roof:N")
    names = alt.Chart(data(labels)).mark_text(dx=-20, dy=9, align="right", fontSize=12.5)
    names = names.encode(x=alt.X(**x), y=alt.Y(**y), text="text:N")
    rows = [
        {
            "x": point.intensity,
            "y": point.speed,
            "phase": point.phase,
            "case": shorten(f"{label(point.entry.spec)} · {point.entry.spec.model_label}", 80),
            "batch": point.entry.spec.batch,
        }
        for point, _ in drawn
    ]
    tips = [alt.Tooltip("case:N"), alt.Tooltip("phase:N"), alt.Tooltip("batch:Q")]
    tips += [alt.Tooltip("x:Q", format=".3s"), alt.Tooltip("y:Q", format=".3s")]
    layers: list[Any] = [roofs, names]
    for phase, shape, filled in (("prefill", "triangle-up", False), ("decode", "circle", True)):
        own = [row for row in rows if row["phase"] == phase]
        if own:
            marks = alt.Chart(data(own)).mark_point(
                shape=shape,
                filled=filled,
                size=55,
                opacity=0.9,
                color=f"var(--{subject.colour})",
                strokeWidth=1.8,
            )
            layers.append(marks.encode(x=alt.X(**x), y=alt.Y(**y), tooltip=tips))
    best = [text for text in (_nearest(points, slope),) if text]
    described = f"{len(points)} phases of cases of {subject.label} below a roof of {_roof_text(slope, tops)}."
    return alt.layer(*layers), " ".join([described, *best])


def _roof(
    slope: float | None,
    tops: Sequence[tuple[str, float]],
    intensities: tuple[float, float],
    speeds: tuple[float, float],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the corners of the roof within the drawing, and its labels."""
    low, high = intensities
    corners: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []
    if slope is not None:
        highest = max((flops for _, flops in tops), default=speeds[1])
        end = min(high, highest / slope)
        corners += [{"x": x, "y": x * slope, "roof": "bandwidth"} for x in (low, end)]
        # Left of the upper end of the line there is never a mark.
        labels.append({"x": end, "y": end * slope, "text": format_rate(slope, "B")})
    for name, flops in tops:
        start = low if slope is None else max(low, flops / slope)
        corners += [{"x": x, "y": flops, "roof": name} for x in (start, high)]
        labels.append({"x": high, "y": flops * 2.4, "text": f"{format_rate(flops, 'FLOP')}, {name}"})
    return corners, labels


def _roof_text(slope: float | None, tops: Sequence[tuple[str, float]]) -> str:
    parts = [] if slope is None else [f"{format_rate(slope, 'B')} read bandwidth"]
    parts += [f"{format_rate(top, 'FLOP')} ({name})" for name, top in tops]
    return listed(parts)


def _nearest(points: Sequence[Point], slope: float | None) -> str:
    """Say how much of the bandwidth the best decode reached."""
    shares = [point.speed / point.intensity / slope for point in points if point.phase == "decode" and slope]
    return f"The best decode reached {max(shares):.0%} of the read bandwidth." if shares else ""
