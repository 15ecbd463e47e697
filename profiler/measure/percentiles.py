"""Percentiles of latencies that may be claimed: MLPerf's early-stopping bound.

Source: MLPerf Inference rules, appendix "Early stopping criterion", and ``loadgen/early_stopping.cc``
with confidence 0.99 and tolerance 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from profiler.measure.distributions import binomial_cdf


@dataclass(frozen=True)
class PercentileBound:
    """An upper confidence bound on a percentile, or why there is none.

    Attributes:
        value: the bound, in the unit of the latencies, or None.
        percentile: 90 for p90.
        n: requests that entered, failed ones included.
        over: requests allowed to be slower than the percentile (t); the t - 1 slowest are discarded.
        reason: why there is no value, or None.
    """

    value: float | None
    percentile: float
    n: int
    over: int
    reason: str | None = None


def _check(percentile: float, confidence: float) -> None:
    if not (1 < percentile < 100 and 0 < confidence < 1):
        raise ValueError(
            f"a percentile lies between 1 and 100 (99 for p99) and a confidence between 0 and 1, "
            f"got {percentile} and {confidence}"
        )


def required_requests(percentile: float, over: int = 1, confidence: float = 0.99) -> int:
    """Fewest requests from which ``over`` may exceed the percentile: MLPerf's n_min(t).

    Raises:
        ValueError: an argument is out of range.
    """
    _check(percentile, confidence)
    if over < 0:
        raise ValueError(f"requests over the percentile must be at least 0, got {over}")
    miss = 1 - percentile / 100
    low, high = over, over + 1
    while binomial_cdf(over, high, miss) > 1 - confidence:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if binomial_cdf(over, middle, miss) > 1 - confidence else (low, middle)
    return high


def percentile_upper_bound(
    latencies: ArrayLike, percentile: float, confidence: float = 0.99
) -> PercentileBound:
    """Upper bound on a percentile that holds with ``confidence`` for independent requests.

    The largest t is taken for which P(at most t of n over) <= 1 - confidence if the chance of being
    over were 1 - percentile/100; the t - 1 slowest requests are discarded and the slowest of the rest
    is the bound. Requests that wait for each other are not independent, and the bound is then too low
    (docs/method.md).

    Args:
        latencies: one per request; ``math.inf`` for a request that failed.
        percentile: 90 for p90.
        confidence: probability that the bound is not below the true percentile.

    Raises:
        ValueError: a latency is NaN or not positive, or an argument is out of range.
    """
    _check(percentile, confidence)
    array = np.sort(np.asarray(latencies, dtype=np.float64).ravel())[::-1]
    if np.isnan(array).any() or (array <= 0).any():
        raise ValueError("latencies must be positive; use infinity for a failed request")
    n, miss = array.size, 1 - percentile / 100
    low, high = (
        0,
        n + 1,
    )  # the chance of at most t over grows with t: the last t that passes is in [low, high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if binomial_cdf(middle, n, miss) <= 1 - confidence else (low, middle)
    if low < 1:
        needed = required_requests(percentile, 1, confidence)
        reason = f"p{percentile:g} needs {needed} requests, {n} were measured"
        return PercentileBound(None, percentile, n, 0, reason)
    bound = float(array[low - 1])
    if math.isinf(bound):
        failed = int(np.isinf(array).sum())
        reason = f"{failed} of {n} requests failed, so p{percentile:g} falls on a failed one"
        return PercentileBound(None, percentile, n, low, reason)
    return PercentileBound(bound, percentile, n, low)


def percentile_lower_bound(latencies: ArrayLike, percentile: float, confidence: float = 0.99) -> float | None:
    """Lower bound on a percentile that holds with ``confidence`` for independent requests.

    The smallest k is taken for which P(at least k of n over) <= 1 - confidence if the chance of being over
    were 1 - percentile/100; so many being over shows that the percentile is, and the k-th slowest request is
    the bound. It needs far fewer requests than the upper bound: three of three slow ones show that p90 is.

    Args:
        latencies: one per request; ``math.inf`` for a request that failed.
        percentile: 90 for p90.
        confidence: probability that the bound is not above the true percentile.

    Returns:
        The bound, ``math.inf`` where it falls on a failed request, or None from too few requests.

    Raises:
        ValueError: a latency is NaN or not positive, or an argument is out of range.
    """
    _check(percentile, confidence)
    array = np.sort(np.asarray(latencies, dtype=np.float64).ravel())[::-1]
    if np.isnan(array).any() or (array <= 0).any():
        raise ValueError("latencies must be positive; use infinity for a failed request")
    n, miss = array.size, 1 - percentile / 100
    low, high = 0, n + 1  # too many with `low`, and with n + 1 trivially few enough
    while high - low > 1:
        middle = (low + high) // 2
        enough = 1 - binomial_cdf(middle - 1, n, miss) <= 1 - confidence
        low, high = (low, middle) if enough else (middle, high)
    return None if high > n else float(array[high - 1])
