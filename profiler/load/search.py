"""The highest load that keeps the limits: judging a point, and choosing the next one.

A point is judged three-valued. It *holds* when the early-stopping bound of every percentile
(``measure/percentiles.py``, 99% confidence) is at least 5% below its limit, it *fails* when a lower bound of
the same confidence is more than 5% above, or requests failed so often that the percentile falls on them;
everything else, too few requests among it, is *undecided*.

Points are doubled until one does not hold, then the gap is halved (geometrically) until its ends are
neighbours or within 5% of each other. An undecided point counts as one that does not hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from profiler.errors import UsageError
from profiler.load import latency
from profiler.load.slo import Slo
from profiler.load.table import Requests
from profiler.measure.percentiles import percentile_lower_bound, percentile_upper_bound, required_requests
from profiler.results.schema import SloJudgement

Verdict = Literal["holds", "fails", "undecided"]
Over = Literal["concurrency", "rate"]

MARGIN = 0.05
"""How near to its limit a percentile is undecided, and how near to each other the ends of a search may be."""
POINT_S = 120.0
"""Budget of a point, unless the user gives another."""
LEAST_RATE_S = 60.0
"""For how long requests arrive at a rate before it is judged, as far as the budget of the point goes."""
SPARE = 3
"""Requests of a point: enough for so many to exceed the percentile, so that one slow one decides nothing."""


@dataclass(frozen=True)
class Search:
    """A search for the highest load that keeps the limits.

    Attributes:
        over: ``concurrency`` (closed loop) or ``rate`` (open loop, requests per second).
        low: where it begins.
        high: where it ends at the latest.
        process: kind of arrivals of an open loop.
        cv: their coefficient of variation.
    """

    over: Over
    low: float
    high: float
    process: str = "poisson"
    cv: float = 1.0

    def next(self, known: Mapping[float, Verdict]) -> float | None:
        """Return the level to measure next, or None when the search is over.

        Args:
            known: what was found at each level so far.
        """
        if not known:
            return self.level(self.low)
        holds, border = bracket(known)
        if holds is None:
            return None  # not even the lowest
        if border is None:
            return None if holds >= self.level(self.high) else self.level(min(2 * holds, self.high))
        middle = self.level(math.sqrt(holds * border))
        if self.over == "concurrency":
            middle = max(middle, holds + 1)
        if border <= holds * (1 + MARGIN) or not holds < middle < border:
            return None
        return middle

    def level(self, value: float) -> float:
        """Return a level that can be driven: a whole number of users, a rate of three digits."""
        if self.over == "concurrency":
            return float(math.floor(value + 1e-9))
        return float(f"{value:.3g}")

    def most_points(self) -> int:
        """Return how many points the search takes at most, whatever the server does."""
        return max(self.points_until(limit) for limit in self._limits())

    def points_until(self, limit: float) -> int:
        """Return how many points it takes when everything up to ``limit`` holds and nothing above."""
        known: dict[float, Verdict] = {}
        while (level := self.next(known)) is not None:
            known[level] = "holds" if level <= limit else "fails"
        return len(known)

    def _limits(self) -> Sequence[float]:
        steps = max(1, math.ceil(math.log(self.high / self.low) / math.log1p(MARGIN / 4)))
        ends = [
            self.low * math.exp(math.log(self.high / self.low) * step / steps) for step in range(steps + 1)
        ]
        return [0.0, *ends]


def search_for(
    over: Over | None, slos: Sequence[Slo], low: float | None, high: float | None, arrivals: tuple[str, float]
) -> Search:
    """Return the search that is asked for.

    Args:
        over: what to raise; None means users.
        slos: the limits.
        low: where it begins; None means 1.
        high: where it ends; None means 1024.
        arrivals: kind and coefficient of variation, for a search over rates.

    Raises:
        UsageError: it cannot be.
    """
    if not any(slo.percentile is not None for slo in slos):
        raise UsageError("--search needs limits of percentiles: --slo ttft_p99=0.5s, or --slo-preset")
    over, low, high = over or "concurrency", low or 1.0, high or 1024.0
    if low > high or (over == "concurrency" and low < 1):
        raise UsageError(f"--from {low:g} --to {high:g}: write the lower end first, users from 1 on")
    if over == "concurrency":
        return Search(over, float(int(low)), float(int(high)))
    return Search(over, low, high, *arrivals)


def bracket(known: Mapping[float, Verdict]) -> tuple[float | None, float | None]:
    """Return the highest level below all that do not hold, and the lowest of those."""
    border = min((level for level, verdict in known.items() if verdict != "holds"), default=None)
    holding = [
        level for level, verdict in known.items() if verdict == "holds" and (border is None or level < border)
    ]
    return max(holding, default=None), border


def requests_wanted(slos: Sequence[Slo], level: float, over: Over) -> int:
    """Return how many requests a point needs before its percentiles can be judged.

    Users wait for their answers; a rate does not, and one that is too high shows in a queue that takes time
    to grow.
    """
    shares = [slo.percentile for slo in slos if slo.percentile is not None]
    wanted = max((required_requests(share, SPARE) for share in shares), default=100)
    return max(wanted, int((4 if over == "concurrency" else LEAST_RATE_S) * level))


def judge(requests: Requests, slos: Sequence[Slo]) -> tuple[SloJudgement, ...]:
    """Judge a load by every limit that is one of a percentile.

    A failed request is infinitely slow. Answers of a single token have neither TPOT nor gaps and are left out
    of those.
    """
    return tuple(_judged(requests, slo, slo.percentile) for slo in slos if slo.percentile is not None)


def overall(judgements: Sequence[SloJudgement]) -> Verdict:
    """Return what follows for the point: one limit that fails is enough, all must hold."""
    verdicts = {one.verdict for one in judgements}
    if "fails" in verdicts:
        return "fails"
    return "holds" if verdicts == {"holds"} else "undecided"


def _judged(requests: Requests, slo: Slo, share: float) -> SloJudgement:
    values = latency.of_slo(requests, slo)
    counts = np.isfinite(values) | ~requests.ok
    entered = np.maximum(np.where(requests.ok, values, np.inf)[counts], 1e-9)
    if not len(entered):
        return SloJudgement(slo=str(slo), verdict="undecided", n=0)
    upper = percentile_upper_bound(entered, share).value
    lower = percentile_lower_bound(entered, share)
    value = float(np.quantile(entered, share / 100, method="inverted_cdf"))
    verdict: Verdict = "undecided"
    if upper is not None and upper <= slo.limit_s * (1 - MARGIN):
        verdict = "holds"
    elif lower is not None and lower > slo.limit_s * (1 + MARGIN):
        verdict = "fails"
    return SloJudgement(
        slo=str(slo),
        verdict=verdict,
        n=len(entered),
        value_s=value if math.isfinite(value) else None,
        low_s=lower if lower is not None and math.isfinite(lower) else None,
        high_s=upper,
    )
