"""The statistics of a comparison: Welch's interval on logarithms, Holm's correction, intervals of ratios.

What they promise, and the simulations that show it, is in ``docs/method.md`` under "Comparing boxes";
``benchmarks/comparison.py`` prints its tables. Everything is a pure function of its arguments.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from profiler.measure.distributions import student_t_cdf, student_t_quantile

CONFIDENCE = 0.95
FAMILY_ALPHA = 1 - CONFIDENCE
"""At most so often is any difference between two equal boxes asserted."""

# Below this a spread of logarithms is the rounding of the clock or of the arithmetic, not noise.
NO_SPREAD = 1e-12
# A quantile per hundredth of a degree of freedom, rounded down, so that few are ever computed.
DF_STEPS = 100


@dataclass(frozen=True)
class LogDifference:
    """A difference of two means of logarithms, candidate minus baseline.

    Attributes:
        difference: exp of it is the ratio of the geometric means.
        standard_error: of the difference; 0 when neither side has any spread.
        df: Welch-Satterthwaite degrees of freedom; None when there is no spread.
        low: lower end of the 95% interval; None when there is no spread.
        high: upper end; None when there is no spread.
    """

    difference: float
    standard_error: float
    df: float | None
    low: float | None
    high: float | None

    @property
    def p_value(self) -> float | None:
        """Two-sided, against no difference; below 0.05 exactly when the interval leaves out 0."""
        if self.df is None:
            return None
        return 2 * student_t_cdf(-abs(self.difference) / self.standard_error, self.df)


def p_below(difference: float, standard_error: float, df: float, bound: float) -> float:
    """Return the one-sided p-value against a difference of ``bound`` or more; small where it is surely below.

    Args:
        difference: as estimated.
        standard_error: of it, above 0.
        df: its degrees of freedom.
        bound: in the unit of the difference.
    """
    return student_t_cdf((difference - bound) / standard_error, df)


def welch(baseline: Sequence[float], candidate: Sequence[float]) -> LogDifference:
    """Return the difference of two means with Welch's 95% interval (Welch 1947, Satterthwaite 1946).

    The two sides may differ in spread and in number.

    Args:
        baseline: a logarithm per start, at least two.
        candidate: likewise.

    Raises:
        ValueError: a side has fewer than two starts.
    """
    if min(len(baseline), len(candidate)) < 2:
        raise ValueError(f"needs two starts on each side, got {len(baseline)} and {len(candidate)}")
    (mean_a, share_a), (mean_b, share_b) = _mean_and_share(baseline), _mean_and_share(candidate)
    difference, variance = mean_b - mean_a, share_a + share_b
    if variance == 0:
        return LogDifference(difference, 0.0, None, None, None)
    # Shares of the variance, not variances: squares of very small ones would vanish.
    part_a, part_b = share_a / variance, share_b / variance
    df = 1 / (part_a**2 / (len(baseline) - 1) + part_b**2 / (len(candidate) - 1))
    df = math.floor(df * DF_STEPS + 1e-6) / DF_STEPS
    error = math.sqrt(variance)
    half = student_t_quantile((1 + CONFIDENCE) / 2, df) * error
    return LogDifference(difference, error, df, difference - half, difference + half)


def _mean_and_share(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its squared standard error, 0 where the spread is only rounding."""
    mean = math.fsum(values) / len(values)
    squares = math.fsum((value - mean) ** 2 for value in values)
    if math.sqrt(squares) <= NO_SPREAD * len(values):
        return mean, 0.0
    return mean, squares / (len(values) - 1) / len(values)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for their number (Holm 1979), in the same order.

    Rejecting where the adjusted value is at most alpha keeps the chance of any false rejection at
    alpha, however the tests depend on each other.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def interval_of_ratio(
    baseline: float,
    baseline_ci: tuple[float, float],
    candidate: float,
    candidate_ci: tuple[float, float],
) -> tuple[float, float] | None:
    """Return a 95% interval of ``candidate / baseline`` from an interval of each (MOVER on logarithms).

    Zou and Donner 2008: the distances from each estimate to its own limits are combined as root sums
    of squares. It promises no more than the two intervals do.

    Returns:
        The interval, or None when a limit is not positive, so that it has no logarithm.
    """
    values = (*baseline_ci, baseline, *candidate_ci, candidate)
    if not all(value > 0 for value in values):
        return None
    log_a, log_b = math.log(baseline), math.log(candidate)
    low_a, high_a = (math.log(end) for end in baseline_ci)
    low_b, high_b = (math.log(end) for end in candidate_ci)
    ratio = log_b - log_a
    low = ratio - math.hypot(log_b - low_b, high_a - log_a)
    high = ratio + math.hypot(high_b - log_b, log_a - low_a)
    # The logarithm of any two floats' ratio is under 1500; exp overflows at 709.
    return (math.exp(low), math.exp(high)) if max(abs(low), abs(high)) < 700 else None
