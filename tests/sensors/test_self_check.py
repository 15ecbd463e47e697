from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simulated_reads import COUNTER, Meter, random_profile

from profiler.backends.base import Unavailable
from profiler.sensors.self_check import self_check
from profiler.sensors.ticks import Series, series

SEED = 20261123
POWER = replace(COUNTER, key="test:device/power", kind="power_instant", unit="W", scale=0.1, poll_hz=20.0)


def reads() -> tuple[Series, Series]:
    """Three seconds of a counter and of a power sensor of the same device."""
    rng = np.random.default_rng(SEED)
    profile = random_profile(rng, "steady", 4.0)
    return (
        Meter().counter(rng, profile, 3.5),
        Meter(tick_s=0.05, poll_s=0.05, noise_w=2.0).power(rng, profile, 3.5),
    )


def test_what_a_healthy_counter_is_worth() -> None:
    counter, power = reads()
    check = self_check(COUNTER, counter, (POWER, power))
    assert check.unavailable is None
    assert check.flags == ()
    assert check.tick_s == pytest.approx(0.1, rel=0.05)
    assert check.call_median_s == pytest.approx(35e-6, rel=0.3)
    assert check.call_p99_s is not None
    assert check.call_p99_s <= 60e-6
    assert check.counter_to_power == pytest.approx(1.0, abs=0.03)
    assert check.relative_bound_1s is not None
    assert 0.001 < check.relative_bound_1s < 0.05
    assert check.failed == 0


def test_power_sensors_are_judged_too() -> None:
    _, power = reads()
    check = self_check(POWER, power)
    assert check.power_mean_w is not None
    assert check.relative_bound_1s is not None
    assert check.counter_to_power is None


def test_counter_and_power_that_disagree() -> None:
    counter, power = reads()
    tenfold = replace(POWER, scale=1.0, max_power_w=10_000.0)
    assert "sensor_disagrees" in self_check(COUNTER, counter, (tenfold, power)).flags


def test_more_power_than_the_limit_allows() -> None:
    counter, _ = reads()
    power = np.diff(counter.raw).sum() * 1e-3 / 3.5
    assert "implausible" in self_check(replace(COUNTER, max_power_w=float(power) / 1.3), counter).flags


def test_a_counter_that_never_moves_and_one_that_is_never_read() -> None:
    rows = [(at * 10_000_000, at * 10_000_000 + 1000, 7, 0) for at in range(400)]
    stuck = self_check(COUNTER, series(rows))
    assert stuck.unavailable is not None
    assert stuck.unavailable.code == "stuck_counter"
    silent = self_check(COUNTER, series([]))
    assert silent.unavailable is not None
    assert silent.unavailable.code == "no_samples"
    missing = Unavailable("permission", "no")
    assert self_check(replace(COUNTER, unavailable=missing), series([])).unavailable == missing
