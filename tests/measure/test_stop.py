"""The stop rule: when it looks, why it stops, and that the simulated rule is the real one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ci_coverage import run_rule, unit_noise
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.measure.stats import LOOKS, critical_value, mean_interval
from profiler.measure.stop import FIRST_LOOK_SHARE, LEAST_MEASURED_S, decide, least_measured_s


def wobble(n: int, size: float) -> list[float]:
    """A series without neighbours that agree, with spread in proportion to ``size``."""
    return [1 + size * s for s in ([0.0, 1.0, -1.0, 0.5, -0.5, 1.0, -1.0, 0.25] * 3)[:n]]


def test_stops_at_a_look_once_the_interval_is_narrow_enough() -> None:
    for n in LOOKS[1:]:
        found = decide(wobble(n, 1e-4), 0.01)
        assert (found.stop, found.reason, found.target_met, found.flags) == (True, "target_reached", True, ())


def test_goes_on_between_looks_however_narrow_the_interval() -> None:
    for n in range(1, LOOKS[0]):
        found = decide(wobble(n, 1e-9), 0.01)
        assert (found.stop, found.reason) == (False, "between_looks")


def test_what_a_look_has_settled_stays_settled_and_nothing_is_settled_between_looks() -> None:
    settled_at_the_second = [*wobble(LOOKS[1], 1e-3), *wobble(LOOKS[2], 0.2)]
    for n in range(LOOKS[1], LOOKS[2]):
        assert decide(settled_at_the_second[:n], 0.01).reason == "target_reached"
    wide = wobble(LOOKS[1], 0.2)
    for n in range(LOOKS[1] + 1, LOOKS[2]):
        assert decide([*wide, *[1.0] * (n - len(wide))], 0.01).reason == "between_looks"


def test_short_trials_are_measured_for_longer_but_not_beyond_the_share_of_warm_up() -> None:
    assert least_measured_s(100.0, 0.25) == LEAST_MEASURED_S
    assert least_measured_s(4.0, 0.25) == 1.0


def test_goes_on_when_the_interval_is_too_wide_and_gives_up_at_the_last_look() -> None:
    for n in LOOKS[:-1]:
        assert decide(wobble(n, 0.2), 0.01).reason == "too_wide"
    for n in (LOOKS[-1], LOOKS[-1] + 3):
        found = decide(wobble(n, 0.2), 0.01)
        assert (found.stop, found.reason, found.target_met) == (True, "last_look", False)


def test_five_trials_only_settle_what_is_far_below_the_target() -> None:
    times = wobble(5, 1e-3)
    width = mean_interval(times).relative_half_width
    assert width is not None
    assert decide(times, width / FIRST_LOOK_SHARE * 1.001).reason == "target_reached"
    close = decide(times, width / FIRST_LOOK_SHARE * 0.999)
    assert (close.reason, close.target_met) == ("too_wide", True)


def test_time_up_stops_at_any_number_of_trials_and_flags_few() -> None:
    for n in range(1, 20):
        found = decide(wobble(n, 0.2), 0.001, time_left_s=0.5)
        assert (found.stop, found.reason) == (True, "out_of_time")
        assert found.flags == (("few_trials",) if n < 5 else ())
        assert (found.estimate.interval is None) == (n == 1)


def test_time_left_is_compared_with_what_the_next_trial_takes() -> None:
    times = wobble(6, 0.2)
    assert not decide(times, 0.001, time_left_s=1.1).stop
    assert decide(times, 0.001, time_left_s=1.1, next_trial_s=2.0).stop
    assert decide(times, 0.001, time_left_s=-3.0).stop


def test_precision_wins_over_time_as_the_reason() -> None:
    assert decide(wobble(8, 1e-6), 0.01, time_left_s=0.0).reason == "target_reached"


@pytest.mark.parametrize("target", [0.0, -0.01, math.nan, math.inf])
def test_target_must_be_a_positive_number(target: float) -> None:
    with pytest.raises(ValueError, match="target half-width"):
        decide([1.0, 1.1], target)


def test_nan_is_refused_in_times_and_time_left() -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        decide([1.0, math.nan], 0.01)
    with pytest.raises(ValueError, match="time left is NaN"):
        decide([1.0, 1.1], 0.01, time_left_s=math.nan)
    with pytest.raises(ValueError, match="at least one number"):
        decide([], 0.01)


@given(
    times=st.lists(st.floats(0.5, 2.0), min_size=1, max_size=25),
    target=st.floats(1e-4, 1.0),
    factor=st.sampled_from([2.0, 0.25, 1024.0]),
)
@settings(deadline=None)
def test_decision_does_not_depend_on_the_unit_of_time(
    times: list[float], target: float, factor: float
) -> None:
    one, other = decide(times, target), decide([t * factor for t in times], target)
    assert (one.stop, one.reason, one.flags) == (other.stop, other.reason, other.flags)


@given(times=st.lists(st.floats(0.9, 1.1), min_size=5, max_size=20), target=st.floats(0.001, 0.2))
@settings(deadline=None)
def test_a_wider_target_never_asks_for_more_trials(times: list[float], target: float) -> None:
    if decide(times, target).stop:
        assert decide(times, 2 * target).stop


def test_simulated_rule_stops_where_decide_does_and_covers_alike() -> None:
    times = 1 + 0.01 * unit_noise(200, LOOKS[-1], 0.3, np.random.default_rng(8))
    outcome = run_rule(times, 0.01)
    for row, n, covered, width in zip(
        times, outcome.n, outcome.covered, outcome.relative_half_width, strict=True
    ):
        stopped = next(d for d in (decide(row[:k], 0.01) for k in range(1, 21)) if d.stop)
        found = stopped.estimate
        assert found.n == n
        assert found.relative_half_width == pytest.approx(width)
        assert found.low is not None
        assert found.high is not None
        assert (found.low <= 1 <= found.high) == covered


def test_looking_costs_width() -> None:
    assert critical_value(20) > 2.093  # Student's t for a single look at 20
