"""What keeps a figure from deciding anything: weak, disturbed, simulated or missing evidence."""

from __future__ import annotations

import math
from typing import NamedTuple

from profiler.analysis.evidence import CaseEvidence
from profiler.analysis.figure_metrics import COST
from profiler.analysis.figures import Figure
from profiler.analysis.policy import Requirement
from profiler.results.read import printable


class Blocker(NamedTuple):
    """One reason why a figure does not count.

    Attributes:
        why: what is wrong with it.
        remedy: what would help.
        measure: whether measuring the case again would.
    """

    why: str
    remedy: str
    measure: bool = True


def labels_of(case: CaseEvidence, figure: Figure | None) -> tuple[str, ...]:
    """Return what a reader must know about a figure beside its value."""
    labels = []
    if figure is not None and figure.starts:
        labels.append(f"{figure.starts} start{'s' if figure.starts > 1 else ''}")
    labels += ["predicted"] if figure is not None and figure.predicted else []
    labels += ["simulated"] if case.simulated else []
    labels += [printable(figure.note)] if figure is not None and figure.note else []
    if len(case.runs) > 1:
        labels.append(f"{len(case.runs)} runs")
    return tuple(labels)


def blockers_of(requirement: Requirement, case: CaseEvidence, figure: Figure) -> list[Blocker]:
    """Return everything that keeps a figure from deciding anything; empty when it counts."""
    found: list[Blocker] = []
    allow, needed = requirement.allow, requirement.evidence
    if case.tampered is not None:
        found.append(Blocker(f"the run was edited: {case.tampered}", "measure again"))
    if needed.verified and case.unverified is not None:
        found.append(Blocker(f"the run does not verify: {case.unverified}", "`aiprof verify` says more"))
    if case.simulated and "simulated" not in allow:
        found.append(Blocker("simulated: no hardware stands behind it", "measure the real device"))
    if figure.predicted and "predicted" not in allow:
        remedy = "an engine that reports it, a case that needs as much, or `allow: [predicted]`"
        found.append(Blocker("predicted, not measured", remedy, measure=False))
    for code, hint in case.flags.items():
        if requirement.flags.refuse(code):
            found.append(Blocker(f"flag {code}", hint))
    if (figure.value is not None or figure.load_bounds is not None) and not figure.predicted:
        found += _too_little(requirement, case, figure)
    for sensor in needed.sensors:
        records = [record.measurements.get(sensor) for record in case.records]
        if not any(found_ is not None and found_.value is not None for found_ in records):
            reason = next((r.reason for r in records if r is not None and r.reason), "not in the record")
            why = f"{sensor} is required and missing: {reason}"
            found.append(Blocker(why, "`aiprof devices` says what is missing", measure=False))
    return found


def _too_little(requirement: Requirement, case: CaseEvidence, figure: Figure) -> list[Blocker]:
    """Return whether there are too few starts or trials, or too short a measurement."""
    needed = requirement.evidence
    found: list[Blocker] = []
    if figure.starts < needed.min_starts:
        has = f"{figure.starts} start{'' if figure.starts == 1 else 's'}, {needed.min_starts} are required"
        found.append(Blocker(has, f"at least {needed.min_starts} starts"))
    if figure.basis == "load":
        return found  # trials are those of offline batches; requests are in the bounds
    try:
        starts = case.starts
    except ValueError as error:
        return [*found, Blocker(str(error), "measure again")]
    fewest = min((start.trials for start in starts), default=0)
    if fewest < needed.min_trials:
        why = f"{fewest} trials in a start, {needed.min_trials} are required"
        found.append(Blocker(why, "a larger --budget"))
    total_s = math.fsum(start.record.measured_s for start in starts)
    if total_s < needed.min_measured_s:
        why = f"measured for {total_s:.0f} s, {needed.min_measured_s:g} s are required"
        found.append(Blocker(why, "a larger --budget"))
    return found


def without_figure(requirement: Requirement, why: str) -> Blocker:
    """Return what there being no figure means, and what would give one."""
    name = requirement.metric.name
    if name == "fidelity":
        remedy = "a sweep with a fidelity check of this engine and these formats (without --no-fidelity)"
        return Blocker(why, remedy, measure=False)
    if name == "sustained_ratio":
        return Blocker(why, "a soak")
    if name in COST:
        return Blocker(why, "what is missing in the cost file", measure=False)
    if name.endswith(("_w", "_j")):
        return Blocker(why, "a power sensor: `aiprof devices` says what is missing", measure=False)
    return Blocker(why, "measure again")
