"""One metric of a case on both sides of a comparison, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from profiler.analysis.compare_statistics import interval_of_ratio
from profiler.results.schema import Measurement

Verdict = Literal["different", "not_distinguishable", "undecided", "ratio_only", "missing"]
Letters = tuple[str, str]


@dataclass(frozen=True)
class MetricComparison:
    """One metric of one case on both sides.

    Attributes:
        metric: its name, as in a record.
        unit: of both values.
        baseline: value there, or None.
        candidate: value there, or None.
        ratio: candidate over baseline: for speeds of the geometric means over starts, otherwise of the
            recorded values.
        ratio_ci95: 95% interval of ``ratio`` over starts, not corrected for the number of comparisons.
        ratio_ci95_recorded: interval that follows from those in the two records; it leaves out what
            differs between starts and is no evidence for a purchase.
        recorded_scope: what the recorded intervals speak for: ``within_process`` or that of a sensor.
        baseline_starts: starts behind the value.
        candidate_starts: likewise.
        log_ratio: natural logarithm of ``ratio``.
        standard_error: of ``log_ratio``, over starts.
        df: its degrees of freedom.
        p_value: two-sided, against no difference.
        p_adjusted: the same after Holm's correction.
        verdict: what may be said.
        faster: which side is, where ``verdict`` is ``different``.
        words: the verdict for people.
        reason: why there is no ratio, no interval or no verdict; None where there is all.
        follows_from: the phase whose time it follows from, or its own name; figures of a case with the same
            one are one comparison. None for a plain ratio.
        is_load: whether it is of a load on a server; ``starts`` are then whole loads.
    """

    metric: str
    unit: str
    baseline: float | None
    candidate: float | None
    ratio: float | None = None
    ratio_ci95: tuple[float, float] | None = None
    ratio_ci95_recorded: tuple[float, float] | None = None
    recorded_scope: str | None = None
    baseline_starts: int = 0
    candidate_starts: int = 0
    log_ratio: float | None = None
    standard_error: float | None = None
    df: float | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    verdict: Verdict = "missing"
    faster: Literal["baseline", "candidate"] | None = None
    words: str = "no comparison"
    reason: str | None = None
    follows_from: str | None = None
    is_load: bool = False


def percent(fraction: float) -> str:
    """Return a fraction as per cent with two or three significant digits, without the sign."""
    value = 100 * fraction
    if value >= 1e5:
        return f"{value:.2g}"
    if value >= 10:
        return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
    return f"{value:.2g}" if value >= 0.1 or value == 0 else f"{value:.1g}"


def recorded_interval(recorded: Sequence[Measurement | str]) -> tuple[float, float] | None:
    """Return the interval of a ratio that follows from those in the records; None where one is missing."""
    known = [
        (item.value, item.ci95)
        for item in recorded
        if isinstance(item, Measurement) and item.value is not None and item.ci95 is not None
    ]
    if len(known) < 2:
        return None
    (baseline, baseline_ci), (candidate, candidate_ci) = known
    return interval_of_ratio(baseline, baseline_ci, candidate, candidate_ci)


def why_missing(sides: Sequence[object], letters: Letters) -> str:
    """Return why there is no value, from the texts among what both sides have."""
    reasons = [(letter, side) for letter, side in zip(letters, sides, strict=True) if isinstance(side, str)]
    if len({reason for _, reason in reasons}) == 1 and len(reasons) == 2:
        return str(reasons[0][1])
    return "; ".join(f"no value on {letter}: {reason}" for letter, reason in reasons)
