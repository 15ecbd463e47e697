"""Service-level objectives: what a request must keep, and what all of them together must."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from profiler.errors import UsageError, nearest

SloMetric = Literal["ttft", "tpot", "e2e", "icl"]
METRICS: tuple[SloMetric, ...] = ("ttft", "tpot", "e2e", "icl")
_FORM = re.compile(r"([a-z0-9]+?)(?:_p(\d{1,2}(?:\.\d{1,3})?))?(?:_s)?=(\d+(?:\.\d+)?)\s*(ms|s)")


@dataclass(frozen=True)
class Slo:
    """One limit.

    Attributes:
        metric: ``ttft`` and ``e2e`` from the scheduled moment, ``tpot``, or ``icl``, the longest gap.
        limit_s: the limit in seconds; a value equal to it is within.
        percentile: share of requests in percent that must keep it (99 for p99), or None where only
            goodput and attainment are asked for.
    """

    metric: SloMetric
    limit_s: float
    percentile: float | None = None

    def __str__(self) -> str:
        share = "" if self.percentile is None else f"_p{self.percentile:g}"
        return f"{self.metric}{share}={self.limit_s:g}s"


def parse_slo(text: str) -> Slo:
    """Read ``ttft_p99=0.5s``, ``tpot_p99=50ms`` or ``e2e=10s``.

    Raises:
        UsageError: it cannot be understood, with what would be.
    """
    match = _FORM.fullmatch(text.strip().lower())
    if match is None:
        raise UsageError(f"'{text}' is not a limit; write ttft_p99=0.5s, tpot_p99=50ms or e2e=10s")
    name, percentile, number, unit = match.groups()
    if name not in METRICS:
        raise UsageError(
            f"'{text}': unknown metric '{name}'{nearest(name, METRICS)} (known: {', '.join(METRICS)})"
        )
    limit = float(number) * (1e-3 if unit == "ms" else 1.0)
    if limit <= 0 or not math.isfinite(limit):
        raise UsageError(f"'{text}': a limit must be above 0")
    if percentile is not None and not 1 < float(percentile) < 100:
        raise UsageError(f"'{text}': a percentile lies between 1 and 100")
    return Slo(name, limit, None if percentile is None else float(percentile))


def parse_slos(texts: Sequence[str]) -> tuple[Slo, ...]:
    """Read several limits; each metric and percentile at most once.

    Raises:
        UsageError: one cannot be understood, or contradicts another.
    """
    slos = tuple(parse_slo(text) for text in texts)
    seen: set[tuple[str, float | None]] = set()
    for slo in slos:
        if (slo.metric, slo.percentile) in seen:
            raise UsageError(f"{slo.metric} has two limits; give one")
        seen.add((slo.metric, slo.percentile))
    return slos
