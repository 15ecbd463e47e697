"""Statistics of trial times: means with intervals that hold for short, autocorrelated series.

The reasons, the derivations and the coverage reached are in ``docs/method.md``; the tables there
come from ``benchmarks/ci_coverage.py``, and so do the calibrated constants here
(``benchmarks/ci_coverage.py --calibrate``). Everything is a pure function of its arguments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from profiler.measure.distributions import student_t_quantile

CONFIDENCE = 0.95
LOOKS = (5, 8, 12, 20)
"""Numbers of trials at which a series may be ended because it is precise enough."""

SERIAL_MIN_TRIALS = LOOKS[0]
"""From here on the autocorrelation of the series enters its interval; below it is assumed, not estimated."""

# Calibrated on 40,000 simulated runs per cell; see "Looking" in docs/method.md.
CRITICAL_AT_LOOK = {5: 8.1, 8: 8.1, 12: 5.0, 20: 2.57}
FEW_TRIALS_FACTOR = 1.5  # widens Student's t for n = 2..4, where nothing can be said about autocorrelation
STRETCH_MAX, STRETCH_SLOPE = 3.5, 20.0
SERIAL_Z_MAX = 1.5  # a standard error is never widened beyond exp(1.5): n_effective >= n / 20
FLOOR_OF_STUDENT = 0.5  # alternating trials never make an interval narrower than half of Student's


@dataclass(frozen=True)
class Interval:
    """Both ends of a 95% confidence interval, in the unit of the value it belongs to."""

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% confidence interval and how it came about.

    Attributes:
        mean: the arithmetic mean (for rates: work divided by the mean time).
        low: lower end, or None when there is no interval.
        high: upper end, or None when there is no interval.
        n: trials (or starts) that entered.
        n_effective: independent trials that would say as much, as assumed or estimated; above n where
            neighbouring trials alternate; None where it is not defined.
        rho: lag-1 autocorrelation of the trials plus 1/n, its bias when there is none; None where it is
            not estimated.
        method: ``student_t_widened``, ``serial_t``, ``student_t_over_starts``, or ``none`` when there is
            no interval.
        reason: why something above is None; None when nothing is.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    n_effective: float | None
    rho: float | None
    method: str
    reason: str | None = None

    @property
    def interval(self) -> Interval | None:
        """Both ends, or None when there is no interval."""
        return None if self.low is None or self.high is None else Interval(self.low, self.high)

    @property
    def relative_half_width(self) -> float | None:
        """Half the width of the interval divided by the mean, or None when there is no interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2 / abs(self.mean)


@dataclass(frozen=True)
class SeriesWidths:
    """What :func:`series_widths` finds; arrays with the leading shape of its input.

    Attributes:
        mean: mean over the last axis.
        half_width: half-width of the 95% interval.
        rho: bias-corrected lag-1 autocorrelation, NaN where the series is constant.
        n_effective: see :class:`Estimate`; NaN where the series is constant.
    """

    mean: NDArray[np.float64]
    half_width: NDArray[np.float64]
    rho: NDArray[np.float64]
    n_effective: NDArray[np.float64]


def checked(values: ArrayLike, what: str) -> NDArray[np.float64]:
    """Return ``values`` as one row of positive finite numbers.

    Raises:
        ValueError: there are none, or one of them is not a positive finite number.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{what}: expected a sequence of at least one number, got shape {array.shape}")
    bad = np.flatnonzero(~(np.isfinite(array) & (array > 0)))
    if bad.size:
        shown = ", ".join(f"[{i}] = {array[i]}" for i in bad[:5])
        raise ValueError(f"{what}: must be positive and finite, but {shown} ({bad.size} of {array.size})")
    return array


def critical_value(n: int) -> float:
    """Multiplier of the standard error of ``n`` trials, adjusted for looking at 5, 8, 12 and 20.

    Between the looks it is interpolated linearly in 1/n; beyond 20 it approaches Student's t with
    the same relative surplus times 20/n.

    Raises:
        ValueError: ``n`` is below 2.
    """
    if n < 2:
        raise ValueError(f"an interval needs at least 2 trials, got {n}")
    student = student_t_quantile((1 + CONFIDENCE) / 2, n - 1)
    if n < SERIAL_MIN_TRIALS:
        return FEW_TRIALS_FACTOR * student
    last = LOOKS[-1]
    if n > last:
        surplus = CRITICAL_AT_LOOK[last] / student_t_quantile((1 + CONFIDENCE) / 2, last - 1) - 1
        return student * (1 + surplus * last / n)
    knots = sorted(CRITICAL_AT_LOOK, reverse=True)
    return float(np.interp(1 / n, [1 / k for k in knots], [CRITICAL_AT_LOOK[k] for k in knots]))


def series_widths(times: NDArray[np.float64], critical: float | None = None) -> SeriesWidths:
    """Means and 95% half-widths of many series at once, over the last axis (shape ``(..., n)``, n >= 2).

    For n >= 5 the standard error s/sqrt(n) is multiplied by exp(z), where z is Fisher's atanh of the
    bias-corrected lag-1 autocorrelation, stretched for the little that a short series knows about it.
    Unstretched this is the textbook sqrt((1 + rho) / (1 - rho)) of a first-order autoregression.

    Args:
        times: the series.
        critical: in place of :func:`critical_value`, for calibration.
    """
    n = times.shape[-1]
    mean = times.mean(axis=-1)
    deviation = times - mean[..., None]
    squares = (deviation**2).sum(axis=-1)
    # Rounding leaves dust in a constant series; its autocorrelation would be that of the dust.
    constant = squares <= n * (8 * np.finfo(np.float64).eps * mean) ** 2
    squares = np.where(constant, 0.0, squares)
    standard_error = np.sqrt(squares / (n - 1) / n)
    factor = critical_value(n) if critical is None else critical
    if n < SERIAL_MIN_TRIALS:
        unknown = np.full_like(mean, np.nan)
        return SeriesWidths(
            mean, factor * standard_error, unknown, np.full_like(mean, n / FEW_TRIALS_FACTOR**2)
        )
    products = (deviation[..., 1:] * deviation[..., :-1]).sum(axis=-1)
    rho = np.where(constant, np.nan, products / np.where(constant, 1.0, squares)) + 1 / n
    stretch = min(STRETCH_MAX, 1 + STRETCH_SLOPE / n)
    z = stretch * np.arctanh(np.clip(rho, -0.99, 0.99))
    floor = FLOOR_OF_STUDENT * student_t_quantile((1 + CONFIDENCE) / 2, n - 1) / factor
    inflation = np.clip(np.exp(z), floor, math.exp(SERIAL_Z_MAX))
    half_width = factor * standard_error * np.where(constant, 1.0, inflation)
    return SeriesWidths(mean, half_width, rho, n / inflation**2)


def mean_interval(times: ArrayLike) -> Estimate:
    """Mean of the trial times of one start, with a 95% interval that allows for autocorrelation and looking.

    Args:
        times: seconds per trial, in the order in which the trials ran.

    Returns:
        The estimate; without an interval (and with the reason) for a single trial.

    Raises:
        ValueError: there is no trial, or a time is not a positive finite number.
    """
    array = checked(times, "trial times")
    n = array.size
    if n == 1:
        return Estimate(
            float(array[0]), None, None, 1, None, None, "none", "one trial has no measurable spread"
        )
    widths = series_widths(array)
    mean, half, rho, n_effective = (
        float(x) for x in (widths.mean, widths.half_width, widths.rho, widths.n_effective)
    )
    method = "student_t_widened" if n < SERIAL_MIN_TRIALS else "serial_t"
    reason = None
    if math.isnan(rho):
        few = n < SERIAL_MIN_TRIALS
        reason = (
            f"autocorrelation is not estimated from {n} trials" if few else "all trials took the same time"
        )
    return Estimate(
        mean,
        mean - half,
        mean + half,
        n,
        None if math.isnan(n_effective) else n_effective,
        None if math.isnan(rho) else rho,
        method,
        reason,
    )


def interval_from_starts(start_means: ArrayLike) -> Estimate:
    """Mean over starts with Student's 95% interval; the start is the unit of replication.

    Args:
        start_means: one mean per fresh process, any positive quantity.

    Returns:
        The estimate; without an interval (and with the reason) for a single start.

    Raises:
        ValueError: there is no start, or a mean is not a positive finite number.
    """
    array = checked(start_means, "start means")
    n, mean = array.size, float(array.mean())
    if n == 1:
        reason = "one start says nothing about the spread between starts"
        return Estimate(mean, None, None, 1, None, None, "none", reason)
    half = student_t_quantile((1 + CONFIDENCE) / 2, n - 1) * float(array.std(ddof=1)) / math.sqrt(n)
    reason = "starts are fresh processes and taken as independent"
    return Estimate(mean, mean - half, mean + half, n, float(n), None, "student_t_over_starts", reason)


def rate_interval(time: Estimate, work: float) -> Estimate:
    """Turn a time per trial into a rate: ``work`` (tokens, requests) per second, ends transformed.

    The rate is total work over total time, which is not the mean of the trials' rates.

    Args:
        time: seconds per trial.
        work: units of work done in each trial.

    Raises:
        ValueError: ``work`` is not a positive finite number.
    """
    if not (math.isfinite(work) and work > 0):
        raise ValueError(f"work per trial must be positive and finite, got {work}")
    low, high, method, reason = None, None, time.method, time.reason
    if time.low is not None and time.high is not None:
        if time.low > 0:
            low, high = work / time.high, work / time.low
        else:
            method, reason = "none", "the interval of the time reaches 0, so the rate has no upper end"
    return Estimate(work / time.mean, low, high, time.n, time.n_effective, time.rho, method, reason)


def median(values: ArrayLike) -> float:
    """Median of positive finite values.

    Raises:
        ValueError: there is none, or one is not a positive finite number.
    """
    return float(np.median(checked(values, "values")))


def mad(values: ArrayLike) -> float:
    """Median absolute deviation from the median, unscaled (times 1.4826 it estimates a Gaussian's sigma).

    Raises:
        ValueError: there is none, or one is not a positive finite number.
    """
    array = checked(values, "values")
    return float(np.median(np.abs(array - np.median(array))))
