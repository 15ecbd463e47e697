"""Memory: what was predicted and what was measured, stacked, against what the device has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import altair as alt

from profiler.render.cells import full_label, label, with_unit
from profiler.render.charts import Chart, Frame, draw
from profiler.render.charts_shared import MAX_PANELS, data, subjects_of
from profiler.render.memory_rows import memory_rows
from profiler.render.report_numbers import Unit, figure, plottable, unit_for
from profiler.render.report_subjects import Entry, Subject, format_label
from profiler.render.report_view import (
    DASH,
    Cell,
    Column,
    Figure,
    LegendEntry,
    Panel,
    Row,
    Table,
    condensed,
    plural,
    shorten,
)
from profiler.render.units import format_bytes
from profiler.results.schema import Prediction

MAX_BARS: Final = 6
_ROW_HEIGHT = 46
_PARTS: Final = (("weights", "m1"), ("KV cache", "m2"), ("rest", "m3"))


class Stack(NamedTuple):
    """What a case takes, in bytes: (weights, KV cache, rest) predicted and measured.

    ``measured`` is None where the engine did not report its parts; its rest is None where the engine
    keeps no peak. ``process`` is the peak of the worker process, seen by another observer.
    """

    entry: Entry
    predicted: tuple[float, float, float]
    measured: tuple[float, float, float | None] | None
    process: float | None


def memory_figure(entries: Sequence[Entry], *, interactive: bool = False) -> Figure | None:
    """Draw the largest cases of each subject; None where no case was finished."""
    stacks = [_stack(entry, expected) for entry, expected in _largest(entries)]
    stacks = [stack for stack in stacks if plottable(sum(stack.predicted))]
    subjects = subjects_of(stack.entry for stack in stacks)
    if not subjects:
        return None
    panels: list[Panel] = []
    shown: list[Stack] = []
    for number, subject in enumerate(subjects[:MAX_PANELS]):
        own = [stack for stack in stacks if stack.entry.subject == subject][:MAX_BARS]
        chart, description = _chart(subject, own)
        frame = Frame(height=_ROW_HEIGHT * len(own), left=8, top=8)
        panels.append(
            draw(
                f"memory-{number + 1}",
                subject.label,
                description,
                chart,
                frame=frame,
                interactive=interactive,
            )
        )
        shown += own
    finished = sum(entry.case.status == "ok" for entry in entries)
    caption = (
        "Upper bar: predicted before loading (weights, key-value cache, reserve for activations and the "
        "engine). Lower bar: reported by the engine (weights, cache, and whatever else it held at its peak). "
        "A triangle is the peak of the whole worker process, which another observer sees and which is not "
        "part of the stack. The line is what the device has."
    )
    if len(shown) < finished:
        caption += (
            f" Shown are {len(shown)} of {plural(finished, 'case')}: for each device, model and format the "
            "one that takes most."
        )
    unit = unit_for("bytes", [sum(stack.predicted) for stack in shown])
    legend = [LegendEntry("weights", "bar", "m1"), LegendEntry("key-value cache", "bar", "m2")]
    legend += [LegendEntry("reserve (predicted) or rest (measured)", "bar", "m3")]
    legend += [LegendEntry("peak of the process", "triangle-up", "text")]
    return Figure(caption, tuple(panels), tuple(legend), _table(shown, unit))


def memory_table(entries: Sequence[Entry]) -> Table | None:
    """Return what every observer saw of the cases that are drawn, with its source, beside the prediction."""
    rows: list[Row] = []
    for entry, _ in _largest(entries)[:MAX_BARS]:
        device = entry.subject.device
        case = f"{entry.subject.label} · {full_label(entry.spec)}"
        for row in memory_rows(entry.case, on_cpu=device is not None and device.backend == "cpu"):
            measured, unit = row.measured, row.measured.unit
            predicted = DASH if row.predicted is None else with_unit(float(row.predicted), unit)
            cells = [Cell(case, link=entry.anchor), Cell(row.words)]
            cells.append(Cell(DASH if measured.value is None else with_unit(measured.value, unit)))
            cells.append(Cell(predicted))
            rows.append(Row((*cells, Cell(measured.reason or measured.method))))
    if not rows:
        return None
    columns = [Column("case"), Column("what"), Column("measured", "", True), Column("predicted", "", True)]
    note = "Different observers count different things: none of these are added up."
    caption = "Memory by every observer, beside what was predicted"
    table = Table("memory-observers", caption, (*columns, Column("source")), tuple(rows), note)
    return condensed(table, ("case",))


def _largest(entries: Sequence[Entry]) -> list[tuple[Entry, Prediction]]:
    """Return the case that takes most of each subject, model and format, largest first."""
    found: dict[tuple[int, str, str], tuple[Entry, Prediction]] = {}
    for entry in entries:
        expected = entry.case.predicted
        if entry.case.status == "ok" and expected is not None:
            key = (entry.subject.index, entry.spec.model_label, format_label(entry.spec))
            known = found.get(key)
            if known is None or expected.needed_bytes > known[1].needed_bytes:
                found[key] = entry, expected
    return sorted(found.values(), key=lambda pair: -pair[1].needed_bytes)


def _stack(entry: Entry, expected: Prediction) -> Stack:
    parts = expected.weights_bytes, expected.kv_cache_bytes
    reserve = max(0, expected.needed_bytes - sum(parts))
    weights, cache = entry.value("weights_bytes"), entry.value("kv_cache_bytes")
    measured: tuple[float, float, float | None] | None = None
    if weights is not None and cache is not None and plottable(weights, cache + 1):
        peak = entry.value("peak_engine_bytes")
        peak = peak if plottable(peak) else None
        # Less than its parts: the engine does not count all of them in its peak.
        rest = None if peak is None or peak < weights + cache else peak - weights - cache
        measured = weights, cache, rest
    process = entry.value("peak_process_bytes")
    return Stack(entry, (*parts, reserve), measured, process if plottable(process) else None)


def _table(stacks: Sequence[Stack], unit: Unit) -> Table:
    columns = [Column("box"), Column("model"), Column("formats"), Column("workload")]
    columns += [Column("batch", "", True), Column("device has", unit.text, True)]
    names = ("weights", "cache", "reserve", "weights", "cache", "rest", "process peak")
    for place, name in enumerate(names):
        columns.append(Column(f"{name}, {'predicted' if place < 3 else 'measured'}", unit.text, True))
    rows: list[Row] = []
    for entry, predicted, measured, process in stacks:
        values = (*predicted, *(measured or (None, None, None)), process)
        has = entry.subject.device.memory_total_bytes if entry.subject.device else None
        cells = [Cell(entry.subject.label, link=entry.anchor), Cell(entry.spec.model_label)]
        cells += [Cell(format_label(entry.spec)), Cell(label(entry.spec)), Cell(entry.level_text)]
        cells += [Cell(DASH if v is None else figure(v / unit.size)) for v in (has, *values)]
        rows.append(Row(tuple(cells)))
    return condensed(Table("memory-data", "What is drawn", tuple(columns), tuple(rows)))


def _chart(subject: Subject, stacks: Sequence[Stack]) -> tuple[Chart, str]:
    capacity = subject.device.memory_total_bytes if subject.device else None
    largest = max(_largest_part(stack) for stack in stacks)
    reach = largest * 1.05
    # Far beyond everything that was used, the capacity would leave the bars without width.
    shown = capacity is not None and plottable(capacity) and capacity < 30 * largest
    if capacity is not None and shown:
        reach = max(reach, capacity * 1.03)
    unit = unit_for("bytes", [reach])
    y_scale = alt.Scale(domain=[len(stacks), 0], nice=False, zero=False)
    y = alt.Y("y:Q", axis=None, scale=y_scale)
    x_axis = alt.Axis(grid=True, tickCount=5, format=",f")
    x_scale = alt.Scale(domain=[0, reach / unit.size], nice=False)
    x = alt.X("x:Q", title=unit.text, scale=x_scale, axis=x_axis)
    layers: list[Any] = [_bar_layer(stacks, x, y, unit)]
    names = [{"y": place + 0.29, "x": 0, "text": _bar_name(stack)} for place, stack in enumerate(stacks)]
    texts = alt.Chart(data(names)).mark_text(align="left", baseline="bottom", fontSize=12)
    layers.append(texts.encode(x=x, y=y, text="text:N"))
    peaks = [
        {"y": place + 0.87, "x": stack.process / unit.size}
        for place, stack in enumerate(stacks)
        if stack.process is not None
    ]
    if peaks:
        marks = alt.Chart(data(peaks)).mark_point(
            shape="triangle-up", filled=True, size=50, color="var(--text)", opacity=1
        )
        layers.append(marks.encode(x=x, y=y))
    if capacity is not None and shown:
        line = alt.Chart(data([{"x": capacity / unit.size}])).mark_rule(color="var(--bad)", strokeWidth=2)
        layers.append(line.encode(x=x))
    has = "unknown memory" if capacity is None else format_bytes(capacity)
    description = (
        f"Predicted and measured memory of {plural(len(stacks), 'case')} on {subject.label}, which has "
        f"{has}; the largest takes {format_bytes(largest)}."
    )
    return alt.layer(*layers), description


def _largest_part(stack: Stack) -> float:
    """Return the furthest that anything of a case reaches, in bytes."""
    measured = sum(part or 0 for part in stack.measured) if stack.measured else 0
    return max(sum(stack.predicted), measured, stack.process or 0)


def _bar_name(stack: Stack) -> str:
    spec = stack.entry.spec
    return f"{shorten(spec.model_label, 28)} · {shorten(format_label(spec), 16)} · {spec.load_label}"


def _bar_layer(stacks: Sequence[Stack], x: alt.X, y: alt.Y, unit: Unit) -> alt.Chart:
    """Return the stacked bars, predicted above measured, in the order of :data:`_PARTS`."""
    bars: list[dict[str, Any]] = []
    for place, stack in enumerate(stacks):
        bars += _bars(stack.predicted, place + 0.34, "predicted", unit)
        if stack.measured:
            bars += _bars(stack.measured, place + 0.57, "measured", unit)
    colours = alt.Color(
        "part:N",
        legend=None,
        scale=alt.Scale(
            domain=[name for name, _ in _PARTS], range=[f"var(--{colour})" for _, colour in _PARTS]
        ),
    )
    tips = [alt.Tooltip("which:N"), alt.Tooltip("part:N")]
    tips.append(alt.Tooltip("size:Q", format=".3g", title=unit.text))
    chart: alt.Chart = (
        alt.Chart(data(bars))
        .mark_rect(stroke="var(--back)", strokeWidth=1)
        .encode(x=x, x2="x2:Q", y=y, y2="y2:Q", color=colours, tooltip=tips)
    )
    return chart


def _bars(parts: tuple[float, float, float | None], y: float, which: str, unit: Unit) -> list[dict[str, Any]]:
    """Return the stacked bars of one row, from left to right."""
    found: list[dict[str, Any]] = []
    end = 0.0
    for (name, _), size in zip(_PARTS, parts, strict=True):
        if size:
            start, end = end, end + size / unit.size
            found.append(
                {"x": start, "x2": end, "y": y, "y2": y + 0.2, "part": name, "which": which}
                | {"size": size / unit.size}
            )
    return found
