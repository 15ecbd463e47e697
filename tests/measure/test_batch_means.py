"""Percentiles from batches: what they promise is checked on latencies whose true percentile is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.measure.batch_means import (
    percentile_interval,
    rate_interval_from_slices,
    request_mean_interval,
    requests_needed,
)

Z = {
    50: 0.0,
    90: 1.2815515655446004,
    99: 2.3263478740408408,
}  # published quantiles of the normal distribution


def latencies(runs: int, n: int, phi: float, seed: int) -> np.ndarray:
    """Lognormal latencies whose logarithms are a first-order autoregression with variance 1."""
    noise = np.random.default_rng(seed).standard_normal((runs, n))
    for i in range(1, n):
        noise[:, i] = phi * noise[:, i - 1] + math.sqrt(1 - phi * phi) * noise[:, i]
    return np.exp(noise)


@pytest.mark.parametrize(("percentile", "phi"), [(50, 0.0), (50, 0.9), (90, 0.9), (99, 0.9)])
def test_intervals_cover_the_true_percentile_of_dependent_latencies(percentile: int, phi: float) -> None:
    n = max(2000, requests_needed(percentile))
    truth = math.exp(Z[percentile])
    found = [percentile_interval(row, percentile) for row in latencies(150, n, phi, percentile)]
    covered = sum(
        one.low <= truth <= one.high for one in found if one.low is not None and one.high is not None
    )
    # 95% of 150 are 142; three standard errors below that are 134.
    assert covered >= 134


def test_independence_would_promise_too_much() -> None:
    """The same latencies, cut into single requests by the order statistics' binomial interval."""
    n, truth, covered = 2000, math.exp(Z[90]), 0
    half = 1.96 * math.sqrt(n * 0.9 * 0.1)
    for row in np.sort(latencies(150, n, 0.9, 90), axis=1):
        covered += bool(row[int(0.9 * n - half)] <= truth <= row[int(0.9 * n + half)])
    assert covered < 110


@pytest.mark.parametrize(("percentile", "needed"), [(50, 200), (90, 1000), (95, 2000), (99, 10_000)])
def test_too_few_requests_have_a_value_and_no_interval(percentile: int, needed: int) -> None:
    assert requests_needed(percentile) == needed
    few = percentile_interval(np.ones(needed - 1), percentile)
    assert (few.mean, few.interval) == (1.0, None)
    assert few.reason is not None
    assert str(needed) in few.reason
    assert percentile_interval(np.ones(needed), percentile).interval is not None


@given(st.integers(200, 400), st.sampled_from([0.25, 4.0]))
@settings(deadline=None, max_examples=25)
def test_the_unit_does_not_matter(n: int, factor: float) -> None:
    row = latencies(1, n, 0.5, n)[0]
    one, other = percentile_interval(row, 50), percentile_interval(row * factor, 50)
    assert other.mean == pytest.approx(factor * one.mean)
    assert one.high is not None
    assert other.high == pytest.approx(factor * one.high)


@pytest.mark.parametrize("bad", [0, 100, -1, math.nan])
def test_what_is_no_percentile_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 100"):
        percentile_interval([1.0] * 500, bad)


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("n", [100, 1000])
def test_intervals_of_means_cover_the_true_mean(n: int, phi: float) -> None:
    truth = math.exp(0.5)
    found = [request_mean_interval(row) for row in latencies(200, n, phi, n)]
    covered = sum(
        one.low <= truth <= one.high for one in found if one.low is not None and one.high is not None
    )
    # 95% of 200 are 190; three standard errors below that are 181.
    assert covered >= 181


def test_a_mean_of_few_requests_has_no_interval() -> None:
    few = request_mean_interval([2.0] * 99)
    assert (few.mean, few.interval) == (2.0, None)
    assert "100" in (few.reason or "")


@pytest.mark.parametrize("slice_in_tau", [1, 3])
def test_rates_from_slices_cover_the_truth_when_speed_drifts(slice_in_tau: int) -> None:
    """The speed of a server wanders with the correlation time of a request; slices are at least as long."""
    steps, rng = 10, np.random.default_rng(slice_in_tau)
    noise = rng.standard_normal((200, 20 * slice_in_tau * steps))
    phi = math.exp(-1 / steps)
    for i in range(1, noise.shape[1]):
        noise[:, i] = phi * noise[:, i - 1] + math.sqrt(1 - phi * phi) * noise[:, i]
    slices = (1 + 0.1 * noise).reshape(200, 20, -1).mean(axis=2)
    found = [rate_interval_from_slices(float(row.mean()), row, 1) for row in slices]
    covered = sum(one.low <= 1 <= one.high for one in found if one.low is not None and one.high is not None)
    assert covered >= 181


def test_a_slice_without_anything_leaves_no_interval() -> None:
    found = rate_interval_from_slices(5.0, [10.0, 0.0] * 10, 7)
    assert (found.mean, found.interval, found.n) == (5.0, None, 7)
