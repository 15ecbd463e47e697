"""A threshold for a CI job: what is a regression, what is not, and what nobody can say yet."""

from __future__ import annotations

import pytest
from builders import make_spec
from comparisons import make_box, make_case, make_run, steady
from hypothesis import given
from hypothesis import strategies as st

from profiler.analysis.compare import compare_runs
from profiler.analysis.compare_threshold import ThresholdReport, judge_threshold
from profiler.results.read import Run
from profiler.results.schema import Failure


def _report(
    *runs: Run, threshold: float = 0.03, metrics: tuple[str, ...] = ("output_tokens_per_s",)
) -> ThresholdReport:
    return judge_threshold(compare_runs(runs), threshold, metrics)


def _codes(report: ThresholdReport) -> tuple[int, int]:
    return report.exit_code(strict=False), report.exit_code(strict=True)


def test_a_loss_beyond_the_threshold_is_a_regression() -> None:
    report = _report(make_box({1: 1.0}, "a", spread=0.001), make_box({1: 1.1}, "b", spread=0.001))
    (judgement,) = report.judgements
    assert judgement.status == "regression"
    assert judgement.case == "decode-128 · smollm2-135m · bf16 · batch 1"
    assert judgement.reason.startswith("speed -9.")
    assert _codes(report) == (1, 1)


def test_a_certain_loss_within_the_threshold_is_none() -> None:
    left, right = make_box({1: 1.0}, "a", spread=0.001), make_box({1: 1.01}, "b", spread=0.001)
    comparison = compare_runs([left, right])
    found = comparison.pairs[0].cases[0].metric("output_tokens_per_s")
    assert found is not None
    assert found.verdict == "different"
    assert _codes(_report(left, right)) == (0, 0)
    assert _codes(_report(left, right, threshold=0.0)) == (1, 1)


def test_a_gain_is_no_regression() -> None:
    assert _codes(_report(make_box({1: 1.1}, "a"), make_box({1: 1.0}, "b"))) == (0, 0)


def test_what_may_be_beyond_it_is_undecided_and_only_strict_minds() -> None:
    report = _report(make_box({1: 1.0}, "a", spread=0.05), make_box({1: 1.03}, "b", spread=0.05))
    (judgement,) = report.judgements
    assert judgement.status == "undecided"
    assert judgement.reason.endswith(": may or may not be beyond 3%")
    assert _codes(report) == (0, 3)


@pytest.mark.parametrize("time", [1.0, 5.0])
def test_a_gate_that_could_not_have_closed_has_not_been_passed(time: float) -> None:
    report = _report(make_box({1: 1.0}, "a", starts=1), make_box({1: time}, "b", starts=1))
    assert report.tests == 0
    assert _codes(report) == (3, 3)
    nothing = _report(make_box({1: 1.0}, "a"), make_box({2: 1.0}, "b"))
    assert _codes(nothing) == (3, 3)
    assert [judgement.metric for judgement in nothing.judgements] == [None]


def test_a_case_that_now_fails_is_a_regression_and_a_new_one_is_not() -> None:
    failure = Failure(kind="out_of_memory", stage="load", message="2 GiB short")
    failed = make_case(make_spec(batch=2), status="failed", failure=failure, starts=(), trials=())
    fine = make_box({1: 1.0, 2: 1.0}, "a", spread=0.001)
    broken = make_run([*make_box({1: 1.0}, "b", spread=0.001).cases, failed], "b")
    report = _report(fine, broken)
    assert [judgement.reason for judgement in report.with_status("regression")] == [
        "failed on B (out_of_memory in load: 2 GiB short)"
    ]
    assert _codes(report) == (1, 1)
    assert _codes(_report(broken, fine)) == (0, 0)


def test_a_rate_and_its_time_are_one_piece_of_evidence() -> None:
    sides = make_box({1: 1.0}, "a"), make_box({1: 1.06}, "b")
    one = _report(*sides, metrics=("output_tokens_per_s",))
    both = _report(*sides, metrics=("output_tokens_per_s", "e2e_s"))
    assert [judgement.status for judgement in both.judgements] == [one.judgements[0].status] * 2
    assert both.judgements[1].reason == one.judgements[0].reason


def test_a_loss_in_one_of_many_cases_must_survive_the_correction() -> None:
    same = dict.fromkeys(range(2, 60), 1.0)
    left = make_box({1: 1.0} | same, "a", spread=0.02)
    slower = make_case(make_spec(batch=1), steady(1.13, spread=0.02, seed=("b", 1)))
    right = make_run([slower, *make_box(same, "b", spread=0.02).cases], "b")
    alone = _report(make_run([left.cases[0]]), make_run([slower]))
    assert alone.judgements[0].status == "regression"
    first = _report(left, right).judgements[0]
    assert first.status == "undecided"
    assert "not after correction for 59 comparisons" in first.reason


@pytest.mark.parametrize("threshold", [-0.1, 1.0, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        _report(make_box({1: 1.0}), make_box({1: 1.0}), threshold=threshold)


def test_a_metric_without_an_interval_over_starts_is_refused() -> None:
    with pytest.raises(ValueError, match="peak_engine_bytes"):
        _report(make_box({1: 1.0}), make_box({1: 1.0}), metrics=("peak_engine_bytes",))


@given(st.floats(0.5, 2.0), st.floats(0, 0.9), st.floats(0, 0.9))
def test_a_looser_threshold_never_finds_more(factor: float, one: float, other: float) -> None:
    tight, loose = sorted((one, other))
    left, right = make_box({1: 1.0}, "a"), make_box({1: factor}, "b")
    order = ["ok", "undecided", "regression"]
    strict, lenient = (
        order.index(_report(left, right, threshold=threshold).judgements[0].status)
        for threshold in (tight, loose)
    )
    assert lenient <= strict
