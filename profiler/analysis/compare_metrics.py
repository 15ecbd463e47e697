"""The metrics of cases that both sides have measured: ratio, interval, and the words for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from profiler.analysis.compare_evidence import LOAD_METRICS, PLAIN_METRICS, SPEED_METRICS
from profiler.analysis.compare_metric import (
    Letters,
    MetricComparison,
    recorded_interval,
    why_missing,
)
from profiler.analysis.compare_replicated import Couple, bases_of, replicated, sides_of
from profiler.analysis.compare_statistics import holm
from profiler.results.schema import Measurement

METRICS: Final = (*dict.fromkeys((*SPEED_METRICS, *LOAD_METRICS, *PLAIN_METRICS)),)
# Scopes that say how many starts there were, not what a sensor covers.
_START_SCOPES: Final = {"within_process", "across_starts", "one_load"}


def compared_metrics(
    couples: Sequence[Couple], letters: Letters, names: Sequence[str]
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
    bases = [bases_of(couple, names) for couple in couples]
    sides = [
        {base: sides_of(base, couple) for base in dict.fromkeys(of_case.values())}
        for couple, of_case in zip(couples, bases, strict=True)
    ]
    tested = [
        (index, base, p)
        for index, of_case in enumerate(sides)
        for base, found in of_case.items()
        if found.difference is not None and (p := found.difference.p_value) is not None
    ]
    corrected = {
        (index, base): p for (index, base, _), p in zip(tested, holm([p for *_, p in tested]), strict=True)
    }
    made = []
    for index, (couple, of_case) in enumerate(zip(couples, bases, strict=True)):
        metrics = [
            replicated(name, base, couple, sides[index][base], corrected.get((index, base)), letters)
            for name, base in of_case.items()
        ]
        if corrected:
            metrics = [_with_number_of_tests(metric, len(tested)) for metric in metrics]
        plain = [_plain(name, couple, letters) for name in PLAIN_METRICS if name in names]
        made.append((*metrics, *(metric for metric in plain if metric is not None)))
    return made, len(tested)


def _with_number_of_tests(metric: MetricComparison, tests: int) -> MetricComparison:
    if metric.words != "undecided":
        return metric
    return replace(metric, words=f"undecided (not after correction for {tests} comparisons)")


def _plain(name: str, couple: Couple, letters: Letters) -> MetricComparison | None:
    """Return a metric that has no figure per start; None when neither side has it."""
    recorded = [item.measurement(name) for item in couple]
    known = [item for item in recorded if isinstance(item, Measurement)]
    if not known:
        return None
    values = [None if isinstance(item, str) else item.value for item in recorded]
    compared = partial(
        MetricComparison,
        metric=name,
        unit=known[0].unit,
        baseline=values[0],
        candidate=values[1],
        baseline_starts=couple[0].starts,
        candidate_starts=couple[1].starts,
    )
    scopes = dict.fromkeys(item.scope for item in known if item.scope not in _START_SCOPES)
    if len(known) < 2 or values[0] is None or values[1] is None:
        return compared(reason=why_missing(recorded, letters))
    if len(scopes) > 1 or len({item.unit for item in known}) > 1:
        reason = f"not the same quantity: {' against '.join(item.scope for item in known)}"
        return compared(reason=reason)
    interval = recorded_interval(recorded)
    return compared(
        ratio=values[1] / values[0],
        log_ratio=math.log(values[1]) - math.log(values[0]),
        ratio_ci95_recorded=interval,
        recorded_scope=None if interval is None else known[0].scope,
        verdict="ratio_only",
        words="ratio only",
        reason="there is no figure per start, so no interval over starts",
    )
