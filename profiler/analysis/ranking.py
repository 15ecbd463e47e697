"""From verdicts to an order of candidates: verdict first, then by how much the limits are exceeded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from profiler.analysis.verdict import CandidateVerdict, Line, Rank

_ORDER = {"pass": 0, "undecided": 1, "fail": 2}


@dataclass(frozen=True)
class Score:
    """Weighted geometric mean of margins; see :class:`profiler.analysis.verdict.CandidateVerdict`."""

    value: float | None
    low: float | None
    high: float | None
    reason: str | None


def score(lines: Iterable[Line]) -> Score:
    """Return the score of a candidate from its lines.

    A requirement's weight is shared by its lines. Both ends take every figure at its bound at once, as
    figures of one box move together; the interval is therefore rather too wide than too narrow.
    """
    counted = [line for line in lines if line.weight > 0 and line.limit]
    if not counted:
        return Score(None, None, None, "no requirement with a weight and a limit above 0")
    for line in counted:
        if line.value is None or line.value <= 0:
            return Score(None, None, None, f"no figure for {line.requirement}: {line.why}")
    per_requirement = {line.requirement: 0 for line in counted}
    for line in counted:
        per_requirement[line.requirement] += 1
    weights = [line.weight / per_requirement[line.requirement] for line in counted]

    def mean(margins: Sequence[float | None]) -> float | None:
        if any(margin is None for margin in margins):
            return None
        total = math.fsum(w * math.log(m) for w, m in zip(weights, margins, strict=True) if m is not None)
        return math.exp(max(-700.0, min(700.0, total / math.fsum(weights))))

    worst = [_margin(line, line.low if line.better == "higher" else line.high) for line in counted]
    best = [_margin(line, line.high if line.better == "higher" else line.low) for line in counted]
    return Score(mean([_margin(line, line.value) for line in counted]), mean(worst), mean(best), None)


def _margin(line: Line, figure: float | None) -> float | None:
    if figure is None or figure <= 0 or not line.limit:
        return None
    margin = figure / line.limit if line.better == "higher" else line.limit / figure
    return margin if 0 < margin < math.inf else None


def ranking(candidates: Sequence[CandidateVerdict]) -> tuple[Rank, ...]:
    """Order candidates; those whose scores cannot be told apart share a place."""
    if len(candidates) < 2:
        return ()
    ordered = sorted(candidates, key=lambda each: (_ORDER[each.outcome], -(each.score or 0.0), each.name))
    places = [1]
    for number, (before, here) in enumerate(pairwise(ordered), start=2):
        places.append(places[-1] if _alike(before, here) else number)
    return tuple(
        Rank(place, each.name, tied=places.count(place) > 1)
        for place, each in zip(places, ordered, strict=True)
    )


def _alike(better: CandidateVerdict, worse: CandidateVerdict) -> bool:
    if better.outcome != worse.outcome:
        return False
    if better.score is None or worse.score is None:
        return better.score is None and worse.score is None
    if better.score_low is None or worse.score_high is None:
        return True
    return better.score_low <= worse.score_high
