"""Intervals, rates, starts and percentile bounds against published tables, algebra and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ci_coverage import CVS, TARGETS, run_rule, trial_times, unit_noise
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.measure.distributions import binomial_cdf, incomplete_beta, student_t_cdf, student_t_quantile
from profiler.measure.percentiles import percentile_upper_bound, required_requests
from profiler.measure.stats import (
    CRITICAL_AT_LOOK,
    FLOOR_OF_STUDENT,
    LOOKS,
    critical_value,
    interval_from_starts,
    mad,
    mean_interval,
    median,
    rate_interval,
    series_widths,
)

# Rows of the t table in the NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2.
PUBLISHED_T = {
    1: {0.90: 3.078, 0.95: 6.314, 0.975: 12.706, 0.99: 31.821, 0.995: 63.657},
    2: {0.90: 1.886, 0.95: 2.920, 0.975: 4.303, 0.99: 6.965, 0.995: 9.925},
    4: {0.90: 1.533, 0.95: 2.132, 0.975: 2.776, 0.99: 3.747, 0.995: 4.604},
    7: {0.90: 1.415, 0.95: 1.895, 0.975: 2.365, 0.99: 2.998, 0.995: 3.499},
    11: {0.90: 1.363, 0.95: 1.796, 0.975: 2.201, 0.99: 2.718, 0.995: 3.106},
    19: {0.90: 1.328, 0.95: 1.729, 0.975: 2.093, 0.99: 2.539, 0.995: 2.861},
    30: {0.90: 1.310, 0.95: 1.697, 0.975: 2.042, 0.99: 2.457, 0.995: 2.750},
    100: {0.90: 1.290, 0.95: 1.660, 0.975: 1.984, 0.99: 2.364, 0.995: 2.626},
}

positive = st.floats(1e-3, 1e3)
series = st.lists(positive, min_size=2, max_size=30)


@pytest.mark.parametrize("df", PUBLISHED_T)
def test_t_quantiles_agree_with_the_published_table(df: int) -> None:
    for p, published in PUBLISHED_T[df].items():
        assert student_t_quantile(p, df) == pytest.approx(published, abs=0.00051)


def test_t_with_one_and_two_degrees_of_freedom_has_closed_forms() -> None:
    for p in (0.01, 0.3, 0.6, 0.975, 0.9999):
        assert student_t_quantile(p, 1) == pytest.approx(math.tan(math.pi * (p - 0.5)), rel=1e-10)
        closed = (2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p)))
        assert student_t_quantile(p, 2) == pytest.approx(closed, rel=1e-10)


@given(p=st.floats(0.001, 0.999), df=st.integers(1, 300))
@settings(deadline=None, max_examples=50)
def test_t_quantile_inverts_the_cdf_and_is_odd(p: float, df: int) -> None:
    assert student_t_cdf(student_t_quantile(p, df), df) == pytest.approx(p, abs=1e-10)
    assert student_t_quantile(1 - p, df) == pytest.approx(-student_t_quantile(p, df), rel=1e-7, abs=1e-9)


@given(n=st.integers(1, 60), p=st.floats(0.001, 0.999), k=st.integers(0, 60))
@settings(deadline=None, max_examples=100)
def test_binomial_cdf_is_the_sum_of_its_terms(n: int, p: float, k: int) -> None:
    terms = math.fsum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(min(k, n) + 1))
    assert binomial_cdf(k, n, p) == pytest.approx(terms, abs=1e-10)


@pytest.mark.parametrize("bad", [(0.0, 1.0, 0.5), (1.0, -1.0, 0.5), (1.0, 1.0, 1.5), (1.0, 1.0, math.nan)])
def test_incomplete_beta_refuses_what_it_is_not_defined_for(bad: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="incomplete beta"):
        incomplete_beta(*bad)


def test_quantile_refuses_probabilities_outside_0_to_1() -> None:
    for p, df in ((0.0, 3), (1.0, 3), (0.9, 0)):
        with pytest.raises(ValueError, match="t quantile"):
            student_t_quantile(p, df)
    with pytest.raises(ValueError, match="binomial"):
        binomial_cdf(-1, 3, 0.5)


def test_critical_values_meet_the_table_fall_with_n_and_approach_students_t() -> None:
    assert {n: critical_value(n) for n in LOOKS} == pytest.approx(CRITICAL_AT_LOOK)
    values = [critical_value(n) for n in range(5, 200)]
    assert values == sorted(values, reverse=True)
    assert critical_value(5000) == pytest.approx(student_t_quantile(0.975, 4999), rel=0.002)
    with pytest.raises(ValueError, match="at least 2"):
        critical_value(1)


@given(times=series, factor=st.floats(1e-3, 1e3))
@settings(deadline=None)
def test_interval_scales_with_the_unit_of_time(times: list[float], factor: float) -> None:
    one, scaled = mean_interval(times), mean_interval([t * factor for t in times])
    if one.rho is None or scaled.rho is None:
        return
    assert one.low is not None
    assert one.high is not None
    size = 1e-7 * factor * (abs(one.low) + abs(one.high))
    assert scaled.low == pytest.approx(one.low * factor, abs=size)
    assert scaled.high == pytest.approx(one.high * factor, abs=size)


@given(times=series)
@settings(deadline=None)
def test_interval_is_the_same_for_the_series_backwards(times: list[float]) -> None:
    forth, back = mean_interval(times), mean_interval(times[::-1])
    assert forth.mean == pytest.approx(back.mean)
    assert forth.low == pytest.approx(back.low, rel=1e-6, abs=1e-6 * forth.mean)


@given(times=st.lists(positive, min_size=5, max_size=30))
@settings(deadline=None)
def test_interval_holds_the_mean_and_is_never_narrower_than_half_of_students(times: list[float]) -> None:
    found, n = mean_interval(times), len(times)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.mean <= found.high
    if found.n_effective is not None:
        student = student_t_quantile(0.975, n - 1) * np.std(times, ddof=1) / math.sqrt(n)
        half = (found.high - found.low) / 2
        assert half >= FLOOR_OF_STUDENT * student * (1 - 1e-6)
        stated = critical_value(n) * np.std(times, ddof=1) / math.sqrt(found.n_effective)
        assert half == pytest.approx(stated, rel=1e-6)


def test_order_matters_neighbours_that_agree_widen_and_neighbours_that_alternate_narrow() -> None:
    values = np.linspace(0.99, 1.01, 20)
    drifting = mean_interval(values)
    alternating = mean_interval(np.ravel(np.column_stack([values[:10], values[:9:-1]])))
    shuffled = mean_interval(np.random.default_rng(3).permutation(values))
    widths = [e.relative_half_width for e in (alternating, shuffled, drifting)]
    assert None not in widths
    assert widths == sorted(widths, key=float)  # type: ignore[arg-type]
    effective = [e.n_effective for e in (drifting, shuffled, alternating)]
    assert effective == sorted(effective, key=float)  # type: ignore[arg-type]


def test_one_trial_has_no_interval_and_says_why() -> None:
    found = mean_interval([2.0])
    assert (found.mean, found.interval, found.relative_half_width, found.n) == (2.0, None, None, 1)
    assert found.reason is not None
    assert found.method == "none"


@pytest.mark.parametrize("n", [2, 3, 4])
def test_few_trials_use_students_t_widened_by_half(n: int) -> None:
    times = [1.0, 1.1, 0.95, 1.02][:n]
    found = mean_interval(times)
    assert found.high is not None
    half = 1.5 * student_t_quantile(0.975, n - 1) * np.std(times, ddof=1) / math.sqrt(n)
    assert found.high - found.mean == pytest.approx(half)
    assert found.method == "student_t_widened"
    assert found.rho is None
    assert found.reason is not None


@pytest.mark.parametrize("n", [3, 5, 20])
@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-6, 12345.678])
def test_constant_series_has_zero_width_and_no_autocorrelation(n: int, value: float) -> None:
    found = mean_interval([value] * n)
    assert found.low == pytest.approx(value)
    assert found.high == pytest.approx(value)
    assert found.rho is None
    assert found.reason is not None


@pytest.mark.parametrize(
    "bad", [[], [1.0, math.nan], [1.0, math.inf], [1.0, 0.0], [1.0, -1.0], [[1.0], [2.0]]]
)
def test_times_that_cannot_be_are_refused(bad: list[float]) -> None:
    for function in (mean_interval, interval_from_starts, median, mad):
        with pytest.raises(ValueError, match=r"positive and finite|at least one number"):
            function(bad)


def test_message_names_every_bad_time() -> None:
    with pytest.raises(ValueError, match=r"\[1\] = nan, \[3\] = -2.0 \(2 of 4\)"):
        mean_interval([1.0, math.nan, 1.0, -2.0])


def test_rate_transforms_both_ends_and_keeps_how_it_was_found() -> None:
    time = mean_interval([2.0, 2.1, 1.95, 2.05, 2.0, 1.98])
    rate = rate_interval(time, 128)
    assert time.low is not None
    assert time.high is not None
    assert (rate.mean, rate.low, rate.high) == (128 / time.mean, 128 / time.high, 128 / time.low)
    assert (rate.n, rate.rho, rate.n_effective, rate.method) == (6, time.rho, time.n_effective, time.method)


def test_rate_has_no_interval_when_the_time_may_be_zero() -> None:
    time = mean_interval([1.0, 3.0])
    assert time.low is not None
    assert time.low < 0
    rate = rate_interval(time, 10)
    assert rate.mean == 5
    assert rate.interval is None
    assert rate.reason is not None
    assert rate_interval(mean_interval([2.0]), 10).interval is None
    for bad in (0.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="work per trial"):
            rate_interval(time, bad)


def test_starts_use_students_t_on_their_means() -> None:
    found = interval_from_starts([100.0, 104.0, 99.0])
    half = 4.302653 * math.sqrt(7) / math.sqrt(3)
    assert found.mean == 101
    assert found.low == pytest.approx(101 - half, rel=1e-6)
    assert found.high == pytest.approx(101 + half, rel=1e-6)
    assert interval_from_starts([100.0]).interval is None
    assert interval_from_starts([100.0]).reason is not None


def test_median_and_mad_ignore_one_wild_value() -> None:
    assert median([1.0, 2.0, 900.0]) == 2
    assert mad([1.0, 2.0, 4.0, 5.0, 900.0]) == 2


@pytest.mark.parametrize(
    ("percentile", "published"),
    [
        (90, [44, 64, 81, 97, 113, 127]),
        (95, [90, 130, 165, 198, 229, 259]),
        (99, [459, 662, 838, 1001, 1157, 1307]),
    ],
)
def test_required_requests_are_mlperfs(percentile: float, published: list[int]) -> None:
    assert [required_requests(percentile, t) for t in range(6)] == published


def test_percentile_bound_needs_enough_requests_and_discards_all_but_one_of_the_slow_ones() -> None:
    latencies = [float(i) for i in range(1, 131)]
    short = percentile_upper_bound(latencies[:63], 90)
    assert short.value is None
    assert short.reason == "p90 needs 64 requests, 63 were measured"
    assert percentile_upper_bound(latencies[:64], 90).value == 64
    assert percentile_upper_bound(latencies[:80], 90).value == 80
    assert percentile_upper_bound(latencies[:81], 90).value == 80
    assert percentile_upper_bound(latencies[:127], 90).value == 123
    assert percentile_upper_bound([], 99).reason == "p99 needs 662 requests, 0 were measured"


@given(latencies=st.lists(positive, min_size=64, max_size=200), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=30)
def test_percentile_bound_is_above_the_sample_percentile_and_ignores_order(
    latencies: list[float], seed: int
) -> None:
    found = percentile_upper_bound(latencies, 90)
    assert found.value is not None
    assert found.value >= np.quantile(latencies, 0.9, method="lower")
    shuffled = np.random.default_rng(seed).permutation(latencies)
    assert percentile_upper_bound(shuffled, 90) == found


def test_percentile_bound_holds_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    truth = -math.log(0.1)
    below = sum(
        (percentile_upper_bound(rng.exponential(size=100), 90).value or 0) < truth for _ in range(1000)
    )
    assert below <= 25  # 1% expected; 25 of 1000 would be five standard errors off


def test_failed_requests_count_as_slow_and_nan_is_refused() -> None:
    latencies = [1.0] * 98 + [math.inf] * 2
    assert percentile_upper_bound(latencies, 90).value == 1
    assert "100 of 200 requests failed" in str(percentile_upper_bound([1.0, math.inf] * 100, 90).reason)
    for bad in ([1.0, math.nan], [0.0, 1.0]):
        with pytest.raises(ValueError, match="infinity for a failed"):
            percentile_upper_bound(bad, 90)
    with pytest.raises(ValueError, match="between 1 and 100"):
        percentile_upper_bound([1.0], 0.99)
    with pytest.raises(ValueError, match="at least 0"):
        required_requests(90, -1)


def test_many_series_at_once_are_the_same_as_one_by_one() -> None:
    times = 1 + 0.02 * unit_noise(50, 12, 0.4, np.random.default_rng(5))
    found = series_widths(times)
    for row, mean, half, rho, effective in zip(
        times, found.mean, found.half_width, found.rho, found.n_effective, strict=True
    ):
        one = mean_interval(row)
        assert one.high is not None
        assert (one.mean, one.high - one.mean) == pytest.approx((mean, half))
        assert (one.rho, one.n_effective) == pytest.approx((rho, effective))


@pytest.mark.parametrize("phi", [0.0, 0.3, 0.5])
@pytest.mark.parametrize("shape", ["gaussian", "lognormal"])
def test_coverage_at_the_moment_of_stopping_is_93_to_97_percent(phi: float, shape: str) -> None:
    runs = 16_000  # standard error 0.17 points; the tightest cell is 0.8 points inside
    for cv in CVS:
        rng = np.random.default_rng([101, int(1000 * cv), int(10 * phi)])
        times = trial_times(unit_noise(runs, LOOKS[-1], phi, rng), cv, shape, rng)
        for target in TARGETS:
            coverage = run_rule(times, target).covered.mean()
            assert 0.93 <= coverage <= 0.97, (cv, target)
