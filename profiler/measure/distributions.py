"""Student's t and the binomial distribution, from the regularised incomplete beta function.

Written here because aiprof needs two numbers of them and nothing else of a statistics library.
"""

from __future__ import annotations

import math
from functools import lru_cache

_TINY = 1e-300


def _beta_continued_fraction(a: float, b: float, x: float) -> float:
    """Continued fraction of the incomplete beta function (DLMF 8.17.22) by Lentz's method."""
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > _TINY else _TINY)
    result = d
    # It converges in O(sqrt(max(a, b))) steps for x < (a + 1) / (a + b + 2), where the caller keeps x.
    for m in range(1, 100_000):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 + numerator * d
            c = 1.0 + numerator / c
            d = 1 / (d if abs(d) > _TINY else _TINY)
            c = c if abs(c) > _TINY else _TINY
            result *= c * d
        if abs(c * d - 1) < 1e-15:
            return result
    raise ArithmeticError(f"incomplete beta function does not converge for a={a}, b={b}, x={x}")


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function I_x(a, b).

    Raises:
        ValueError: a or b is not positive, or x is outside 0 to 1.
    """
    if not (a > 0 and b > 0 and 0 <= x <= 1):
        raise ValueError(f"incomplete beta function needs a, b > 0 and 0 <= x <= 1, got {a}, {b}, {x}")
    if x in (0, 1):
        return float(x)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) * _beta_continued_fraction(a, b, x) / a


def student_t_cdf(t: float, df: float) -> float:
    """Probability that Student's t with ``df`` degrees of freedom is at most ``t``."""
    tail = incomplete_beta(df / 2, 0.5, df / (df + t * t)) / 2
    return 1 - tail if t > 0 else tail


@lru_cache(maxsize=1024)
def student_t_quantile(p: float, df: float) -> float:
    """The value that Student's t with ``df`` degrees of freedom stays under with probability ``p``.

    Args:
        p: strictly between 0 and 1.
        df: degrees of freedom, above 0.

    Raises:
        ValueError: an argument is out of range.
    """
    if not (0 < p < 1 and df > 0):
        raise ValueError(f"t quantile needs 0 < p < 1 and df > 0, got p={p}, df={df}")
    if p == 0.5:
        return 0.0
    if p < 0.5:
        return -student_t_quantile(1 - p, df)
    low, high = 0.0, 1.0
    while student_t_cdf(high, df) < p:
        low, high = high, 2 * high
    while high - low > 1e-13 * high:
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (middle, high) if student_t_cdf(middle, df) < p else (low, middle)
    return (low + high) / 2


def binomial_cdf(successes: int, n: int, probability: float) -> float:
    """Probability of at most ``successes`` in ``n`` independent tries.

    Raises:
        ValueError: counts are negative or the probability is outside 0 to 1.
    """
    if n < 0 or successes < 0 or not 0 <= probability <= 1:
        raise ValueError(f"binomial needs counts >= 0 and 0 <= p <= 1, got {successes}, {n}, {probability}")
    return 1.0 if successes >= n else incomplete_beta(n - successes, successes + 1, 1 - probability)
