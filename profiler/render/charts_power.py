"""Power over time with phases shaded, and for soaks temperature and clock with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import altair as alt
import numpy as np
from numpy.typing import NDArray

from profiler.errors import InputFileError
from profiler.render.cells import label
from profiler.render.charts import Chart, draw
from profiler.render.charts_shared import MAX_PANELS, data
from profiler.render.report_numbers import figure
from profiler.render.report_subjects import Entry, format_label
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
from profiler.results.schema import PhaseRecord, SensorRecord
from profiler.results.sensor_samples import SensorSeries, read_sensor_samples

MAX_POINTS: Final = 240
SOAK_WINDOW_S: Final = 300.0
# Counters give power between two new values; those that are nearer together are taken as one.
_SHORTEST_S = 0.095
_SHADES: Final = {"warm-up": "m3", "trials": "m1", "requests": "m2", "prefill": "m2"}
_LEGEND: Final = (
    LegendEntry("measured trials", "bar", "m1"),
    LegendEntry("repeated for their energy", "bar", "m2"),
    LegendEntry("warm-up", "bar", "m3"),
)

Floats = NDArray[np.float64]


class Course(NamedTuple):
    """A quantity over time.

    Attributes:
        what: name of the quantity.
        unit: of its values.
        seconds: since the origin of the case.
        values: at these moments; power is a mean until the next one.
    """

    what: str
    unit: str
    seconds: Floats
    values: Floats


class Watched(NamedTuple):
    """A case with what was sampled in it."""

    entry: Entry
    courses: tuple[Course, ...]


def power_figure(entries: Sequence[Entry], *, interactive: bool = False) -> Figure | None:
    """Draw some cases, of every subject the one with most power first; None where nothing was sampled."""
    candidates = _ordered(entries)
    shown: list[Watched] = []
    panels = 0
    for entry in candidates:
        if panels >= MAX_PANELS:
            break
        courses = _courses(entry)[: MAX_PANELS - panels]
        if courses:
            shown.append(Watched(entry, courses))
            panels += len(courses)
    if not shown:
        return None
    drawn: list[Panel] = []
    for entry, courses in shown:
        for course in courses:
            drawn.append(_panel(f"power-{len(drawn) + 1}", entry, course, interactive=interactive))
    points = max(len(course.values) for _, courses in shown for course in courses)
    caption = "What the device's own sensors showed while a case ran; phases are shaded."
    if points > MAX_POINTS:
        caption += f" Long series are thinned to {MAX_POINTS} points; the least and the greatest of each "
        caption += "stretch are kept."
    if len(shown) < len(candidates):
        caption += f" Shown are {len(shown)} of {plural(len(candidates), 'case')}, those with most power."
    return Figure(caption, tuple(drawn), _LEGEND, _table(shown))


def _ordered(entries: Sequence[Entry]) -> list[Entry]:
    """Return sampled cases in turns of their subjects, those with most power first."""
    sampled = [entry for entry in entries if entry.case.sensor_samples is not None and entry.case.phases]
    sampled.sort(key=lambda entry: -(entry.value("power_mean_w") or 0.0))
    turns: dict[int, int] = {}
    keyed: list[tuple[int, int, Entry]] = []
    for entry in sampled:
        turn = turns[entry.subject.index] = turns.get(entry.subject.index, -1) + 1
        keyed.append((turn, entry.subject.index, entry))
    return [entry for _, _, entry in sorted(keyed, key=lambda item: item[:2])]


def _courses(entry: Entry) -> tuple[Course, ...]:
    """Return power, and for a soak temperature and clock; nothing where the file cannot be read."""
    ref = entry.case.sensor_samples
    sensors = {sensor.key: sensor for sensor in entry.subject.run.record.sensors}
    power = _power_keys(entry)
    states: dict[str, SensorRecord] = {}
    if entry.subject.run.record.settings.soak_s is not None:
        states = _state_keys(entry, sensors)
    if ref is None or not power:
        return ()
    keys = [*power, *(sensor.key for sensor in states.values())]
    try:
        found = read_sensor_samples(entry.subject.run.path, ref, keys)
    except InputFileError:
        return ()
    courses = [_power(found, power, sensors)]
    for what, sensor in states.items():
        series = found.get(sensor.key)
        if series is not None:
            scale, unit = (1e-6, "MHz") if sensor.unit == "Hz" else (1.0, "°C")
            courses.append(Course(what, unit, series.seconds, series.values * scale))
    return tuple(course for course in courses if course is not None and len(course.values) > 1)


def _power_keys(entry: Entry) -> tuple[str, ...]:
    for item in entry.case.energies:
        if (item.covers, item.phase) == ("device", "trials"):
            return item.sensors
    return ()


def _state_keys(entry: Entry, sensors: Mapping[str, SensorRecord]) -> dict[str, SensorRecord]:
    """Return one temperature and one clock of the device."""
    own = {sensors[key].device for key in _power_keys(entry) if key in sensors}
    found: dict[str, SensorRecord] = {}
    for sensor in sensors.values():
        wanted = sensor.kind in ("temperature", "clock") and not sensor.key.endswith("/memory_clock")
        if wanted and sensor.sampled and sensor.device in own:
            found.setdefault(sensor.kind, sensor)
    return found


def _power(
    found: Mapping[str, SensorSeries], keys: Sequence[str], sensors: Mapping[str, SensorRecord]
) -> Course | None:
    """Return the power of one sensor, or the sum of several (CPU packages)."""
    parts = [
        _watts(found[key], counts=sensors[key].unit == "J") for key in keys if key in found and key in sensors
    ]
    if len(parts) != len(keys) or any(len(watts) < 2 for _, watts in parts):
        return None
    seconds = parts[0][0]
    total = sum((np.interp(seconds, moments, watts) for moments, watts in parts), np.zeros(len(seconds)))
    return Course("power", "W", seconds, total)


def _watts(series: SensorSeries, *, counts: bool) -> tuple[Floats, Floats]:
    """Return moments and powers; those of a counter are means between two of its new values."""
    if not counts:
        return series.seconds, series.values
    changed = np.flatnonzero(np.diff(series.values)) + 1
    kept: list[int] = []
    for at in changed.tolist():
        if not kept or series.seconds[at] - series.seconds[kept[-1]] >= _SHORTEST_S:
            kept.append(at)
    seconds, joules = series.seconds[kept], series.values[kept]
    gained = np.diff(joules)
    # A wrap or a reset shows as a fall; what was used meanwhile is not known here.
    good = gained >= 0
    return seconds[:-1][good], (gained / np.diff(seconds))[good]


def thinned(course: Course, limit: int = MAX_POINTS) -> list[tuple[float, float]]:
    """Return at most ``limit`` points: the least and the greatest of each stretch, in order of time."""
    count = len(course.values)
    if count <= limit:
        return list(zip(course.seconds.tolist(), course.values.tolist(), strict=True))
    kept: list[int] = []
    stretches = limit // 2
    for number in range(stretches):
        first, last = number * count // stretches, (number + 1) * count // stretches
        part = course.values[first:last]
        kept += sorted({first + int(part.argmin()), first + int(part.argmax())})
    return [(float(course.seconds[at]), float(course.values[at])) for at in kept]


def _panel(name: str, entry: Entry, course: Course, *, interactive: bool) -> Panel:
    spec = entry.spec
    title = f"{course.what} · {entry.subject.label} · {label(spec)} · {spec.model_label} · {spec.load_label}"
    points = thinned(course)
    low, high = float(course.values.min()), float(course.values.max())
    description = (
        f"{course.what} from {figure(low)} to {figure(high)} {course.unit} over {points[-1][0]:.0f} s."
    )
    chart = _chart(entry.case.phases, course, points)
    return draw(name, shorten(title, 120), description, chart, interactive=interactive)


def _chart(phases: Sequence[PhaseRecord], course: Course, points: Sequence[tuple[float, float]]) -> Chart:
    low, high = float(course.values.min()), float(course.values.max())
    reach = (
        (0.0, high * 1.08)
        if course.what == "power"
        else (low - 0.1 * (high - low) - 1, high + 0.1 * (high - low) + 1)
    )
    begin, end = min(points[0][0], 0.0), max(points[-1][0], *(phase.end_s for phase in phases))
    x = alt.X("t:Q", title="s since the case began", scale=alt.Scale(domain=[begin, end], nice=False),
              axis=alt.Axis(tickCount=6, format=",~f"))  # fmt: skip
    scale = alt.Scale(domain=list(reach), nice=False, zero=False)
    y = alt.Y(
        "value:Q",
        title=f"{course.what}, {course.unit}",
        scale=scale,
        axis=alt.Axis(tickCount=5, format=",~f"),
    )
    shaded = [
        {"t": phase.begin_s, "to": phase.end_s, "low": reach[0], "value": reach[1], "phase": phase.phase}
        for phase in phases
        if phase.phase in _SHADES
    ]
    colours = alt.Color(
        "phase:N",
        legend=None,
        scale=alt.Scale(domain=list(_SHADES), range=[f"var(--{colour})" for colour in _SHADES.values()]),
    )
    shades = (
        alt.Chart(data(shaded)).mark_rect(opacity=0.16).encode(x=x, x2="to:Q", y=y, y2="low:Q", color=colours)
    )
    rows: list[dict[str, Any]] = [{"t": moment, "value": value} for moment, value in points]
    line = alt.Chart(data(rows)).mark_line(strokeWidth=1.5, color="var(--text)").encode(
        x=x, y=y, tooltip=[alt.Tooltip("t:Q", format=".1f", title="s"), alt.Tooltip("value:Q", format=".4g")]
    )  # fmt: skip
    return alt.layer(shades, line)


def _table(shown: Sequence[Watched]) -> Table:
    """What is drawn, over the measured trials: least, mean, greatest, and first against last five minutes."""
    columns = (
        Column("box"), Column("model"), Column("workload"), Column("formats"), Column("batch", "", True),
        Column("quantity"), Column("unit"), Column("least", "", True), Column("mean", "", True),
        Column("greatest", "", True), Column("first", "", True), Column("last", "", True),
    )  # fmt: skip
    rows = [_row(entry, course) for entry, courses in shown for course in courses]
    note = (
        "Over the measured trials. First and last: means of five minutes, or of a third of the trials where "
        "they took less than a quarter of an hour."
    )
    return condensed(Table("power-data", "What is drawn", columns, tuple(rows), note))


def _row(entry: Entry, course: Course) -> Row:
    spec = entry.spec
    used = {start.index for start in entry.case.starts if start.used}
    windows = [phase for phase in entry.case.phases if phase.phase == "trials" and phase.start in used]
    identity = (
        Cell(entry.subject.label, link=entry.anchor),
        Cell(spec.model_label),
        Cell(label(spec)),
        Cell(format_label(spec)),
        Cell(entry.level_text),
        Cell(course.what),
        Cell(course.unit),
    )
    inside = np.zeros(len(course.seconds), dtype=bool)
    for phase in windows:
        inside |= (course.seconds >= phase.begin_s) & (course.seconds <= phase.end_s)
    seconds, values = course.seconds[inside], course.values[inside]
    if len(values) < 2:
        return Row((*identity, *(Cell(DASH) for _ in range(5))))
    third = min(SOAK_WINDOW_S, float(seconds[-1] - seconds[0]) / 3)
    first, last = values[seconds <= seconds[0] + third], values[seconds >= seconds[-1] - third]
    mean = np.average(values[:-1], weights=np.diff(seconds))
    figures = (values.min(), mean, values.max(), first.mean(), last.mean())
    return Row((*identity, *(Cell(figure(float(value))) for value in figures)))
