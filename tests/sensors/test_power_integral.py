from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simulated_reads import COUNTER, KINDS, Meter, random_profile

from profiler.sensors.base import Energy, failure_number
from profiler.sensors.power import power_energy
from profiler.sensors.ticks import Series, series

SEED = 20261123
POWER = replace(COUNTER, key="test:device/power", kind="power_instant", unit="W", scale=0.1, poll_hz=20.0)


def rows(seconds: float = 8.0, watts: float = 300.0) -> list[list[int]]:
    rng = np.random.default_rng(SEED)
    return [
        [round(at * 1e9), round(at * 1e9) + 20_000, round(10 * (watts + rng.normal())), 0]
        for at in np.arange(0.01, seconds, 0.05)
    ]


def integral(reads: Series | list[list[int]], begin_s: float, end_s: float, **options: float) -> Energy:
    reads = reads if isinstance(reads, Series) else series(reads)
    average_s = options.pop("average_s", None)
    info = replace(POWER, average_window_s=average_s)
    return power_energy(reads, info, round(begin_s * 1e9), round(end_s * 1e9), **options)


def code(energy: Energy) -> str:
    assert energy.joules is None
    assert energy.bound_j is None
    assert energy.reason is not None
    return energy.reason.code


@pytest.mark.parametrize(
    ("tick_s", "average_s", "least"),
    # What happens between readings of the moment's power is never seen; means see it all.
    [(0.02, 0.0, 0.99), (0.1, 0.0, 0.99), (0.1, 1.0, 0.99), (0.5, 1.0, 0.97)],
)
def test_the_truth_mostly_lies_inside_the_bound(tick_s: float, average_s: float, least: float) -> None:
    rng = np.random.default_rng(SEED)
    inside = 0
    for number in range(200):
        length_s = float(rng.uniform(5.1, 7.0))
        profile = random_profile(rng, KINDS[number % len(KINDS)], 12.0)
        meter = Meter(tick_s=tick_s, jitter=0.02, poll_s=0.05, average_s=average_s, noise_w=1.0)
        begin_s = float(rng.uniform(2.0, 2.5))
        energy = integral(meter.power(rng, profile, 11.0), begin_s, begin_s + length_s, average_s=average_s)
        assert energy.joules is not None, (SEED, number, energy.reason)
        assert energy.bound_j is not None
        inside += abs(energy.joules - profile.joules(begin_s, begin_s + length_s)) <= energy.bound_j
    print(f"seed {SEED}: {inside} of 200 inside")
    assert inside >= least * 200


def test_a_trailing_average_is_moved_to_where_it_belongs() -> None:
    rng = np.random.default_rng(SEED)
    profile = random_profile(rng, "phases", 14.0)
    reads = Meter(tick_s=0.1, poll_s=0.02, average_s=1.0).power(rng, profile, 13.0)
    moved = integral(reads, 3.0, 9.0, average_s=1.0)
    truth = profile.joules(3.0, 9.0)
    assert moved.joules == pytest.approx(truth, abs=moved.bound_j)
    assert moved.method == "power_integral"


def test_a_window_of_less_than_five_averages_is_refused() -> None:
    energy = integral(rows(), 1.0, 5.9, average_s=1.0)
    assert code(energy) == "window_too_short"
    assert energy.flags == ("short_window",)


def test_a_window_of_a_few_readings_is_refused() -> None:
    assert code(integral(rows(), 2.0, 2.1)) == "window_too_short"


def test_a_requested_bound_is_kept_or_refused() -> None:
    energy = integral(rows(), 2.0, 6.0, step_period_s=0.0727)
    assert energy.relative_bound is not None
    assert energy.relative_bound < 0.02
    assert code(integral(rows(), 2.0, 6.0, max_relative_bound=1e-6)) == "window_too_short"


def test_readings_in_step_with_the_work_are_flagged() -> None:
    reads = rows()
    assert "aliasing_risk" in integral(reads, 2.0, 6.0, step_period_s=0.1004).flags
    assert "aliasing_risk" not in integral(reads, 2.0, 6.0, step_period_s=0.0727).flags


def test_what_steps_may_hide_is_in_the_bound() -> None:
    """Steps as long as the time between readings look like steady power."""
    relative = {
        step: integral(rows(), 2.0, 6.0, **({} if step is None else {"step_period_s": step})).relative_bound
        or 0.0
        for step in (0.0727, None, 0.1004)
    }
    assert relative[0.0727] < relative[None] < relative[0.1004]
    assert relative[0.1004] > 0.15
    averages = [
        integral(rows(20.0), 2.0, 12.0, average_s=1.0, **options).bound_j
        for options in ({}, {"step_period_s": 0.1004})
    ]
    assert averages[0] == averages[1]  # means see everything


def test_a_pause_and_failures_are_flagged_and_a_loss_is_refused() -> None:
    reads = rows()
    paused = [row for row in reads if not 3e9 < row[0] < 4e9]
    assert "gap" in integral(paused, 2.0, 6.0).flags
    for row in reads:
        if row[0] > 4e9:
            row[3] = failure_number("lost")
    assert code(integral(reads, 2.0, 6.0)) == "lost_at"


@pytest.mark.parametrize(("watts", "expected"), [(3_700.0, "implausible"), (-50.0, "implausible")])
def test_power_that_cannot_be(watts: float, expected: str) -> None:
    assert code(integral(rows(watts=watts), 2.0, 6.0)) == expected


def test_zero_watts_is_not_measured_power() -> None:
    reads = rows()
    for row in reads:
        row[2] = 0
    assert code(integral(reads, 2.0, 6.0)) == "implausible"


def test_windows_that_are_not_covered() -> None:
    assert code(integral(rows(), 5.0, 9.0)) == "window_not_covered"
    assert code(integral(rows(), -1.0, 4.0)) == "window_not_covered"
    assert code(integral([], 2.0, 4.0)) == "no_samples"
    assert code(integral(rows(), 4.0, 4.0)) == "not_in_order"
