"""What the charts draw: where marks lie, what is left out, and that nothing else gets into the page."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import altair as alt
import pytest
from builders import make_work
from hypothesis import given
from hypothesis import strategies as st
from report_runs import ATTACK, measurement, trials, write_box

from profiler.render.charts import draw
from profiler.render.charts_latency import latency_figure
from profiler.render.charts_memory import memory_figure
from profiler.render.charts_roofline import MAX_POINTS, roofline_figure, roofline_points
from profiler.render.charts_series import concurrency_figure, energy_figure
from profiler.render.charts_shared import data, decimated, log_ticks, span
from profiler.render.charts_trade import trade_figure
from profiler.render.report_subjects import Entry, collect, families
from profiler.results.read import Run
from profiler.results.schema import Measurement


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_box(tmp_path_factory.mktemp("runs") / "box", "a box", 2.0)


def entries_of(*runs: Run) -> tuple[Entry, ...]:
    return collect(runs)[1]


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=300), st.sampled_from([2, 10, 60]))
def test_decimation_keeps_the_extremes_and_the_limit(values: list[float], limit: int) -> None:
    kept = decimated(values, limit)
    assert len(kept) <= limit
    assert (min(kept), max(kept)) == (min(values), max(values))


@given(st.floats(min_value=1e-6, max_value=1e12), st.floats(min_value=1.0, max_value=1e9))
def test_a_logarithmic_axis_has_a_few_ticks_inside_it(low: float, ratio: float) -> None:
    domain = span([low, low * ratio])
    ticks = log_ticks(*domain)
    assert 1 <= len(ticks) <= 12
    assert all(domain[0] <= tick <= domain[1] for tick in ticks)
    assert domain[1] / domain[0] >= 2.99


def test_an_svg_says_what_it_shows_and_holds_nothing_foreign() -> None:
    rows = [{"x": 1, "y": 2, "text": ATTACK}]
    base = alt.Chart(data(rows)).encode(x="x:Q", y="y:Q")
    panel = draw("p", ATTACK, ATTACK, alt.layer(base.mark_point(), base.mark_text().encode(text="text:N")))
    root = ElementTree.fromstring(panel.svg)
    tags = {element.tag for element in root.iter()}
    assert tags <= {"svg", "title", "desc", "g", "path", "text", "line", "rect", "tspan", "defs", "clipPath"}
    assert root.get("role") == "img"
    title, description = root[0], root[1]
    assert (title.tag, title.text, description.tag, description.text) == ("title", ATTACK, "desc", ATTACK)
    assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert not [key for element in root.iter() for key in element.keys() if key in ("style", "href", "class")]  # noqa: SIM118
    assert panel.specification == ""


def test_colours_are_left_to_the_style_sheet(box: Run) -> None:
    figure = concurrency_figure(families(entries_of(box)))
    assert figure is not None
    svg = figure.panels[0].svg
    assert "var(--s1)" in svg
    assert "#" not in svg


def test_a_kept_specification_is_json_that_cannot_end_its_script(tmp_path: Path) -> None:
    run = write_box(tmp_path / "box", ATTACK, 1.0)
    figure = concurrency_figure(families(entries_of(run)), interactive=True)
    assert figure is not None
    text = figure.panels[0].specification
    assert "<" not in text
    assert "</script>" in json.loads(text)["layer"][0]["encoding"]["color"]["scale"]["domain"][0]
    assert json.loads(text)["layer"][0]["params"][0]["bind"] == "scales"


def test_the_roofline_places_each_phase_by_its_work_and_time(box: Run) -> None:
    points = roofline_points(entries_of(box))
    work = make_work()
    decode = next(point for point in points if point.phase == "decode" and point.entry.spec.batch == 1)
    seconds = 127 / (decode.entry.value("decode_tokens_per_s") or 0)
    assert decode.intensity == pytest.approx(work.decode_flops / work.decode_bytes)
    assert decode.speed == pytest.approx(work.decode_flops / seconds)
    assert len(points) == 6


def test_the_roofline_says_that_arithmetic_was_not_measured(box: Run) -> None:
    figure = roofline_figure(entries_of(box))
    assert figure is not None
    assert "The arithmetic ceiling was not measured; only the bandwidth roof is drawn." in figure.caption
    assert "40.0 GB/s" in figure.panels[0].svg or "40 GB/s" in figure.panels[0].svg


def test_a_measured_arithmetic_ceiling_is_drawn_and_named(box: Run) -> None:
    matrix = box.record.ceilings[0].model_copy(
        update={"name": "matrix_flops:bf16", "measurement": measurement(5e12, "FLOP/s")}
    )
    record = box.record.model_copy(update={"ceilings": (*box.record.ceilings, matrix)})
    figure = roofline_figure(entries_of(Run(box.path, record, box.cases, True, ())))
    assert figure is not None
    assert "was not measured" not in figure.caption
    texts = [element.text for element in ElementTree.fromstring(figure.panels[0].svg).iter("text")]
    assert {"5 TFLOP/s, bf16 products", "40 GB/s"} <= set(texts)


def test_a_crowded_roofline_is_thinned_and_counts_what_it_merged(box: Run) -> None:
    entries = entries_of(box)
    many = [
        Entry(entry.subject, entry.case.model_copy(update={"work": make_work(decode_flops=1e9 * (1 + n))}))
        for n in range(200)
        for entry in entries
        if entry.case.work
    ]
    figure = roofline_figure(many)
    assert figure is not None
    counts = [int(row.cells[-1].text) for row in figure.table.rows]
    assert len(counts) <= MAX_POINTS
    assert sum(counts) == 2 * len(many)
    assert "merged" in figure.caption


def test_a_single_batch_makes_no_line(tmp_path: Path) -> None:
    grouped = families(entries_of(write_box(tmp_path / "one", "one", 1.0, batches=(4,))))
    assert concurrency_figure(grouped) is None
    assert trade_figure(grouped) is None
    energy = energy_figure(grouped)
    assert energy is not None
    assert len(energy.panels) == 2


def test_the_trade_is_between_a_user_and_the_whole_batch(box: Run) -> None:
    figure = trade_figure(families(entries_of(box)))
    assert figure is not None
    first = figure.table.rows[0]
    assert [cell.text for cell in first.cells] == ["1", "98.5", "94.5"]


def test_energy_without_any_figure_is_no_chart(tmp_path: Path) -> None:
    run = write_box(tmp_path / "box", "box", 1.0, energy=False)
    assert energy_figure(families(entries_of(run))) is None


def test_latency_draws_every_trial_but_warm_up(box: Run) -> None:
    figure = latency_figure(families(entries_of(box)))
    assert figure is not None
    titles = [panel.title.split(" · ")[0] for panel in figure.panels]
    assert titles == ["TTFT", "TPOT", "TTFT"]
    counted = {row.cells[-5].text for row in figure.table.rows}
    assert counted == {"5"}


def test_a_single_trial_is_no_distribution(box: Run) -> None:
    alone = [
        Entry(entry.subject, entry.case.model_copy(update={"trials": trials(entry.spec, 2)}))
        for entry in entries_of(box)
    ]
    assert latency_figure(families(alone)) is None


def test_memory_stacks_parts_and_never_a_peak_below_them(box: Run) -> None:
    figure = memory_figure(entries_of(box))
    assert figure is not None
    cells = [cell.text for cell in figure.table.rows[0].cells]
    # device, weights, cache, reserve predicted; weights, cache measured; no rest, no process peak
    assert cells[-8:] == ["1,024", "257", "183", "125", "257", "183", "–", "–"]


@pytest.mark.parametrize("value", [1e308, -1.0, 0.0, 1e-300])
def test_values_that_cannot_be_are_not_drawn(box: Run, value: float) -> None:
    wild = Measurement(value=value, unit="x", ci95=None, method="m", scope="s")
    entries = [
        Entry(entry.subject, entry.case.model_copy(update={"measurements": dict.fromkeys(names, wild)}))
        for entry in entries_of(box)
        for names in [tuple(entry.case.measurements)]
    ]
    assert roofline_points(entries) == []
    grouped = families(entries)
    assert (concurrency_figure(grouped), trade_figure(grouped), energy_figure(grouped)) == (None, None, None)
    assert memory_figure(entries) is not None
