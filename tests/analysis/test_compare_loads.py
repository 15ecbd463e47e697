"""Loads on servers are compared load by load, never request by request."""

from __future__ import annotations

from pathlib import Path

import pytest
from load_runs import loads, write_loads
from load_tables import table_of

from profiler.analysis.compare import CaseComparison, compare_runs
from profiler.analysis.compare_threshold import judge_threshold
from profiler.render.compare import comparison_text
from profiler.results.read import Run


def boxes(folder: Path, ratio: float, repeats: int, slos: tuple[str, ...] = ("ttft=0.2s",)) -> list[Run]:
    """Two servers, each loaded several times; the second waits ``ratio`` times as long."""
    return [
        write_loads(
            folder / f"{name}{number}", loads([4], 100 * factor, seed=10 * number + place), name, slos
        )
        for place, (name, factor) in enumerate((("one", 1.0), ("other", ratio)))
        for number in range(repeats)
    ]


def only_case(runs: list[Run], **options: bool) -> CaseComparison:
    (pair,) = compare_runs(runs, **options).pairs  # type: ignore[arg-type]
    (case,) = pair.cases
    return case


def test_one_load_each_is_undecided_with_the_interval_of_its_requests(tmp_path: Path) -> None:
    found = only_case(boxes(tmp_path, 1.5, 1)).metric("ttft_p50_s")
    assert found is not None
    assert (found.verdict, found.words, found.ratio_ci95) == ("undecided", "undecided (one load)", None)
    assert found.ratio is not None
    assert found.ratio == pytest.approx(1.5, rel=0.1)
    assert found.recorded_scope == "one_load"
    assert found.ratio_ci95_recorded is not None
    assert found.ratio_ci95_recorded[0] < found.ratio < found.ratio_ci95_recorded[1]
    assert "--pool" in (found.reason or "")


def test_three_loads_each_show_a_difference_and_its_direction(tmp_path: Path) -> None:
    case = only_case(boxes(tmp_path, 1.5, 3), pool=True)
    found = case.metric("ttft_p50_s")
    assert found is not None
    assert (found.verdict, found.faster) == ("different", "baseline")
    assert (found.baseline_starts, found.candidate_starts) == (3, 3)
    assert found.words.startswith("A faster by")
    assert found.ratio_ci95 is not None
    assert found.ratio_ci95[0] < 1.5 < found.ratio_ci95[1]
    attained = case.metric("slo_attainment")
    assert attained is not None
    assert attained.ratio is not None
    assert "higher" in attained.words or attained.verdict != "different"
    assert case.load == "4 users"


def test_equal_servers_are_not_distinguishable(tmp_path: Path) -> None:
    case = only_case(boxes(tmp_path, 1.0, 3), pool=True)
    assert {metric.verdict for metric in case.metrics} <= {"not_distinguishable", "undecided", "missing"}


def test_attainment_under_other_limits_is_another_quantity(tmp_path: Path) -> None:
    runs = [
        write_loads(tmp_path / name, loads([4], 100), name, (slo,))
        for name, slo in (("one", "ttft=0.2s"), ("other", "ttft=0.3s"))
    ]
    found = only_case(runs).metric("slo_attainment")
    assert found is not None
    assert found.verdict == "missing"
    assert "ttft=0.2s against ttft=0.3s" in (found.reason or "")


def test_a_slower_server_is_a_regression(tmp_path: Path) -> None:
    comparison = compare_runs(boxes(tmp_path, 1.5, 3), pool=True)
    report = judge_threshold(comparison, 0.03, ["ttft_p50_s", "output_tokens_per_s"])
    assert {one.metric: one.status for one in report.judgements}["ttft_p50_s"] == "regression"
    assert report.exit_code(strict=False) == 1
    faster = compare_runs(boxes(tmp_path / "b", 1.0, 3), pool=True)
    assert judge_threshold(faster, 0.5, ["ttft_p50_s"]).exit_code(strict=True) == 0


def test_the_table_says_users_and_that_formats_are_not_known(tmp_path: Path) -> None:
    text = comparison_text(compare_runs(boxes(tmp_path, 1.5, 1))).plain
    for words in (
        "4 users",
        "TTFT p50",
        "goodput req/s",
        "undecided (one load)",
        "they may differ",
        "add --pool",
    ):
        assert words in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_load_is_never_compared_with_a_load_of_other_users(tmp_path: Path) -> None:
    runs = [
        write_loads(tmp_path / str(users), {users: table_of([50.0] * 30)}, str(users)) for users in (2, 4)
    ]
    (pair,) = compare_runs(runs).pairs
    assert pair.cases == ()
    assert len(pair.unmatched) == 2
