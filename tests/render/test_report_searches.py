"""The page of a search says what it found, and what each load was judged by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import make_failed_fields
from load_runs import load_spec, write_loads
from load_tables import table_of

from profiler.analysis.slo_search import search_answer, why
from profiler.render.report import render
from profiler.render.report_sections import build_report
from profiler.render.report_view import Report, Table
from profiler.results.read import Run
from profiler.results.schema import CaseRecord, SearchSettings, SloJudgement

# 10 ms and 30 ms hold a limit of 100 ms, 98 ms lie at its border, and 200 ms are over it.
TRUTH = {1: [10.0] * 100, 2: [30.0] * 100, 3: [98.0] * 100, 4: [200.0] * 100}


def searched(path: Path, slos: tuple[str, ...] = ("ttft_p90=0.1s",), loads: Any = None) -> Run:
    """Return a run as a search leaves it."""
    loads = loads or {users: table_of(times) for users, times in TRUTH.items()}
    run = write_loads(path, loads, slos=slos)
    search = SearchSettings(over="concurrency", low=1, high=16, slos=slos)
    settings = run.record.settings.model_copy(update={"search": search})
    return replace(run, record=run.record.model_copy(update={"settings": settings}))


def judged(report: Report) -> Table:
    (section,) = (section for section in report.sections if section.name == "latency")
    return next(table for table in section.tables if table.name == "judged")


def test_the_page_states_the_answer_and_what_every_load_was_judged_by(tmp_path: Path) -> None:
    report = build_report([searched(tmp_path / "run")], "search")
    sentence = (
        "The search for the most users that keep the limits: 2 users keep ttft_p90=0.1s; 4 fail; "
        "undecided: 3 (within 5% of a limit at 3)."
    )
    sections = {section.name: section for section in report.sections}
    assert sections["answer"].lead[0] == sentence
    assert sections["latency"].lead == (sentence,)
    table = judged(report)
    assert [row.cells[1].text for row in table.rows] == ["holds", "holds", "undecided", "fails"]
    assert [row.cells[-1].text for row in table.rows] == [
        "the upper bound is 5% or more below the limit",
        "the upper bound is 5% or more below the limit",
        "within 5% of the limit",
        "the lower bound is more than 5% over the limit",
    ]
    # Limit, requests, at least, these, at most.
    assert [cell.text for cell in table.rows[0].cells[2:7]] == [
        "ttft_p90=0.1s",
        "100",
        "10.0",
        "10.0",
        "10.0",
    ]
    assert table.columns[4].unit == "ms"
    assert sentence in render(report)


def test_a_load_of_a_search_that_failed_stands_among_the_verdicts(tmp_path: Path) -> None:
    run = searched(tmp_path / "run", loads={1: table_of([10.0] * 100)})
    failed = run.cases[0].model_dump() | make_failed_fields(
        load_spec(2, device_key=run.cases[0].spec.device_key)
    )
    failed |= {"served": None, "samples": None}
    run = replace(run, cases=(*run.cases, CaseRecord.model_validate(failed)))
    report = build_report([run], "search")
    assert "1 user keeps ttft_p90=0.1s; 2 fail" in report.sections[0].lead[0]
    lost = judged(report).rows[1]
    assert [cell.text for cell in lost.cells] == ["2 users", "fails"]
    assert lost.remark == "the load failed (out_of_memory): needs 2 GiB more memory; use a smaller batch"


def test_two_searches_are_told_apart_and_other_loads_have_no_answer(tmp_path: Path) -> None:
    one, two = searched(tmp_path / "one"), searched(tmp_path / "two")
    report = build_report([one, two], "two")
    first, second = report.sections[0].lead[:2]
    assert " on a server (one): 2 users" in first
    assert " on a server (two): 2 users" in second
    assert [column.name for column in judged(report).columns][:2] == ["box", "load"]
    plain = write_loads(tmp_path / "plain", {1: table_of([10.0] * 100)}, slos=("ttft_p90=0.1s", "ttft=0.1s"))
    report = build_report([plain], "plain")
    assert not any("search" in text for section in report.sections for text in section.lead)
    assert len(judged(report).rows) == 1
    without = write_loads(tmp_path / "without", {1: table_of([10.0] * 100)})
    assert 'id="judged"' not in render(build_report([without], "without"))


def test_an_answer_says_why_levels_are_undecided(tmp_path: Path) -> None:
    loads = {1: table_of([10.0] * 9), 2: table_of([10.0] * 70 + [500.0] * 8), 3: table_of([97.0] * 100)}
    answer = search_answer(searched(tmp_path / "run", loads=loads))
    assert answer is not None
    assert (answer.holds, answer.undecided) == (None, (1, 2, 3))
    assert (answer.too_few, answer.border) == ((1,), (3,))
    # Enough requests, of which too many failed: more of them would not help.
    lost = {1: table_of([10.0] * 100, failed=10)}
    answer = search_answer(searched(tmp_path / "lost", loads=lost))
    assert answer is not None
    assert (answer.undecided, answer.too_few, answer.border) == ((1,), (), ())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"verdict": "undecided", "n": 0}, "no request has this time"),
        ({"verdict": "undecided", "n": 12, "low_s": 0.01}, "too few requests for an upper bound"),
        ({"verdict": "undecided", "n": 100, "low_s": 0.01}, "the upper bound falls on failed requests"),
        ({"verdict": "undecided", "n": 100, "low_s": 0.01, "high_s": 0.5}, "more requests would narrow them"),
        ({"verdict": "fails", "n": 100}, "so many requests failed"),
        (
            {"slo": "nonsense", "verdict": "undecided", "n": 100, "low_s": 1, "high_s": 2},
            "between the bounds",
        ),
    ],
)
def test_every_verdict_has_its_reason(fields: dict[str, Any], words: str) -> None:
    assert words in why(SloJudgement(**{"slo": "ttft_p90=0.1s", **fields}))
