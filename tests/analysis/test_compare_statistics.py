"""Welch, Holm and intervals of ratios: against published examples, simple truths and simulation."""

from __future__ import annotations

import math

import comparison as benchmark
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.analysis.compare_statistics import (
    FAMILY_ALPHA,
    holm,
    interval_of_ratio,
    p_below,
    welch,
)
from profiler.measure.distributions import student_t_quantile

LOGS = st.lists(st.floats(-20, 20), min_size=2, max_size=12)
P_VALUES = st.lists(st.floats(0, 1), max_size=30)


def test_welch_against_a_worked_example() -> None:
    # Third example of "Welch's t-test" in the English Wikipedia: t = 2.22, df = 24.5, P = 0.036.
    baseline = [19.8, 20.4, 19.6, 17.8, 18.5, 18.9, 18.3, 18.9, 19.5, 22.0]
    candidate = [28.2, 26.6, 20.1, 23.3, 25.2, 22.1, 17.7, 27.6, 20.6, 13.7, 23.2, 17.5, 20.6, 18.0, 23.9]
    candidate += [21.6, 24.3, 20.4, 24.0, 13.2]
    found = welch(baseline, candidate)
    assert found.difference / found.standard_error == pytest.approx(2.22, abs=0.005)
    assert found.df == pytest.approx(24.5, abs=0.05)
    assert found.p_value == pytest.approx(0.036, abs=0.0005)


def test_equal_spreads_and_sizes_give_the_pooled_degrees_of_freedom() -> None:
    found = welch([0.0, 1.0, 2.0], [5.0, 6.0, 7.0])
    assert found.df == 4
    assert found.low == pytest.approx(5 - student_t_quantile(0.975, 4) * math.sqrt(2 / 3))


@given(LOGS, LOGS)
def test_the_interval_leaves_out_zero_exactly_when_p_is_below_alpha(
    baseline: list[float], candidate: list[float]
) -> None:
    found = welch(baseline, candidate)
    if found.df is None:
        assert found.standard_error == 0
        assert found.low is found.high is found.p_value is None
        return
    assert min(len(baseline), len(candidate)) - 1 - 0.01 <= found.df <= len(baseline) + len(candidate) - 2
    assert found.low is not None
    assert found.high is not None
    assert found.p_value is not None
    assert 0 <= found.p_value <= 1
    if abs(found.p_value - 0.05) > 1e-9:
        assert (found.p_value < 0.05) == (not found.low <= 0 <= found.high)


@given(LOGS, LOGS)
def test_swapping_the_sides_mirrors_the_difference(left: list[float], right: list[float]) -> None:
    one, other = welch(left, right), welch(right, left)
    assert one.difference == -other.difference
    assert one.df == other.df
    assert one.standard_error == pytest.approx(other.standard_error, rel=1e-12)


def test_no_spread_at_all_has_no_interval_and_one_start_is_refused() -> None:
    assert welch([1.0, 1.0], [2.0, 2.0]).df is None
    assert welch([1.0, 1.0], [2.0, 2.1]).df == 1
    with pytest.raises(ValueError, match="two starts on each side, got 1 and 2"):
        welch([1.0], [2.0, 2.0])


def test_below_a_bound_is_the_one_sided_side_of_the_interval() -> None:
    found = welch([0.0, 0.02, 0.01], [-0.2, -0.21, -0.19])
    assert found.high is not None
    assert found.df is not None
    at_the_end = p_below(found.difference, found.standard_error, found.df, found.high)
    assert at_the_end == pytest.approx(0.025, abs=1e-9)


def test_holm_by_hand() -> None:
    # 4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04, which may not be below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(P_VALUES)
def test_holm_lies_between_no_correction_and_bonferroni_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q <= min(1.0, len(p_values) * p) or q == pytest.approx(p)
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    assert [adjusted[i] for i in order] == sorted(adjusted)


def test_an_interval_of_a_ratio() -> None:
    found = interval_of_ratio(10, (9, 11), 20, (20, 20))
    assert found == pytest.approx((20 / 11, 20 / 9))
    both = interval_of_ratio(10, (9, 11), 20, (18, 22))
    assert both is not None
    assert both[0] < 20 / 11
    assert both[1] > 20 / 9
    assert interval_of_ratio(10, (0, 11), 20, (18, 22)) is None
    assert interval_of_ratio(1e-300, (1e-308, 1e-300), 1e300, (1e300, 1e308)) is None


@pytest.mark.parametrize("starts", [3, 5])
def test_two_equal_boxes_are_rarely_called_different(starts: int) -> None:
    """Fewer runs than the benchmark; the limits leave four standard errors of this number."""
    runs = 4000
    rng = np.random.default_rng([7, starts])
    left, right = (benchmark.trial_times(rng, runs, starts, 0.02).mean(axis=2) for _ in range(2))
    found = benchmark.differences(left, right)
    covered = np.mean([d.low is not None and d.high is not None and d.low <= 0 <= d.high for d in found])
    assert 0.93 <= covered <= 0.975
    families = benchmark.families(rng, 1000, 6, starts, (0.02, 0.02))
    wrong = np.mean([min(holm([d.p_value or 0.0 for d in family])) <= FAMILY_ALPHA for family in families])
    assert wrong <= 0.05


def test_trials_as_replicates_would_call_equal_boxes_different() -> None:
    rng = np.random.default_rng(11)
    left, right = (benchmark.trial_times(rng, 1000, 3, 0.02) for _ in range(2))
    assert benchmark.trials_as_replicates(left, right) > 40
