"""The statistics of a verdict: one-sided bounds from start means, and how many starts would decide.

A requirement passes when the bound that errs with probability ``1 - confidence`` is on its good side.
The start is the unit of replication, as everywhere (``docs/method.md``). That a false pass is as rare as
promised is shown by ``benchmarks/gate_errors.py``; its tables stand in ``docs/gate.md``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from profiler.measure.distributions import student_t_quantile

Outcome = Literal["pass", "fail", "undecided"]
Better = Literal["higher", "lower"]

MOST_STARTS = 100
"""As many as ``aiprof sweep --starts`` makes."""

CHANCE = 0.8
"""With this probability the estimated number of starts decides, if mean and spread stay as they are."""


def start_bounds(values: Sequence[float], confidence: float) -> tuple[float, float]:
    """Return both one-sided Student bounds of the mean over starts.

    Each end alone errs with probability ``1 - confidence``; together they are the two-sided interval
    of ``2 * confidence - 1``.

    Args:
        values: one finite value per start, at least two.
        confidence: of each end, above 0.5 and below 1.

    Raises:
        ValueError: fewer than two values.
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"bounds need at least 2 starts, got {n}")
    mean, deviation = mean_and_deviation(values)
    half = student_t_quantile(confidence, n - 1) * deviation / math.sqrt(n)
    return mean - half, mean + half


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation (0 for a single value)."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, 0.0
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))


def decide(low: float, high: float, limit: float, better: Better) -> Outcome:
    """Return the verdict on a figure that lies between ``low`` and ``high``.

    Args:
        low: lower bound, may be minus infinity.
        high: upper bound, may be infinity.
        limit: the requirement, itself good enough.
        better: ``higher`` when at least ``limit`` is required, ``lower`` when at most.
    """
    good, bad = (low >= limit, high < limit) if better == "higher" else (high <= limit, low > limit)
    return "pass" if good else "fail" if bad else "undecided"


def starts_to_decide(values: Sequence[float], limit: float, confidence: float) -> int | None:
    """Estimate how many starts in all would decide, with a chance of 80% if mean and spread stay.

    The smallest n with ``|mean - limit| >= (t(confidence, n-1) + t(0.8, n-1)) * s / sqrt(n)``: the bound
    must clear the limit although the next mean may fall nearer to it (Cohen, Statistical Power Analysis
    for the Behavioral Sciences, 1988, section 2.4, with Student's t in place of the normal).

    Args:
        values: one value per start, at least two, in the domain that is averaged.
        limit: the requirement in the same domain.
        confidence: of the one-sided bound.

    Returns:
        Starts in all, more than there are; None when more than :data:`MOST_STARTS` would be needed.
    """
    mean, deviation = mean_and_deviation(values)
    gap = abs(mean - limit)

    def decides(n: int) -> bool:
        factor = student_t_quantile(confidence, n - 1) + student_t_quantile(CHANCE, n - 1)
        return gap * math.sqrt(n) >= factor * deviation

    low, high = len(values), MOST_STARTS
    if low >= high or not decides(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high
