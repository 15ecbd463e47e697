"""For a CI job: has anything become slower than the baseline by more than a threshold?

A regression is asserted only where the whole interval lies beyond the threshold, and still does after
Holm's correction over everything that decides the exit code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from profiler.analysis.compare_evidence import LOAD_METRICS, SPEED_METRICS
from profiler.analysis.compare_metric import MetricComparison, percent
from profiler.analysis.compare_statistics import FAMILY_ALPHA, holm, p_below
from profiler.analysis.compare_types import CaseComparison, Comparison, Unmatched
from profiler.measure.distributions import student_t_quantile

# A two-sided interval of 95% lies wholly beyond a bound where the one-sided test of 2.5% rejects it.
ONE_SIDED_ALPHA: Final = FAMILY_ALPHA / 2
REPLICATED: Final = tuple(dict.fromkeys((*SPEED_METRICS, *LOAD_METRICS)))
"""Metrics that can have an interval over starts or loads."""
DEFAULT_METRICS: Final = tuple(name for name, metric in SPEED_METRICS.items() if metric.is_rate)


Status = Literal["ok", "regression", "undecided"]


@dataclass(frozen=True)
class Judgement:
    """Whether one figure, or a whole case, has become worse.

    Attributes:
        candidate: letter of the side that is judged.
        case_id: the case on the baseline.
        case: the case for people: scenario, model, formats, batch.
        metric: what was judged, or None for a case that has no counterpart.
        status: ``ok`` (surely not slower by the threshold), ``regression`` or ``undecided``.
        speed_ratio: speed of the candidate over that of the baseline; None without an interval over starts.
        reason: one line.
    """

    candidate: str
    case_id: str
    case: str
    metric: str | None
    status: Status
    speed_ratio: float | None
    reason: str


@dataclass(frozen=True)
class ThresholdReport:
    """What a threshold makes of a comparison.

    Attributes:
        threshold: the loss of speed that is tolerated, as a fraction.
        metrics: what was judged.
        tests: how many figures had an interval over starts; what the correction is for.
        judgements: every figure and every case without a counterpart.
    """

    threshold: float
    metrics: tuple[str, ...]
    tests: int
    judgements: tuple[Judgement, ...]

    def with_status(self, status: str) -> tuple[Judgement, ...]:
        """Return the judgements of one status."""
        return tuple(judgement for judgement in self.judgements if judgement.status == status)

    def exit_code(self, *, strict: bool) -> int:
        """Return 1 for a regression, 3 where no judgement is possible, otherwise 0.

        Nothing with an interval over starts (one start each, no case in common) is always 3: a gate
        that could not have closed has not been passed. ``strict`` makes every undecided figure 3.
        """
        if self.with_status("regression"):
            return 1
        if self.tests == 0 or (strict and self.with_status("undecided")):
            return 3
        return 0


@dataclass(frozen=True)
class _Figure:
    """A figure that has an interval: the logarithm of the ratio of speeds, its error, what it belongs to."""

    candidate: str
    case: CaseComparison
    metric: str
    follows_from: str
    log_speed: float
    standard_error: float
    df: float


def judge_threshold(
    comparison: Comparison, threshold: float, metrics: Sequence[str] = DEFAULT_METRICS
) -> ThresholdReport:
    """Judge every case of a comparison.

    Args:
        comparison: from :func:`profiler.analysis.compare.compare_runs`.
        threshold: the loss of speed that is tolerated, a fraction from 0 up to below 1. For a time
            it is the loss of the rate that belongs to it: 3% is 1 / 0.97 of the time.
        metrics: names of :data:`REPLICATED`.

    Raises:
        ValueError: the threshold is out of range, or a metric has no interval over starts or loads by nature.
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"a threshold is at least 0 and below 1, not {threshold}")
    if unknown := [name for name in metrics if name not in REPLICATED]:
        raise ValueError(f"no threshold can be held against {', '.join(unknown)}")
    figures: list[_Figure] = []
    judgements: list[Judgement] = []
    for pair in comparison.pairs:
        for case in pair.cases:
            for found in (case.metric(name) for name in dict.fromkeys(metrics)):
                if found is None or (found.baseline is None and found.candidate is None):
                    continue
                figure = _figure(pair.candidate, case, found)
                if figure is None:
                    reason = found.reason or found.words
                    judgements.append(_of_case(pair.candidate, case, found.metric, "undecided", reason))
                else:
                    figures.append(figure)
        judgements += _lost(pair.candidate, pair.baseline, pair.unmatched)
    return ThresholdReport(
        threshold, tuple(metrics), len(figures), (*_judged(figures, threshold), *judgements)
    )


def _figure(candidate: str, case: CaseComparison, found: MetricComparison) -> _Figure | None:
    if found.log_ratio is None or found.standard_error is None or found.df is None:
        return None
    sign = -1 if found.unit == "s" else 1
    return _Figure(
        candidate, case, found.metric, found.follows_from or found.metric,
        sign * found.log_ratio, found.standard_error, found.df,
    )  # fmt: skip


def _judged(figures: Sequence[_Figure], threshold: float) -> Iterable[Judgement]:
    bound = math.log1p(-threshold)
    # A rate and its time are the same evidence: counted once, or asking for both would cost power.
    seen = {_evidence(figure): figure for figure in figures}
    p_values = [
        p_below(figure.log_speed, figure.standard_error, figure.df, bound) for figure in seen.values()
    ]
    adjusted = dict(zip(seen, holm(p_values), strict=True))
    for figure in figures:
        half = student_t_quantile(1 - ONE_SIDED_ALPHA, figure.df) * figure.standard_error
        low, high = figure.log_speed - half, figure.log_speed + half
        shown = f"speed {_change(figure.log_speed)} ({_change(low)} to {_change(high)})"
        status: Status = "ok"
        if adjusted[_evidence(figure)] <= ONE_SIDED_ALPHA:
            status = "regression"
        elif high < bound:
            status = "undecided"
            shown += f": beyond it, but not after correction for {len(seen)} comparisons"
        elif low < bound:
            status = "undecided"
            shown += f": may or may not be beyond {percent(threshold)}%"
        ratio = math.exp(figure.log_speed)
        yield _of_case(figure.candidate, figure.case, figure.metric, status, shown, ratio)


def _evidence(figure: _Figure) -> tuple[str, int, str]:
    return figure.candidate, id(figure.case), figure.follows_from


def _change(log_speed: float) -> str:
    fraction = math.expm1(log_speed)
    return f"{'-' if fraction < 0 else '+'}{percent(abs(fraction))}%"


def _lost(candidate: str, baseline: str, unmatched: Sequence[Unmatched]) -> Iterable[Judgement]:
    """Judge what the baseline has and the candidate has not; what now fails or computes otherwise is lost."""
    for case in unmatched:
        if case.measured_on not in (baseline, "both"):
            continue
        status: Status = "regression" if case.kind in ("failed", "unfaithful") else "undecided"
        label = _label(case.scenario, case.variant, case.model, case.formats, case.load)
        yield Judgement(candidate, case.case_id, label, None, status, None, case.reason)


def _of_case(
    candidate: str,
    case: CaseComparison,
    metric: str,
    status: Status,
    reason: str,
    speed_ratio: float | None = None,
) -> Judgement:
    label = _label(case.scenario, case.variant, case.model, case.baseline.formats, case.load)
    return Judgement(candidate, case.baseline.case_ids[0], label, metric, status, speed_ratio, reason)


def _label(scenario: str, variant: str, model: str, formats: str, load: str) -> str:
    shortened = "" if variant == "full" else f" ({variant})"
    return f"{scenario}{shortened} · {model} · {formats} · {load}"
