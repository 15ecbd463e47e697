"""The metrics of cases that both sides have measured: ratio, interval, and the words for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from profiler.analysis.compare_evidence import (
    PLAIN_METRICS,
    SPEED_METRICS,
    Evidence,
    PhaseName,
    SpeedMetric,
    mean,
)
from profiler.analysis.compare_statistics import (
    FAMILY_ALPHA,
    LogDifference,
    holm,
    interval_of_ratio,
    welch,
)
from profiler.results.schema import Measurement

Verdict = Literal["different", "not_distinguishable", "undecided", "ratio_only", "missing"]

METRICS: Final = (*SPEED_METRICS, *PLAIN_METRICS)
MORE_STARTS: Final = "make at least three: --preset standard, or --starts 3"
# Scopes that say how many starts there were, not what a sensor covers.
_START_SCOPES: Final = {"within_process", "across_starts"}


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
    """

    metric: str
    unit: str
    baseline: float | None
    candidate: float | None
    ratio: float | None
    ratio_ci95: tuple[float, float] | None
    ratio_ci95_recorded: tuple[float, float] | None
    recorded_scope: str | None
    baseline_starts: int
    candidate_starts: int
    log_ratio: float | None
    standard_error: float | None
    df: float | None
    p_value: float | None
    p_adjusted: float | None
    verdict: Verdict
    faster: Literal["baseline", "candidate"] | None
    words: str
    reason: str | None


@dataclass(frozen=True)
class _Phase:
    """Times of one phase on both sides, and the speeds' difference where there are starts enough."""

    baseline: list[float] | str
    candidate: list[float] | str
    difference: LogDifference | None


Letters = tuple[str, str]


def compared_metrics(
    couples: Sequence[tuple[Evidence, Evidence]], letters: Letters, names: Sequence[str]
) -> tuple[list[tuple[MetricComparison, ...]], int]:
    """Compare all cases of a pair of boxes.

    Args:
        couples: baseline and candidate of each case.
        letters: what the two sides are called.
        names: the metrics to compare, of :data:`METRICS`.

    Returns:
        The metrics of each case, and the number of comparisons that their verdicts are corrected for.
        A rate and the time it follows from are one comparison.
    """
    speeds = {name: metric for name, metric in SPEED_METRICS.items() if name in names}
    wanted = dict.fromkeys(metric.phase for metric in speeds.values())
    phases = [{name: _phase(name, *couple) for name in wanted} for couple in couples]
    tested = [
        (index, name, p)
        for index, of_case in enumerate(phases)
        for name, phase in of_case.items()
        if phase.difference is not None and (p := phase.difference.p_value) is not None
    ]
    corrected = {
        (index, name): p for (index, name, _), p in zip(tested, holm([p for *_, p in tested]), strict=True)
    }
    found = []
    for index, (couple, of_case) in enumerate(zip(couples, phases, strict=True)):
        metrics = [
            _speed(name, metric, couple, of_case[metric.phase], corrected.get((index, metric.phase)), letters)
            for name, metric in speeds.items()
        ]
        if corrected:
            metrics = [_with_number_of_tests(metric, len(tested)) for metric in metrics]
        plain = [_plain(name, couple, letters) for name in PLAIN_METRICS if name in names]
        found.append((*metrics, *(metric for metric in plain if metric is not None)))
    return found, len(tested)


def _phase(name: PhaseName, baseline: Evidence, candidate: Evidence) -> _Phase:
    left, right = baseline.start_means(name), candidate.start_means(name)
    if isinstance(left, str) or isinstance(right, str) or min(len(left), len(right)) < 2:
        return _Phase(left, right, None)
    return _Phase(left, right, welch(_log_speeds(left), _log_speeds(right)))


def _log_speeds(times: Sequence[float]) -> list[float]:
    return [-math.log(time) for time in times]


def _speed(
    name: str,
    metric: SpeedMetric,
    couple: tuple[Evidence, Evidence],
    phase: _Phase,
    p_adjusted: float | None,
    letters: Letters,
) -> MetricComparison:
    sides = (phase.baseline, phase.candidate)
    values = [
        None if isinstance(times, str) else metric.value(item.spec, mean(times))
        for item, times in zip(couple, sides, strict=True)
    ]
    starts = [0 if isinstance(times, str) else len(times) for times in sides]
    blank = _blank(name, metric.unit, (values[0], values[1]), (starts[0], starts[1]))
    if isinstance(phase.baseline, str) or isinstance(phase.candidate, str):
        return replace(blank, reason=_why_missing(sides, letters))
    sign = 1 if metric.is_rate else -1
    difference = phase.difference
    if difference is None:
        log_ratio = sign * (mean(_log_speeds(phase.candidate)) - mean(_log_speeds(phase.baseline)))
        few = [letter for letter, count in zip(letters, starts, strict=True) if count == 1]
        recorded = [item.measurement(name) for item in couple]
        return replace(
            blank,
            ratio=math.exp(log_ratio),
            log_ratio=log_ratio,
            ratio_ci95_recorded=_recorded_interval(recorded),
            recorded_scope="within_process" if _recorded_interval(recorded) else None,
            verdict="undecided",
            words="undecided (one start)",
            reason=f"one start on {' and '.join(few)}: how much starts differ is not known; {MORE_STARTS}",
        )
    ends = None
    if difference.low is not None and difference.high is not None:
        ends = sorted((math.exp(sign * difference.low), math.exp(sign * difference.high)))
    verdict, faster, words, reason = _judged(difference, p_adjusted, letters)
    return replace(
        blank,
        ratio=math.exp(sign * difference.difference),
        ratio_ci95=None if ends is None else (ends[0], ends[1]),
        log_ratio=sign * difference.difference,
        standard_error=difference.standard_error,
        df=difference.df,
        p_value=difference.p_value,
        p_adjusted=p_adjusted,
        verdict=verdict,
        faster=faster,
        words=words,
        reason=reason,
    )


def _judged(
    difference: LogDifference, p_adjusted: float | None, letters: Letters
) -> tuple[Verdict, Literal["baseline", "candidate"] | None, str, str | None]:
    """Return verdict, who is faster, words and reason for a difference of the logarithms of speeds."""
    low, high = difference.low, difference.high
    if low is None or high is None or p_adjusted is None:
        reason = "the starts of both sides agree to the last digit: their spread is below what can be seen"
        return "undecided", None, "undecided (no spread)", reason
    if low <= 0 <= high:
        return "not_distinguishable", None, "not distinguishable", None
    if p_adjusted > FAMILY_ALPHA:
        reason = f"the interval leaves out 1, but not after Holm's correction (p = {p_adjusted:.2g})"
        return "undecided", None, "undecided", f"{reason}; more starts would decide"
    candidate_faster = difference.difference > 0
    letter = letters[1] if candidate_faster else letters[0]
    near, far = sorted((abs(low), abs(high)))
    shown = [percent(math.expm1(size)) for size in (abs(difference.difference), near, far)]
    words = f"{letter} faster by {shown[0]}% ({shown[1]} to {shown[2]}%)"
    return "different", "candidate" if candidate_faster else "baseline", words, None


def _with_number_of_tests(metric: MetricComparison, tests: int) -> MetricComparison:
    if metric.words != "undecided":
        return metric
    return replace(metric, words=f"undecided (not after correction for {tests} comparisons)")


def percent(fraction: float) -> str:
    """Return a fraction as per cent with two or three significant digits, without the sign."""
    value = 100 * fraction
    if value >= 1e5:
        return f"{value:.2g}"
    if value >= 10:
        return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
    return f"{value:.2g}" if value >= 0.1 or value == 0 else f"{value:.1g}"


def _plain(name: str, couple: tuple[Evidence, Evidence], letters: Letters) -> MetricComparison | None:
    """Return a metric that has no figure per start; None when neither side has it."""
    recorded = [item.measurement(name) for item in couple]
    known = [item for item in recorded if isinstance(item, Measurement)]
    if not known:
        return None
    values = [None if isinstance(item, str) else item.value for item in recorded]
    starts = (couple[0].starts, couple[1].starts)
    blank = _blank(name, known[0].unit, (values[0], values[1]), starts)
    scopes = dict.fromkeys(item.scope for item in known if item.scope not in _START_SCOPES)
    if len(known) < 2 or values[0] is None or values[1] is None:
        return replace(blank, reason=_why_missing(recorded, letters))
    if len(scopes) > 1 or len({item.unit for item in known}) > 1:
        reason = f"not the same quantity: {' against '.join(item.scope for item in known)}"
        return replace(blank, reason=reason)
    interval = _recorded_interval(recorded)
    return replace(
        blank,
        ratio=values[1] / values[0],
        log_ratio=math.log(values[1]) - math.log(values[0]),
        ratio_ci95_recorded=interval,
        recorded_scope=None if interval is None else known[0].scope,
        verdict="ratio_only",
        words="ratio only",
        reason="there is no figure per start, so no interval over starts",
    )


def _recorded_interval(recorded: Sequence[Measurement | str]) -> tuple[float, float] | None:
    known = [
        (item.value, item.ci95)
        for item in recorded
        if isinstance(item, Measurement) and item.value is not None and item.ci95 is not None
    ]
    if len(known) < 2:
        return None
    (baseline, baseline_ci), (candidate, candidate_ci) = known
    return interval_of_ratio(baseline, baseline_ci, candidate, candidate_ci)


def _blank(
    name: str, unit: str, values: tuple[float | None, float | None], starts: tuple[int, int]
) -> MetricComparison:
    return MetricComparison(
        metric=name,
        unit=unit,
        baseline=values[0],
        candidate=values[1],
        ratio=None,
        ratio_ci95=None,
        ratio_ci95_recorded=None,
        recorded_scope=None,
        baseline_starts=starts[0],
        candidate_starts=starts[1],
        log_ratio=None,
        standard_error=None,
        df=None,
        p_value=None,
        p_adjusted=None,
        verdict="missing",
        faster=None,
        words="no comparison",
        reason=None,
    )


def _why_missing(sides: Sequence[object], letters: Letters) -> str:
    reasons = [(letter, side) for letter, side in zip(letters, sides, strict=True) if isinstance(side, str)]
    if len({reason for _, reason in reasons}) == 1 and len(reasons) == 2:
        return str(reasons[0][1])
    return "; ".join(f"no value on {letter}: {reason}" for letter, reason in reasons)
