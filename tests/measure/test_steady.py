"""Warm-up: when it ends, what it refuses to call steady, and what is found out afterwards."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.measure.steady import WarmUp, drift, flags_after, leak, trend


def feed(times: list[float], budget_s: float = 1e9, block_s: float = 1.0) -> WarmUp:
    """Feed trials until warm-up is over or there are no more."""
    warm_up = WarmUp(budget_s, block_s)
    for seconds in times:
        if warm_up.add(seconds) != "warming":
            break
    return warm_up


def approach(size: float, constant: float, n: int = 60) -> list[float]:
    return [2 * (1 + size * math.exp(-i / constant)) for i in range(n)]


def test_steady_from_the_start_takes_three_long_trials() -> None:
    warm_up = feed([2.0] * 10)
    assert (warm_up.status, len(warm_up.times), warm_up.elapsed_s) == ("steady", 3, 6.0)
    assert warm_up.last_trend is not None
    assert warm_up.last_trend.change == 0


def test_short_trials_are_pooled_into_blocks_of_a_second() -> None:
    warm_up = feed([0.25] * 100)
    assert warm_up.status == "steady"
    assert warm_up.blocks == [0.25] * 5
    assert len(warm_up.times) == 20


def test_a_block_is_the_median_of_its_trials() -> None:
    warm_up = WarmUp(1e9)
    for seconds in (0.1, 0.7, 0.2):
        warm_up.add(seconds)
    assert warm_up.blocks == [0.2]


def test_one_slow_first_trial_is_waited_out() -> None:
    warm_up = feed([9.0] + [2.0] * 10)
    assert warm_up.status == "steady"
    assert len(warm_up.times) == 4


@pytest.mark.parametrize(("size", "constant"), [(0.3, 1.0), (0.3, 2.0), (0.1, 2.0), (-0.3, 2.0), (-0.1, 1.0)])
def test_without_noise_an_approach_is_not_steady_before_a_window_changes_by_under_two_percent(
    size: float, constant: float
) -> None:
    times = approach(size, constant)
    warm_up = feed(times)
    assert warm_up.status == "steady"
    used = len(warm_up.times)
    assert abs(times[used - 1] / times[used - 3] - 1) < 0.025
    assert abs(times[used] / 2 - 1) < 0.03


@pytest.mark.parametrize("constant", [0.5, 1.0, 2.0])
def test_more_drift_never_ends_warm_up_sooner(constant: float) -> None:
    used = [len(feed(approach(size, constant)).times) for size in (0.0, 0.05, 0.1, 0.3, 1.0)]
    assert used == sorted(used)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=40), st.floats(0.5, 50))
@settings(deadline=None)
def test_at_least_one_trial_is_warm_up_and_the_budget_ends_it(times: list[float], budget_s: float) -> None:
    warm_up = feed(times, budget_s)
    assert len(warm_up.times) >= 1
    assert warm_up.elapsed_s - warm_up.times[-1] < budget_s
    assert warm_up.elapsed_s < budget_s or warm_up.status != "warming"
    assert warm_up.explain().startswith(warm_up.status)


@given(
    st.lists(st.floats(0.5, 4), min_size=3, max_size=20), st.sampled_from([0.25, 2.0, 64.0]), st.floats(5, 50)
)
@settings(deadline=None)
def test_warm_up_does_not_depend_on_the_unit_of_time(
    times: list[float], factor: float, budget_s: float
) -> None:
    one = feed(times, budget_s, 1.0)
    other = feed([t * factor for t in times], budget_s * factor, factor)
    assert (one.status, len(one.times)) == (other.status, len(other.times))


def test_a_lasting_drift_runs_out_of_time() -> None:
    warm_up = feed([2 * 0.97**i for i in range(40)], budget_s=20)
    assert warm_up.status == "out_of_time"
    assert "not_steady" in flags_after(warm_up, [1.0] * 8, 0.01)


def test_one_trial_over_the_budget_is_still_made_and_ends_warm_up() -> None:
    warm_up = feed([30.0, 30.0], budget_s=7)
    assert (warm_up.status, len(warm_up.times)) == ("out_of_time", 1)
    assert "are needed" in warm_up.explain()


def test_warm_up_cannot_go_on_after_it_ended() -> None:
    warm_up = feed([2.0] * 3)
    with pytest.raises(ValueError, match=r"over \(steady\)"):
        warm_up.add(2.0)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_times_and_budgets_that_cannot_be_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="positive finite"):
        WarmUp(10).add(bad)
    with pytest.raises(ValueError, match="positive finite"):
        drift([1.0, bad])
    with pytest.raises(ValueError, match="positive finite"):
        trend([1.0, bad, 1.0])
    with pytest.raises(ValueError, match="positive finite"):
        leak([1.0, 1.0], [1.0, 1.0, 1.0, bad])
    if bad != math.inf:
        with pytest.raises(ValueError, match="positive budget"):
            WarmUp(bad)


@given(st.floats(0.1, 10), st.floats(-0.02, 0.02), st.integers(3, 20))
@settings(deadline=None)
def test_trend_of_an_exact_line_is_that_line(start: float, slope: float, n: int) -> None:
    values = [start * (1 + slope * i) for i in range(n)]
    found = trend(values)
    mean = sum(values) / n
    assert found.change == pytest.approx((values[-1] - values[0]) / mean, abs=1e-9)
    assert found.slope == pytest.approx(start * slope / mean, abs=1e-9)
    assert found.margin == pytest.approx(0, abs=1e-9)
    assert found.significant == (abs(found.change) > found.margin)


def test_trend_needs_three_values() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        trend([1.0, 1.1])


def test_drift_must_be_both_significant_and_over_two_percent() -> None:
    ramp = np.linspace(0, 1, 12)
    noise = 0.001 * np.array([0, 1, -1, 0.5, -0.5, 1, -1, 0.25, 0, 1, -1, 0])
    assert drift([float(t) for t in 1 + 0.03 * ramp + noise]) is not None
    assert drift([float(t) for t in 1 + 0.015 * ramp + noise]) is None
    assert drift([float(t) for t in 1 + 0.03 * ramp + 60 * noise]) is None
    assert drift([1.0, 1.1, 1.2, 1.3]) is None


def test_leak_finds_the_rest_of_a_slow_approach_and_its_size() -> None:
    times = approach(0.1, 5.0, 25)
    found = leak(times[:5], times[5:17])
    assert found is not None
    assert found.relative == pytest.approx(float(np.mean(times[5:17])) / 2 - 1, rel=0.15)
    assert found.matters(0.01)
    assert not found.matters(0.5)
    warm_up = WarmUp(1e9)
    warm_up.times, warm_up.status = times[:5], "steady"
    assert flags_after(warm_up, times[5:17], 0.01) == ["not_steady", "drift"]
    assert flags_after(warm_up, times[5:17], None) == ["drift"]


def test_first_trial_alone_is_never_a_leak() -> None:
    rng = np.random.default_rng(2)
    quiet = [float(t) for t in 1 + 0.001 * rng.standard_normal(20)]
    with_start, without = leak([50.0, *quiet[:4]], quiet[4:]), leak([1.0, *quiet[:4]], quiet[4:])
    assert with_start == without


def test_leak_is_silent_when_there_is_nothing_to_fit() -> None:
    assert leak([1.0], [1.0] * 10) is None
    assert leak([1.0, 1.0], [1.0, 1.0]) is None
    constant = leak([1.0] * 3, [1.0] * 8)
    assert constant is not None
    assert (constant.relative, constant.matters(0.0)) == (0.0, False)


def test_steady_noise_is_rarely_flagged() -> None:
    rng = np.random.default_rng(4)
    flagged = 0
    for _ in range(300):
        times = [float(t) for t in 2 * (1 + 0.01 * rng.standard_normal(60))]
        warm_up = feed(times, budget_s=30)
        used = len(warm_up.times)
        flagged += bool(flags_after(warm_up, times[used : used + 12], 0.01))
    assert flagged <= 30


def test_slow_approach_is_flagged_or_left_behind() -> None:
    rng = np.random.default_rng(6)
    missed = 0
    for _ in range(200):
        times = [float(t) * (1 + 0.005 * rng.standard_normal()) for t in approach(0.1, 5.0)]
        warm_up = feed(times, budget_s=20)
        used = len(warm_up.times)
        measured = times[used : used + 20]
        leaked = abs(float(np.mean(measured)) / 2 - 1) > 0.01
        missed += leaked and not flags_after(warm_up, measured, 0.01)
    assert missed <= 20


def test_approach_too_slow_for_the_warm_up_window_is_mostly_found_afterwards() -> None:
    rng = np.random.default_rng(9)
    passed = found = 0
    for _ in range(200):
        times = [float(t) * (1 + 0.01 * rng.standard_normal()) for t in approach(0.05, 5.0)]
        warm_up = feed(times, budget_s=20)
        if warm_up.status == "steady":
            used = len(warm_up.times)
            passed += 1
            found += "not_steady" in flags_after(warm_up, times[used : used + 20], 0.01)
    assert passed > 100
    assert found > passed / 2
