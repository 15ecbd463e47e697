from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from profiler.measure.interference import SMALLEST_TOLERANCE, interference_flag, tolerance

bandwidths = st.floats(min_value=1e9, max_value=5e12)


def test_a_quiet_box_is_held_to_five_percent() -> None:
    assert tolerance([50e9, 50.1e9, 49.9e9, 50e9]) == SMALLEST_TOLERANCE


def test_a_restless_box_is_judged_by_its_own_movement() -> None:
    # Median 50, deviations 0, 5, 5, 10, 10 -> MAD 5: three times that is 30%.
    assert tolerance([50.0, 45.0, 55.0, 40.0, 60.0]) == 0.3


@given(idle=bandwidths, factor=st.floats(0.98, 1.03), other=st.floats(0.98, 1.0))
def test_within_the_tolerance_nothing_is_flagged(idle: float, factor: float, other: float) -> None:
    assert interference_flag(idle * factor, idle * factor * other, idle, 0.05) is None


@given(idle=bandwidths, loss=st.floats(0.06, 0.95))
def test_a_loss_during_the_case_is_flagged_with_its_size(idle: float, loss: float) -> None:
    flag = interference_flag(idle, idle * (1 - loss), idle, 0.05)
    assert flag is not None
    assert flag.code == "interference"
    assert f"{idle * (1 - loss) / idle - 1:+.0%}" in flag.text


def test_a_box_that_was_slow_before_and_after_is_flagged_too() -> None:
    flag = interference_flag(40e9, 40e9, 50e9, 0.05)
    assert flag is not None
    assert "-20% from idle" in flag.text
