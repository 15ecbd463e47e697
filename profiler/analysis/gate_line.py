"""One line of a verdict: what the figure of a case says about one requirement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from profiler.analysis.candidates import Candidate
from profiler.analysis.capacity import capacity
from profiler.analysis.cost import cost_figure
from profiler.analysis.cost_types import Box
from profiler.analysis.decision import MOST_STARTS, Outcome, decide, starts_to_decide
from profiler.analysis.evidence import CaseEvidence
from profiler.analysis.figure_metrics import CAPACITY, COST, RECORDED
from profiler.analysis.figures import Figure, figure_of
from profiler.analysis.gate_blockers import Blocker, blockers_of, labels_of, without_figure
from profiler.analysis.gate_fidelity import fidelity_line
from profiler.analysis.policy import Requirement
from profiler.analysis.remedy import sweep_command
from profiler.analysis.verdict import Line
from profiler.results.read import printable


@dataclass(frozen=True)
class LineJudge:
    """Judges one candidate by single figures.

    ``error`` is everywhere the probability of a false pass that is left to the line.

    Attributes:
        candidate: the candidate.
        box: its prices, or why there are none.
        output_share: share of the cost on output tokens.
    """

    candidate: Candidate
    box: Box | str
    output_share: float

    def of_cases(self, requirement: Requirement, cases: Sequence[CaseEvidence], error: float) -> Line:
        """Judge the figure of a case; of several that differ in their work only, where memory is meant."""
        case = cases[0]
        if case.forecast is not None:
            nothing = Figure.missing(case.reason or "it is not predicted")
            figure = case.forecast.get(requirement.metric.name, nothing)
        elif requirement.metric.name in CAPACITY:
            figure, case = capacity(
                requirement.metric.name, cases, requirement.limit or 0.0, requirement.context_tokens
            )
        elif case.status != "ok":
            return self.not_measured(requirement, case, error)
        elif requirement.metric.name == "fidelity":
            blank = undecided(requirement, error, case.label, case.spec.case_id, "", None)
            return fidelity_line(requirement, case, blank)
        elif requirement.metric.name in COST:
            figure = cost_figure(requirement.metric.name, case, self.box, self.output_share)
        else:
            figure = figure_of(requirement.metric.name, case)
        return self.of_figure(requirement, case, figure, error)

    def not_measured(self, requirement: Requirement, case: CaseEvidence, error: float) -> Line:
        """Judge a case that failed or never ran; only running out of memory says something about the box."""
        starts = requirement.evidence.min_starts
        command = sweep_command(requirement, self.candidate, case, starts)
        line = undecided(requirement, error, case.label, case.spec.case_id, "", "measure it again")
        line = replace(line, command=command, labels=labels_of(case, None))
        if case.status == "failed":
            failure = case.records[-1].failure
            kind = failure.kind if failure else "unknown"
            why = f"failed: {kind}" + (f": {failure.message}" if failure else "")
            blocked = case.tampered or (case.simulated and "simulated" not in requirement.allow)
            if kind == "out_of_memory" and not blocked:
                return replace(line, outcome="fail", why=printable(why), remedy=None, command=None)
            return replace(line, why=printable(why))
        reason = printable(case.reason or "it was not measured")
        if case.lacking_bytes:
            counts = "predicted" in requirement.allow
            counts = counts and (not case.simulated or "simulated" in requirement.allow)
            if counts and case.tampered is None:
                return replace(
                    line,
                    outcome="fail",
                    why=reason,
                    remedy=None,
                    command=None,
                    labels=(*line.labels, "predicted"),
                )
            remedy = "a device with more memory, or a smaller format (predicted)"
            return replace(line, why=reason, remedy=remedy, command=None)
        return replace(line, why=reason, remedy="measure it")

    def of_figure(self, requirement: Requirement, case: CaseEvidence, figure: Figure, error: float) -> Line:
        """Judge by the interval, by the value where that counts, or say what keeps it from counting."""
        confidence = 1 - error
        line = replace(
            undecided(requirement, error, case.label, case.spec.case_id, "", None),
            value=figure.value,
            labels=labels_of(case, figure),
        )
        bounds = figure.bounds(confidence)
        limit = requirement.limit
        leaning: Outcome | None = None
        if not isinstance(bounds, str) and limit is not None:
            low, high = bounds
            line = replace(line, low=low if low > -math.inf else None, high=high if high < math.inf else None)
            leaning = decide(low, high, limit, requirement.metric.better)
        blockers = blockers_of(requirement, case, figure)
        if isinstance(bounds, str) and (figure.value is None or figure.recorded_95 is not None):
            blockers.insert(0, without_figure(requirement, bounds))
        elif isinstance(bounds, str) or (figure.basis == "largest" and leaning == "undecided"):
            line, leaning, blocker = _by_value(line, requirement, figure, bounds)
            blockers += [blocker] if blocker else []
        if not blockers:
            return self._by_bounds(line, requirement, case, figure, leaning or "undecided")
        would = f"; it would {leaning}" if leaning in ("pass", "fail") else ""
        why = "; ".join(dict.fromkeys(blocker.why for blocker in blockers)) + would
        remedy = "; ".join(dict.fromkeys(blocker.remedy for blocker in blockers))
        starts = max(requirement.evidence.min_starts, figure.starts)
        command = sweep_command(requirement, self.candidate, case, starts)
        measure = any(blocker.measure for blocker in blockers)
        return replace(
            line, why=printable(why), remedy=printable(remedy), command=command if measure else None
        )

    def _by_bounds(
        self, line: Line, requirement: Requirement, case: CaseEvidence, figure: Figure, outcome: Outcome
    ) -> Line:
        if outcome != "undecided":
            side = {"pass": "meets", "fail": "misses"}[outcome]
            what = "the figure" if figure.basis in ("exact", "largest") else "the whole interval"
            what = "the bound over its requests" if figure.basis == "load" else what
            return replace(line, outcome=outcome, why=f"{what} {side} the limit")
        why = "the limit lies inside the interval"
        if figure.predicted:
            return replace(line, why=why, remedy="measure it")
        if figure.basis != "starts":
            return replace(
                line,
                why=why,
                remedy="more starts" if requirement.metric.name not in RECORDED else "a longer measurement",
                command=sweep_command(
                    requirement, self.candidate, case, max(5, requirement.evidence.min_starts)
                ),
            )
        domain = figure.in_domain(requirement.limit or 0.0)
        needed = starts_to_decide(figure.per_start, domain, line.confidence)
        if needed is None:
            remedy = (
                f"too close to call: over {MOST_STARTS} starts at this spread; a quieter box or another limit"
            )
            return replace(line, why=why, remedy=remedy)
        more = needed - figure.starts
        remedy = (
            f"about {needed} starts in one new run, {more} more than now (80% chance at this mean and spread)"
        )
        return replace(
            line, why=why, remedy=remedy, command=sweep_command(requirement, self.candidate, case, needed)
        )


def undecided(
    requirement: Requirement, error: float, subject: str, case_id: str | None, why: str, remedy: str | None
) -> Line:
    """Return a line that decides nothing yet.

    Args:
        requirement: what is judged.
        error: probability of a false pass that it may have.
        subject: in words, what it is judged on.
        case_id: of the case, or None where there is none.
        why: what keeps it undecided.
        remedy: what would decide it, or None.
    """
    return Line(
        requirement=requirement.id,
        metric=requirement.metric.name,
        unit=requirement.metric.unit,
        better=requirement.metric.better,
        limit=requirement.limit,
        subject=subject,
        case_id=case_id,
        value=None,
        low=None,
        high=None,
        confidence=1 - error,
        outcome="undecided",
        why=why,
        remedy=remedy,
        command=None,
        labels=(),
        detail=_detail(requirement),
        weight=requirement.weight,
        note=requirement.note,
    )


def _detail(requirement: Requirement) -> str:
    parts = []
    if requirement.percentile is not None:
        parts.append(f"p{requirement.percentile:g}")
    if requirement.slo:
        parts.append("with " + ", ".join(f"{name} at most {limit:g}" for name, limit in requirement.slo))
    if requirement.users is not None:
        parts.append(f"at {requirement.users} users")
    if requirement.context_tokens is not None:
        parts.append(f"at {requirement.context_tokens} tokens each")
    return " ".join(parts)


def _by_value(
    line: Line, requirement: Requirement, figure: Figure, bounds: tuple[float, float] | str
) -> tuple[Line, Outcome | None, Blocker | None]:
    """Judge a figure that has no interval by its value, where the policy lets that count."""
    if figure.value is None or requirement.limit is None:
        return line, None, None
    outcome = decide(figure.value, figure.value, requirement.limit, requirement.metric.better)
    if "no_interval" in requirement.allow:
        return replace(line, labels=(*line.labels, "no interval")), outcome, None
    why = bounds if isinstance(bounds, str) else "it is the most that was seen, and no upper bound"
    return line, outcome, Blocker(why, "`allow: [no_interval]` lets the value alone count", measure=False)
