from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.backends.base import CounterPart, EnergyReading, Unavailable
from profiler.sensors.energy import MAX_PACKAGE_POWER_W, joules_between

WRAP = 65_712.999613


def read(joules: float, seconds: float, wraps_at: float | None = None, source: str = "test") -> EnergyReading:
    return EnergyReading(joules, round(seconds * 1e9), wraps_at, source, "package")


def code(answer: float | Unavailable) -> str:
    assert isinstance(answer, Unavailable)
    return answer.code


def test_the_difference_of_two_reads() -> None:
    assert joules_between(read(100.0, 1), read(340.5, 2)) == pytest.approx(240.5)


def test_one_wrap_is_bridged() -> None:
    assert joules_between(read(WRAP - 100, 1, WRAP), read(50, 2, WRAP)) == pytest.approx(150.0)


@pytest.mark.parametrize("after", [0.0, 10.0, 4_800.0])
def test_a_reset_or_a_step_back_is_not_taken_for_a_wrap(after: float) -> None:
    for wraps_at in (WRAP, None):
        assert code(joules_between(read(5_000, 1, wraps_at), read(after, 2, wraps_at))) == "counter_reset"


def test_a_counter_that_did_not_move_has_not_measured_0_joules() -> None:
    assert code(joules_between(read(5, 1), read(5, 1.01))) == "same_tick"


def test_reads_in_the_wrong_order_or_at_the_same_moment() -> None:
    assert code(joules_between(read(5, 2), read(6, 1))) == "not_in_order"
    assert code(joules_between(read(5, 1), read(6, 1))) == "not_in_order"


def test_reads_of_different_counters() -> None:
    assert code(joules_between(read(5, 1), read(6, 2, source="other"))) == "different_counters"
    two = EnergyReading(6, 2 * 10**9, None, "test", "package", (CounterPart("a", 6, None),))
    assert code(joules_between(read(5, 1), two)) == "different_counters"


def test_reads_so_far_apart_that_wraps_may_be_missed() -> None:
    seconds = WRAP / MAX_PACKAGE_POWER_W
    answer = joules_between(read(5, 0, WRAP), read(900, seconds + 1, WRAP))
    assert code(answer) == "window_too_long"
    assert joules_between(read(5, 0, WRAP), read(900, seconds - 1, WRAP)) == pytest.approx(895.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_values_that_no_counter_shows(value: float) -> None:
    assert code(joules_between(read(5, 1), read(value, 2))) == "implausible"
    assert code(joules_between(read(value, 1), read(5, 2))) == "implausible"


def test_a_jump_that_no_cpu_can_use() -> None:
    assert code(joules_between(read(5, 1, WRAP), read(5_000, 2, WRAP))) == "implausible"


counters = st.floats(0, WRAP, allow_nan=False)


@given(counters, counters, st.floats(1e-3, 1e4), st.sampled_from([WRAP, None]))
def test_an_energy_is_positive_and_possible_or_there_is_none(
    before: float, after: float, seconds: float, wraps_at: float | None
) -> None:
    answer = joules_between(read(before, 1, wraps_at), read(after, 1 + seconds, wraps_at))
    if isinstance(answer, Unavailable):
        assert answer.text
        return
    assert answer > 0
    if wraps_at is not None:
        assert answer <= seconds * MAX_PACKAGE_POWER_W * 1.000001


@given(counters, st.floats(1.0, MAX_PACKAGE_POWER_W * 0.99), st.floats(0.01, 60.0))
def test_the_truth_comes_back_through_any_one_wrap(start: float, power_w: float, seconds: float) -> None:
    truth = power_w * seconds
    end = (start + truth) % WRAP
    answer = joules_between(read(start, 1, WRAP), read(end, 1 + seconds, WRAP))
    assert answer == pytest.approx(truth, abs=1e-6)


@given(st.lists(st.tuples(counters, st.floats(1.0, 900.0)), min_size=1, max_size=4))
def test_several_counters_are_unwrapped_one_by_one(zones: list[tuple[float, float]]) -> None:
    def summed(values: list[float], seconds: float) -> EnergyReading:
        parts = tuple(CounterPart(f"z{at}", value, WRAP) for at, value in enumerate(values))
        return EnergyReading(sum(values), round(seconds * 1e9), None, "zones", "package", parts)

    first = summed([start for start, _ in zones], 1)
    second = summed([(start + power_w * 10) % WRAP for start, power_w in zones], 11)
    assert joules_between(first, second) == pytest.approx(sum(power_w for _, power_w in zones) * 10)
