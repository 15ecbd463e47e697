"""Intervals for latencies and rates of requests that follow each other, from batches of consecutive ones.

Requests that share a server's batches or queue are not independent, so neither the spread of single
latencies nor the binomial bound of :mod:`profiler.measure.percentiles` is a promise about the next run.
Over long enough stretches the dependence dies out: batches of consecutive requests are nearly independent,
and what is left of their dependence is estimated from them (:func:`profiler.measure.stats.mean_interval`).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from profiler.measure.distributions import student_t_quantile
from profiler.measure.stats import CONFIDENCE, Estimate, checked, mean_interval

BATCHES = 10
"""Of a percentile: enough for Student's t with 9 degrees of freedom, few enough that batches are long."""

BEYOND = 10
"""Requests of each batch that must lie beyond the percentile; with fewer, batches' percentiles are biased."""

MEAN_BATCHES = 20
"""Of a mean: enough to see how far neighbours depend on each other."""

PER_MEAN_BATCH = 5
"""Requests in each batch of a mean."""


def requests_needed(percentile: float) -> int:
    """Return from how many requests on :func:`percentile_interval` gives an interval.

    Raises:
        ValueError: the percentile is not between 0 and 100.
    """
    if not 0 < percentile < 100:
        raise ValueError(f"a percentile lies between 0 and 100, got {percentile}")
    tail = min(percentile, 100 - percentile) / 100
    return BATCHES * math.ceil(BEYOND / tail - 1e-9)


def percentile_interval(latencies: ArrayLike, percentile: float) -> Estimate:
    """Return a percentile with its 95% interval by sectioning.

    The value is the percentile of all requests, the least that so many of them do not exceed; its
    standard error comes from the deviations of ten
    consecutive batches from it (sectioning: Asmussen and Glynn, Stochastic Simulation, 2007, III.5a;
    Nakayama, Confidence intervals for quantiles using sectioning, 2014), with Student's t for 9 degrees
    of freedom. Requests left over by the division are at the beginning and enter the value only.

    Args:
        latencies: seconds of requests, in the order in which they ended; infinity for a failed one.
        percentile: e.g. 99.

    Returns:
        The estimate; infinite where it falls on a failed request, and without an interval, and with the
        reason, there and from too few requests.

    Raises:
        ValueError: there is none, one is not a positive number, or no such percentile exists.
    """
    needed = requests_needed(percentile)
    array = np.asarray(latencies, dtype=np.float64)
    failed = np.isposinf(array)
    checked(np.where(failed, 1.0, array), "latencies")
    n = array.size
    value = _quantile(array, percentile)
    if n < needed:
        reason = f"{n} requests; an interval for p{percentile:g} from batches needs {needed}"
        return Estimate(value, None, None, n, None, None, "none", reason)
    batches = array[n % BATCHES :].reshape(BATCHES, -1)
    own = np.array([_quantile(batch, percentile) for batch in batches])
    if not np.isfinite(own).all() or not math.isfinite(value):
        reason = f"p{percentile:g} of some batches falls on failed requests"
        return Estimate(value, None, None, n, None, None, "none", reason)
    deviations = own - value
    error = math.sqrt(float(deviations @ deviations) / (BATCHES - 1) / BATCHES)
    half = student_t_quantile((1 + CONFIDENCE) / 2, BATCHES - 1) * error
    reason = "batches of consecutive requests are taken as independent"
    return Estimate(
        value, value - half, value + half, n, float(BATCHES), None, "student_t_over_batches", reason
    )


def _quantile(array: NDArray[np.float64], percentile: float) -> float:
    # Without interpolation, which makes no sense between a number and infinity.
    return float(np.quantile(array, percentile / 100, method="inverted_cdf"))


def request_mean_interval(latencies: ArrayLike) -> Estimate:
    """Return the mean of latencies with its 95% interval from the means of twenty consecutive batches.

    What dependence there is between neighbouring batches is allowed for as between trials of a start.
    Requests left over by the division are at the beginning and enter the value only.

    Args:
        latencies: seconds of successful requests, in the order in which they ended.

    Returns:
        The estimate; without an interval, and with the reason, from fewer than 100 requests.

    Raises:
        ValueError: there is none, or one is not a positive finite number.
    """
    array = checked(latencies, "latencies")
    n, mean = array.size, float(array.mean())
    needed = MEAN_BATCHES * PER_MEAN_BATCH
    if n < needed:
        reason = f"{n} requests; an interval for their mean from batches needs {needed}"
        return Estimate(mean, None, None, n, None, None, "none", reason)
    return _about(mean, n, array[n % MEAN_BATCHES :].reshape(MEAN_BATCHES, -1).mean(axis=1))


def rate_interval_from_slices(rate: float, slices: ArrayLike, n: int) -> Estimate:
    """Return a rate over a window with its 95% interval from the rates of equal slices of the window.

    Args:
        rate: of the whole window.
        slices: rates of consecutive slices of equal length.
        n: what the rate counts, for the record.

    Returns:
        The estimate; without an interval, and with the reason, where nothing happened in a slice.
    """
    array = np.asarray(slices, dtype=np.float64)
    if not (array > 0).all():
        reason = "nothing arrived in a slice of the window, so its rate varies too much for an interval"
        return Estimate(rate, None, None, n, None, None, "none", reason)
    return _about(rate, n, array)


def _about(value: float, n: int, batches: NDArray[np.float64]) -> Estimate:
    """Return the interval that the mean of batches has, laid round the value of everything."""
    over = mean_interval(batches)
    assert over.low is not None
    half = over.mean - over.low
    return Estimate(
        value, value - half, value + half, n, over.n_effective, over.rho, "serial_t_over_batches", over.reason
    )
