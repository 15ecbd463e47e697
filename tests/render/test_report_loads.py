"""Loads on a page: distributions of their requests, their table, and what one load decides."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow
import pytest
from load_runs import loads, write_loads
from load_tables import table_of
from report_runs import write_box

from profiler.analysis.request_times import read_request_times
from profiler.errors import InputFileError
from profiler.load.latency import e2e_s, ttft_s
from profiler.load.table import from_samples
from profiler.render.charts_requests import MAX_POINTS, Line, _points, _share, requests_figure
from profiler.render.report import render
from profiler.render.report_sections import build_report
from profiler.render.report_subjects import collect, families
from profiler.render.report_view import Figure, Report, Section
from profiler.results.read import Run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("loads")
    return [
        write_loads(folder / name, loads([1, 4, 16, 64], wait, seed=place), name, ("ttft=0.2s",))
        for place, (name, wait) in enumerate((("one", 100.0), ("other", 140.0)))
    ]


def _section(report: Report, name: str) -> Section:
    return next(section for section in report.sections if section.name == name)


def _figure(runs: list[Run]) -> Figure:
    _, entries = collect(runs)
    found = requests_figure(families(entries))
    assert found is not None
    return found


def test_times_are_those_of_the_requests(runs: list[Run]) -> None:
    case = runs[0].cases[0]
    assert case.samples is not None
    found = read_request_times(runs[0].path, case.samples)
    requests = loads([1, 4, 16, 64], 100.0)[1]
    assert found.ttft_s.tolist() == sorted(ttft_s(requests).tolist())
    assert found.e2e_s.tolist() == sorted(e2e_s(requests).tolist())
    assert (len(found.gap_s), found.failed) == (220 * 10, 0)


def test_every_time_of_a_load_has_a_panel_with_axes_and_one_legend(runs: list[Run]) -> None:
    found = _figure(runs)
    assert [panel.title.split(" · ")[0] for panel in found.panels] == [
        "TTFT", "TPOT", "gap between chunks", "end to end",
    ]  # fmt: skip
    assert [entry.text for entry in found.legend] == ["one", "other"]
    for panel in found.panels:
        for text in ("share of", "50%", "90%", "99%", "<title", "<desc"):
            assert text in panel.svg
    # Three of four numbers of users, two servers, four times.
    assert len(found.table.rows) == 3 * 2 * 4
    assert "6 of 8 loads" in found.caption
    assert "least and the greatest kept" in found.caption


def test_lines_keep_their_ends_and_failures_end_them_early() -> None:
    values = ttft_s(table_of([float(value) for value in range(1, 5001)]))
    line = Line(None, values, 0)  # type: ignore[arg-type]
    points = _points(line)
    assert len(points) <= MAX_POINTS + 2
    assert (points[0][1], points[-1][1]) == (0.001, 5.0)
    assert [time for _, time in points] == sorted(time for _, time in points)
    assert _share(line, 99) == pytest.approx(4.95)
    failing = Line(None, values, 5000)  # type: ignore[arg-type]
    assert _points(failing)[-1][0] == pytest.approx(0.30, abs=0.01)
    assert _share(failing, 50) == pytest.approx(5.0)
    assert _share(failing, 90) is None


def test_the_page_answers_for_loads_and_leaves_one_load_undecided(runs: list[Run]) -> None:
    report = build_report(runs, "loads")
    (table,) = _section(report, "answer").tables
    asked = [row.cells[0].text for row in table.rows]
    assert asked == [
        "output, best load", "TTFT median, 64 users", "TTFT p99, 64 users", "TPOT median, 64 users",
        "goodput, best load",
    ]  # fmt: skip
    assert all("undecided: one load" in row.cells[-1].text for row in table.rows)
    (table,) = _section(report, "latency").tables
    assert len(table.rows) == 8
    assert "does not say how much memory" in _section(report, "memory").empty
    (drawn,) = _section(report, "concurrency").figures
    # Bands need an interval: that of the steady part of each load.
    assert any(row.cells[-1].interval for row in drawn.table.rows)
    assert "users at once" in drawn.panels[0].svg


def test_loads_and_cases_in_step_are_never_on_one_line(tmp_path: Path, runs: list[Run]) -> None:
    box = write_box(tmp_path / "box", "a box", 2.0)
    _, entries = collect([*runs, box])
    assert {family.over for family in families(entries)} == {"batch", "users"}
    for family in families(entries):
        assert len({entry.spec.load is None for entry in family.entries}) == 1
    page = render(build_report([*runs, box], "both"))
    assert len(re.findall(r'id="requests-\d+"', page)) == 0  # ids of drawings are those of their titles
    assert 'id="requests-1-title"' in page
    assert 'id="latency-1-title"' in page


def test_lost_samples_leave_the_table(runs: list[Run], tmp_path: Path) -> None:
    run = write_loads(tmp_path / "lost", loads([1, 4], 50.0))
    for file in (run.path / "samples").iterdir():
        file.write_bytes(b"not parquet")
    section = _section(build_report([run], "lost"), "latency")
    assert section.figures == ()
    assert len(section.tables[0].rows) == 2
    assert run.cases[0].samples is not None
    with pytest.raises(InputFileError, match="checksum"):
        read_request_times(run.path, run.cases[0].samples)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("status", pyarrow.array(["x" * 1000] * 3)),
        ("status", pyarrow.array([1, 2, 3])),
        ("sent_ns", pyarrow.array(["a", "b", "c"])),
        ("sent_ns", pyarrow.array([2**64 - 1] * 3, type=pyarrow.uint64())),
        ("sent_ns", pyarrow.array([1.5, float("nan"), 1e308])),
        ("chunk_tokens", pyarrow.array([[2**40] * 11] * 3)),
        ("chunk_tokens", pyarrow.array([[1], [1], [1]])),
        ("chunk_tokens", pyarrow.array([None, [1], [1]])),
        ("chunk_since_sent_ns", pyarrow.array([1, 2, 3])),
        ("chunk_since_sent_ns", pyarrow.array([[None] * 11] * 3, type=pyarrow.list_(pyarrow.int64()))),
    ],
)
def test_columns_of_another_kind_are_refused(column: str, value: pyarrow.Array) -> None:
    columns = pyarrow.table(table_of([1.0, 2.0, 3.0]).samples())
    whole = {name: columns.column(name) for name in columns.column_names}
    assert len(from_samples(whole)) == 3
    with pytest.raises(ValueError, match=r"\S"):
        from_samples(whole | {column: value})
