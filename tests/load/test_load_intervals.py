"""Intervals within one load: when there is one, what it holds, and that failures count as infinitely slow."""

from __future__ import annotations

import numpy as np
import pytest
from load_runs import ttfts
from load_tables import table_of

from profiler.load.latency import ttft_s
from profiler.load.summary import measurements
from profiler.measure.batch_means import percentile_interval


def test_enough_requests_have_intervals_that_hold_the_truth() -> None:
    found = measurements(table_of(ttfts(2000, 100.0)), 1)
    for name, truth in (("ttft_s", 0.1 * np.exp(0.02)), ("ttft_p50_s", 0.1), ("ttft_p90_observed_s", 0.1292)):
        interval = found[name].ci95
        assert interval is not None
        assert interval[0] < truth < interval[1]
        assert found[name].scope == "one_load"
    # 2,000 requests have twenty beyond p99, too few for ten batches.
    assert found["ttft_p99_observed_s"].ci95 is None
    assert found["ttft_p99_s"].value >= found["ttft_p99_observed_s"].value  # type: ignore[operator]
    assert found["ttft_p99_s"].ci95 is None


def test_few_requests_have_values_without_intervals() -> None:
    found = measurements(table_of(ttfts(50, 100.0)), 1)
    assert found["ttft_p50_s"].value == pytest.approx(0.1, rel=0.15)
    assert found["ttft_p50_s"].ci95 is found["ttft_s"].ci95 is None
    assert "needs 100 requests, 50 were measured" in (found["ttft_p99_observed_s"].reason or "")
    assert measurements(table_of([50.0]), 1)["ttft_p50_s"].value == pytest.approx(0.05)


def test_failed_requests_are_infinitely_slow_in_percentiles() -> None:
    requests = table_of(ttfts(300, 100.0), failed=60)
    found = measurements(requests, 1)
    plain = np.quantile(np.append(ttft_s(requests)[:300], [np.inf] * 60), 0.5, method="inverted_cdf")
    assert found["ttft_p50_s"].value == pytest.approx(plain)
    assert found["ttft_p90_observed_s"].reason == "10% of the requests failed"
    assert found["ttft_s"].n == 300


def test_infinite_batches_leave_the_value_and_no_interval() -> None:
    values = np.append(np.full(180, 0.1), np.full(20, np.inf))
    found = percentile_interval(values, 50)
    assert (found.mean, found.interval) == (0.1, None)
    assert "failed" in (found.reason or "")


def test_steady_throughput_has_an_interval_once_slices_are_longer_than_requests() -> None:
    long = measurements(table_of(ttfts(400, 100.0)), 1)["output_tokens_per_s_steady"]
    assert long.ci95 is not None
    assert long.value is not None
    assert long.ci95[0] < long.value < long.ci95[1]
    # One request at a time: 11 tokens every (TTFT + 10 gaps of 10 ms).
    truth = 11 / (0.1 * np.exp(0.02) + 0.1)
    assert long.ci95[0] < truth < long.ci95[1]
    assert "20 slices" in long.method
    assert measurements(table_of(ttfts(15, 100.0)), 1)["output_tokens_per_s_steady"].ci95 is None
