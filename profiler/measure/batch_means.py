"""Intervals for percentiles of latencies that follow each other, from batches of consecutive requests.

Requests that share a server's batches or queue are not independent, so neither the spread of single
latencies nor the binomial bound of :mod:`profiler.measure.percentiles` is a promise about the next run.
Over long enough stretches the dependence dies out: percentiles of consecutive batches are nearly independent.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from profiler.measure.distributions import student_t_quantile
from profiler.measure.stats import CONFIDENCE, Estimate, checked

BATCHES = 10
"""Enough for Student's t with 9 degrees of freedom, few enough that batches are long."""

BEYOND = 10
"""Requests of each batch that must lie beyond the percentile; with fewer, batches' percentiles are biased."""


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

    The value is the percentile of all requests; its standard error comes from the deviations of ten
    consecutive batches from it (sectioning: Asmussen and Glynn, Stochastic Simulation, 2007, III.5a;
    Nakayama, Confidence intervals for quantiles using sectioning, 2014), with Student's t for 9 degrees
    of freedom. Requests left over by the division are at the beginning and enter the value only.

    Args:
        latencies: seconds of successful requests, in the order in which they ended.
        percentile: e.g. 99.

    Returns:
        The estimate; without an interval, and with the reason, from too few requests.

    Raises:
        ValueError: there is none, one is not a positive finite number, or no such percentile exists.
    """
    needed = requests_needed(percentile)
    array = checked(latencies, "latencies")
    n = array.size
    value = float(np.quantile(array, percentile / 100))
    if n < needed:
        reason = f"{n} requests; an interval for p{percentile:g} from batches needs {needed}"
        return Estimate(value, None, None, n, None, None, "none", reason)
    batches = array[n % BATCHES :].reshape(BATCHES, -1)
    deviations = np.quantile(batches, percentile / 100, axis=1) - value
    error = math.sqrt(float(deviations @ deviations) / (BATCHES - 1) / BATCHES)
    half = student_t_quantile((1 + CONFIDENCE) / 2, BATCHES - 1) * error
    reason = "batches of consecutive requests are taken as independent"
    return Estimate(
        value, value - half, value + half, n, float(BATCHES), None, "student_t_over_batches", reason
    )
