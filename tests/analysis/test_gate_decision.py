"""The statistics of a verdict: bounds, decisions, how many starts would decide, and false passes."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from gate_errors import Cell, false_pass
from hypothesis import given
from hypothesis import strategies as st

from profiler.analysis.decision import (
    CHANCE,
    MOST_STARTS,
    decide,
    mean_and_deviation,
    start_bounds,
    starts_to_decide,
)
from profiler.measure.distributions import student_t_quantile

starts = st.lists(st.floats(0.5, 2.0), min_size=2, max_size=12)
confidences = st.sampled_from([0.8, 0.9, 0.95, 0.99])


@pytest.mark.parametrize(
    ("values", "confidence", "t"),
    # Student's t, one-sided, from published tables.
    [((1.0, 2.0, 3.0), 0.95, 2.9200), ((1.0, 2.0, 3.0, 4.0, 5.0), 0.99, 3.7469), ((1.0, 3.0), 0.9, 3.0777)],
)
def test_bounds_follow_from_the_published_t(values: tuple[float, ...], confidence: float, t: float) -> None:
    low, high = start_bounds(values, confidence)
    half = t * np.std(values, ddof=1) / math.sqrt(len(values))
    assert low == pytest.approx(np.mean(values) - half, rel=1e-4)
    assert high == pytest.approx(np.mean(values) + half, rel=1e-4)


def test_one_start_has_no_bounds() -> None:
    with pytest.raises(ValueError, match="at least 2 starts"):
        start_bounds([1.0], 0.95)


@given(starts, confidences, st.floats(0.1, 4.0))
def test_no_figure_both_passes_and_fails_and_the_mean_alone_never_decides_against_itself(
    values: list[float], confidence: float, limit: float
) -> None:
    low, high = start_bounds(values, confidence)
    mean, _ = mean_and_deviation(values)
    more = decide(low, high, limit, "higher")
    less = decide(low, high, limit, "lower")
    assert (more, less) != ("pass", "pass") or low == high == limit
    if more == "pass":
        assert mean >= limit * (1 - 1e-12)
    if more == "fail":
        assert mean < limit


@given(starts, st.floats(0.1, 4.0))
def test_more_confidence_never_turns_undecided_into_a_verdict(values: list[float], limit: float) -> None:
    seen = [decide(*start_bounds(values, c), limit, "higher") for c in (0.8, 0.95, 0.99)]
    for weaker, stronger in pairwise(seen):
        assert stronger in (weaker, "undecided")


@given(starts, confidences, st.floats(0.1, 4.0))
def test_the_estimate_of_starts_is_the_smallest_that_does(
    values: list[float], confidence: float, limit: float
) -> None:
    needed = starts_to_decide(values, limit, confidence)
    mean, deviation = mean_and_deviation(values)

    def enough(n: int) -> bool:
        factor = student_t_quantile(confidence, n - 1) + student_t_quantile(CHANCE, n - 1)
        return abs(mean - limit) * math.sqrt(n) >= factor * deviation

    if needed is None:
        assert not enough(MOST_STARTS)
    else:
        assert len(values) < needed <= MOST_STARTS
        assert enough(needed)
        assert needed == len(values) + 1 or not enough(needed - 1)


def test_the_estimate_decides_as_often_as_it_says() -> None:
    """Fresh runs with the estimated number of starts, drawn around the mean and spread seen before."""
    rng = np.random.default_rng(5)
    seen, decided = 0, 0
    for _ in range(400):
        first = rng.normal(1.015, 0.02, 3).tolist()
        needed = starts_to_decide(first, 1.0, 0.95)
        if needed is None or decide(*start_bounds(first, 0.95), 1.0, "higher") != "undecided":
            continue
        again = rng.normal(np.mean(first), np.std(first, ddof=1), needed).tolist()
        seen += 1
        decided += decide(*start_bounds(again, 0.95), 1.0, "higher") != "undecided"
    assert seen > 100
    assert decided / seen > CHANCE - 0.08


@pytest.mark.parametrize("count", [3, 5])
@pytest.mark.parametrize("short", [0.0, 0.01, 0.02])
def test_false_passes_are_as_rare_as_promised(count: int, short: float) -> None:
    """2% between starts and 1% between trials; a box that is exactly at the limit or below it."""
    runs = 4000
    rate = false_pass(Cell(starts=count, short=short, confidence=0.95), runs)
    assert rate <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    if short == 0.0:
        assert rate > 0.03, "a rule that never passes anything proves nothing"
