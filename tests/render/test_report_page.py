"""The page as a whole: its parts, its policy, what hostile runs can do to it, and how large it gets."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from builders import make_case_fields, make_failed_fields, make_run_record, make_spec, write_example_run
from report_runs import ATTACK, write_box

from profiler.render.report import render, write_report
from profiler.render.report_sections import build_report
from profiler.render.report_view import Report, Section
from profiler.render.units import format_bytes
from profiler.results.read import Run, read_run
from profiler.results.schema import Failure, Flag, Measurement
from profiler.results.store import RunWriter

GOLDEN = Path(__file__).with_name("golden") / "report.json"
SECTIONS = (
    "answer roofline concurrency trade latency power energy memory limits cases box words".split()  # noqa: SIM905
)


class Outline(HTMLParser):
    """Collects what a page consists of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "action", "data", "poster"):
                self.links.append(value or "")


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        write_box(folder / "slow", "slow box", 1.0, failing=True),
        write_box(folder / "fast", "fast box", 2.0, simulated=True, energy=False),
    ]


@pytest.fixture(scope="module")
def page(boxes: list[Run]) -> str:
    return render(build_report(boxes, "Two boxes"))


def structure(report: Report) -> dict[str, Any]:
    """What a report consists of, without its figures."""
    return {
        "summary": report.summary,
        "subjects": [entry.text for entry in report.subjects],
        "simulated": report.simulated,
        "sections": {
            section.name: {
                "empty": section.empty,
                "figures": [
                    {
                        "panels": [panel.title for panel in figure.panels],
                        "legend": [entry.text for entry in figure.legend],
                        "columns": [column.name for column in figure.table.columns],
                        "rows": len(figure.table.rows),
                    }
                    for figure in section.figures
                ],
                "tables": [
                    {
                        "caption": table.caption,
                        "columns": [
                            f"{column.name} [{column.unit}]" if column.unit else column.name
                            for column in table.columns
                        ],
                        "first": [str(cell.text) for cell in table.rows[0].cells],
                        "rows": len(table.rows),
                    }
                    for table in section.tables
                ],
                "facts": [facts.heading for facts in section.facts],
            }
            for section in report.sections
        },
    }


def test_every_observer_of_memory_stands_beside_the_prediction(boxes: list[Run]) -> None:
    report = build_report(boxes, "Two boxes")
    (section,) = [section for section in report.sections if section.name == "memory"]
    (table,) = section.tables
    names = [column.name for column in table.columns]
    assert names[-3:] == ["measured", "predicted", "source"]
    row = next(row for row in table.rows if "weights" in [str(cell.text) for cell in row.cells])
    measured, predicted, source = (str(cell.text) for cell in row.cells[-3:])
    (case, *_) = [case for case in boxes[0].cases if case.status == "ok"]
    assert case.predicted is not None
    assert predicted == format_bytes(case.predicted.weights_bytes)
    weights = case.measurements["weights_bytes"]
    assert (measured, source) == (format_bytes(weights.value or 0.0), weights.method)


def test_the_view_model_has_the_structure_on_record(boxes: list[Run]) -> None:
    found = json.loads(json.dumps(structure(build_report(boxes, "Two boxes"))))
    assert found == json.loads(GOLDEN.read_text()), f"look at the page; if it is right, update {GOLDEN.name}"


def test_sections_stand_in_their_order_and_links_lead_somewhere(page: str) -> None:
    outline = Outline(page)
    assert [name for name in outline.ids if name in SECTIONS] == SECTIONS
    assert len(outline.ids) == len(set(outline.ids))
    inner = {link.removeprefix("#") for link in outline.links if link.startswith("#")}
    assert inner <= set(outline.ids)
    assert [link for link in outline.links if not link.startswith("#")] == ["data:,"]


def test_every_case_has_an_anchor_that_other_reports_share(boxes: list[Run], page: str) -> None:
    anchors = [name for name in Outline(page).ids if name.startswith("case-")]
    assert len(anchors) == sum(len(run.cases) for run in boxes)
    alone = [name for name in Outline(render(build_report(boxes[1:], "one"))).ids if name.startswith("case-")]
    assert set(alone) <= set(anchors)


def test_the_policy_allows_exactly_what_is_inline(page: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    text = policy[1].replace("&#39;", "'")
    assert text.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in text
    for element in ("script", "style"):
        for content in re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL):
            digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in text
    assert not {name for name in Outline(page).attributes if name == "style" or name.startswith("on")}


def test_tables_and_drawings_can_be_read_by_a_machine(page: str) -> None:
    tags = Outline(page).tags
    assert tags.count("table") == tags.count("caption")
    assert page.count('<th scope="col"') > 0
    assert page.count('role="img"') == page.count("<desc ") == page.count('<div class="drawing">')
    assert tags.count("details") == tags.count("figure")


def test_places_for_cost_and_gate_are_kept_and_empty_without_them(boxes: list[Run]) -> None:
    cost, gate = Section("cost", "Cost", "Cost", empty="c"), Section("gate", "Verdict", "Verdict", empty="g")
    names = [section.name for section in build_report(boxes, "x", cost=cost, gate=gate).sections]
    assert names.index("gate") == 1
    assert names.index("cost") == names.index("memory") + 1
    assert [section.name for section in build_report(boxes, "x").sections] == SECTIONS


def test_sections_without_data_say_why(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path / "run", make_run_record()):
        pass
    report = build_report([read_run(tmp_path / "run")], "nothing yet")
    empty = {section.name: section.empty for section in report.sections if section.empty}
    assert set(empty) == {*SECTIONS} - {"limits", "box", "words"}
    assert all(text.endswith(".") for text in empty.values())
    assert report.summary == "0 of 1 case measured, 1 not measured yet."


def test_a_run_of_every_kind_of_ending_shows_them_all(tmp_path: Path) -> None:
    report = build_report([read_run(write_example_run(tmp_path / "open", close=False))], "x")
    assert report.summary == (
        "1 of 3 cases measured, 1 failed, 1 not measured yet, 1 skipped. smollm2-135m with torch, 2026-01-31."
    )
    limits = next(section for section in report.sections if section.name == "limits")
    assert [table.name for table in limits.tables] == ["flags", "failures", "skipped", "missing"]
    assert report.warnings[0].startswith("open: incomplete")
    text = render(report)
    assert str(tmp_path) not in text
    assert "failed (out_of_memory during load): needs 2 GiB more memory" in text


def test_text_between_backticks_is_code_and_an_odd_one_is_itself(boxes: list[Run]) -> None:
    section = Section("cost", "Cost", "Cost", lead=("run `aiprof <b>`", "odd `<b>"))
    text = render(build_report(boxes[:1], "x", cost=section))
    assert "run <code>aiprof &lt;b&gt;</code>" in text
    assert "odd `&lt;b&gt;" in text


def test_what_a_hostile_run_says_stays_text(tmp_path: Path) -> None:
    spec = make_spec(model=ATTACK, scenario=ATTACK)
    wild = Measurement(value=1e308, unit=ATTACK, ci95=(-1e308, 1e308), method=ATTACK, scope=ATTACK)
    nothing = Measurement.missing(ATTACK, ATTACK)
    failed = make_spec(model=ATTACK, batch=2)
    with RunWriter.create(
        tmp_path / "run", make_run_record((spec, failed), command=(ATTACK, "--x"), aiprof_version=ATTACK)
    ) as writer:
        names = ("decode_tokens_per_s", "prefill_s", "weights_bytes", "kv_cache_bytes", ATTACK)
        measurements = dict.fromkeys(names, wild) | {"energy_per_output_token_j": nothing}
        flag = Flag(code=ATTACK, text=ATTACK, hint=ATTACK)
        writer.append(make_case_fields(spec, measurements=measurements, flags=(flag,)))
        broken = Failure(kind=ATTACK, stage=ATTACK, message=ATTACK)
        writer.append(make_failed_fields(failed, failure=broken))
    runs = [read_run(tmp_path / "run")]
    harmless = render(build_report([read_run(write_example_run(tmp_path / "plain"))], "x"))
    for interactive in (False, True):
        text = render(build_report(runs, ATTACK, interactive=interactive))
        outline = Outline(text)
        assert "img" not in outline.tags
        kinds = re.findall(r"<script[^>]*>", text)
        assert set(kinds) <= {"<script>", '<script type="application/json">'}
        assert kinds.count("<script>") == Outline(harmless).tags.count("script")
        assert ATTACK not in text
        assert "1e+308" in text or "1.00e+308" in text


def test_the_page_of_many_cases_stays_small(tmp_path: Path) -> None:
    batches = tuple(range(1, 121))
    runs = [write_box(tmp_path / name, f"{name} box", 1.0, batches=batches) for name in ("a", "b")]
    text = render(build_report(runs, "many"))
    cases = sum(len(run.cases) for run in runs)
    assert text.count('<tr id="case-') == cases == 480
    # The limit is 1.5 MB for 1,500 cases; charts and tables of data do not grow with the cases.
    assert len(text.encode()) < 900_000


def test_it_is_written_in_one_piece(boxes: list[Run], tmp_path: Path) -> None:
    path = write_report(boxes, tmp_path / "r.html", title="x")
    assert path.read_text().startswith("<!doctype html>")
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.html"]
