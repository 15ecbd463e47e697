"""Arithmetic of energies with bounds: the truth stays inside whatever is taken off or told apart."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.backends.base import Unavailable
from profiler.measure.amounts import Amount, active, added, difference, more_certain, window_for
from profiler.sensors.base import Energy

watts = st.floats(1.0, 1000.0)
shares = st.floats(0.0, 1.0)


def energy(joules: float, bound_j: float, seconds: float) -> Energy:
    return Energy(joules, bound_j, "counter_tick_interpolated", "board", 0, round(seconds * 1e9))


@settings(deadline=None)
@given(
    work_w=watts, idle_share=shares, pause_share=st.floats(0.0, 1.0), error=st.floats(-1.0, 1.0),
    pause_s=st.floats(0.0, 0.9), known=st.booleans(),
)  # fmt: skip
def test_taking_pauses_out_keeps_the_truth_within_the_bound(
    work_w: float, idle_share: float, pause_share: float, error: float, pause_s: float, known: bool
) -> None:
    idle_w = idle_share * work_w
    # Power in pauses is anywhere between idling and working, and the reading is off within its bound.
    pause_w = idle_w + pause_share * (work_w - idle_w)
    truth, pauses = work_w * 1.0, pause_w * pause_s
    bound = 0.01 * (truth + pauses)
    seen = energy(truth + pauses + error * bound, bound, 1.0 + pause_s)
    found = active(seen, 1.0, idle_w if known else None)
    assert isinstance(found, Amount)
    mean_w = (truth + pauses) / (1.0 + pause_s)
    # The one assumption: a pause takes no more than the mean of the window.
    slack = pause_s * max(0.0, pause_w - mean_w) + bound * pause_s
    assert abs(found.joules - truth) <= found.bound_j + slack + 1e-6
    assert found.seconds == pytest.approx(1.0)


def test_a_window_of_pauses_is_no_measurement() -> None:
    found = active(energy(100.0, 1.0, 10.0), 4.0, None)
    assert isinstance(found, Unavailable)
    assert found.code == "mostly_pauses"
    nothing = Energy(None, None, "none", "board", 0, 10**9, reason=Unavailable("lost_at", "gone"))
    assert active(nothing, 1.0, None) == Unavailable("lost_at", "gone")


@settings(deadline=None)
@given(
    prefill_w=watts, decode_w=watts, requests=st.integers(1, 50), prefills=st.integers(1, 50),
    first=st.floats(-1.0, 1.0), second=st.floats(-1.0, 1.0),
)  # fmt: skip
def test_decode_by_difference_is_within_its_bound(
    prefill_w: float, decode_w: float, requests: int, prefills: int, first: float, second: float
) -> None:
    whole_j, part_j = requests * (prefill_w * 0.1 + decode_w), prefills * prefill_w * 0.1
    whole = Amount(whole_j * (1 + 0.02 * first), 0.02 * whole_j, requests * 1.1)
    part = Amount(part_j * (1 + 0.02 * second), 0.02 * part_j, prefills * 0.1)
    left = difference(whole, part, requests / prefills, float(requests))
    assert left is not None or decode_w < 0.1 * prefill_w
    if left is not None:
        assert abs(left.joules - requests * decode_w) <= left.bound_j * (1 + 1e-9)
        assert left.seconds == requests


def test_nothing_left_is_no_energy() -> None:
    assert difference(Amount(10.0, 1.0, 1.0), Amount(11.0, 1.0, 1.0), 1.0, 1.0) is None


def test_a_sum_with_a_hole_is_none() -> None:
    whole = energy(10.0, 0.5, 1.0)
    assert added([whole, whole]) == Amount(20.0, 1.0, 2.0)
    assert added([whole, Energy(None, None, "none", "board", 0, 1)]) is None
    assert added([]) is None


def test_the_more_certain_amount_counts() -> None:
    rough, fine = Amount(10.0, 2.0, 1.0), Amount(11.0, 1.0, 1.0)
    assert more_certain([rough, None, fine]) is fine
    assert more_certain([None]) is None


def test_how_long_a_window_must_be() -> None:
    # 6 J uncertain at 300 W: 2% of 300 J are 6 J.
    assert window_for(energy(600.0, 6.0, 2.0), 0.02) == pytest.approx(1.0)
    assert window_for(Energy(None, None, "none", "board", 0, 1), 0.02) is None
