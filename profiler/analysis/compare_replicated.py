"""Metrics that have replicates: speeds, which follow from times per start, and the figures of whole loads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Final, Literal, cast

from profiler.analysis.compare_evidence import LOAD_METRICS, SPEED_METRICS, Evidence, PhaseName, mean
from profiler.analysis.compare_metric import (
    Letters,
    MetricComparison,
    Verdict,
    percent,
    recorded_interval,
    why_missing,
)
from profiler.analysis.compare_statistics import FAMILY_ALPHA, LogDifference, welch
from profiler.results.schema import Measurement

MORE_STARTS: Final = "make at least three: --preset standard, or --starts 3"
MORE_LOADS: Final = "make the load at least three times and compare with --pool"

Couple = tuple[Evidence, Evidence]


@dataclass(frozen=True)
class Sides:
    """What a figure follows from on both sides, and the difference where it was made often enough.

    Attributes:
        baseline: a time of the phase per start, or the figure itself per load; or why there is none.
        candidate: likewise.
        better: sign of the logarithms with which more is better.
    """

    baseline: list[float] | str
    candidate: list[float] | str
    better: int

    @cached_property
    def difference(self) -> LogDifference | None:
        """Difference of the logarithms, more is better; None where a side was measured once or not at all."""
        logs = self.logarithms
        return None if logs is None or min(map(len, logs)) < 2 else welch(*logs)

    @cached_property
    def logarithms(self) -> tuple[list[float], list[float]] | None:
        """Of baseline and candidate; more is better."""
        if isinstance(self.baseline, str) or isinstance(self.candidate, str):
            return None
        left, right = (
            [self.better * math.log(one) for one in each] for each in (self.baseline, self.candidate)
        )
        return left, right

    @property
    def both(self) -> tuple[list[float] | str, list[float] | str]:
        """Baseline and candidate."""
        return self.baseline, self.candidate


def bases_of(couple: Couple, names: Sequence[str]) -> dict[str, str]:
    """Return the metrics that have replicates, each with what it follows from: a phase, or itself."""
    if couple[0].is_load:
        return {name: name for name in LOAD_METRICS if name in names}
    return {name: metric.phase for name, metric in SPEED_METRICS.items() if name in names}


def sides_of(base: str, couple: Couple) -> Sides:
    """Return what both sides have of a phase, or of a figure of a load."""
    if couple[0].is_load:
        left, right = (_load_values(base, couple, item) for item in couple)
        return Sides(left, right, -1 if _unit(base, couple)[1] else 1)
    left, right = (item.start_means(cast(PhaseName, base)) for item in couple)
    return Sides(left, right, -1)


def _load_values(name: str, couple: Couple, item: Evidence) -> list[float] | str:
    if name in ("goodput_requests_per_s", "slo_attainment"):
        limits = dict.fromkeys(each for one in couple for each in one.limits)
        if len(limits) > 1:
            shown = " against ".join(limit or "none" for limit in limits)
            return f"the limits differ ({shown}), so they are not the same quantity"
    return item.load_values(name)


def replicated(
    name: str, base: str, couple: Couple, sides: Sides, p_adjusted: float | None, letters: Letters
) -> MetricComparison:
    """Return a metric that was made once per start, or once per load."""
    is_load = couple[0].is_load
    unit, lower_is_better = _unit(name, couple)
    values = [
        None if isinstance(found, str) else mean(found) if is_load else _of_time(name, item, mean(found))
        for item, found in zip(couple, sides.both, strict=True)
    ]
    counts = [0 if isinstance(found, str) else len(found) for found in sides.both]
    # Built in one piece: copying a frozen dataclass ten thousand times takes as long as the statistics.
    compared = partial(
        MetricComparison,
        metric=name,
        unit=unit,
        baseline=values[0],
        candidate=values[1],
        baseline_starts=counts[0],
        candidate_starts=counts[1],
        follows_from=base,
        is_load=is_load,
    )
    logarithms = sides.logarithms
    if logarithms is None:
        return compared(reason=why_missing(sides.both, letters))
    sign = -1 if lower_is_better else 1
    difference = sides.difference
    if difference is None:
        log_ratio = sign * (mean(logarithms[1]) - mean(logarithms[0]))
        interval = recorded_interval([item.measurement(name) for item in couple])
        words, why = _once(letters, counts, is_load=is_load)
        return compared(
            ratio=math.exp(log_ratio),
            log_ratio=log_ratio,
            ratio_ci95_recorded=interval,
            recorded_scope=None if interval is None else "one_load" if is_load else "within_process",
            verdict="undecided",
            words=words,
            reason=why,
        )
    ends = None
    if difference.low is not None and difference.high is not None:
        ends = sorted((math.exp(sign * difference.low), math.exp(sign * difference.high)))
    verdict, faster, words, reason = _judged(difference, p_adjusted, letters, _comparative(unit))
    return compared(
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


def _unit(name: str, couple: Couple) -> tuple[str, bool]:
    """Return the unit of a metric with replicates, and whether less of it is better."""
    if not couple[0].is_load:
        metric = SPEED_METRICS[name]
        return metric.unit, not metric.is_rate
    found = (item.measurement(name) for item in couple)
    unit = next((one.unit for one in found if isinstance(one, Measurement)), "")
    return unit, unit == "s"


def _of_time(name: str, item: Evidence, seconds: float) -> float:
    return SPEED_METRICS[name].value(item.spec, seconds)


def _comparative(unit: str) -> str:
    return "faster" if unit in ("s", "tokens/s", "requests/s") else "higher"


def _once(letters: Letters, counts: Sequence[int], *, is_load: bool) -> tuple[str, str]:
    """Return words and reason for a figure that a side has once."""
    few = " and ".join(letter for letter, count in zip(letters, counts, strict=True) if count == 1)
    if is_load:
        return "undecided (one load)", f"one load on {few}: how much loads differ is not known; {MORE_LOADS}"
    return "undecided (one start)", f"one start on {few}: how much starts differ is not known; {MORE_STARTS}"


def _judged(
    difference: LogDifference, p_adjusted: float | None, letters: Letters, comparative: str
) -> tuple[Verdict, Literal["baseline", "candidate"] | None, str, str | None]:
    """Return verdict, who is faster, words and reason for a difference of logarithms, more is better."""
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
    words = f"{letter} {comparative} by {shown[0]}% ({shown[1]} to {shown[2]}%)"
    return "different", "candidate" if candidate_faster else "baseline", words, None
