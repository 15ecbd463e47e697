"""The gate: a buyer's policy and the evidence of runs make pass, fail or undecided.

How often a box that does not meet a requirement passes is bounded by the policy's confidence: a
requirement passes only when its one-sided bound does. Where several chances to pass are given (``any``,
``matching: any``, ``candidates: any``), the error is shared among them (Bonferroni), so that the bound holds
for the whole; where all must pass, nothing needs sharing (Berger 1982, Technometrics 24:295,
intersection-union test).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from profiler.analysis.candidates import Candidate, candidates_of
from profiler.analysis.capacity import capacity, capacity_groups
from profiler.analysis.cost import box_of, cost_figure
from profiler.analysis.cost_types import Box, Costs
from profiler.analysis.decision import MOST_STARTS, Outcome, decide, starts_to_decide
from profiler.analysis.evidence import CaseEvidence
from profiler.analysis.figure_metrics import CAPACITY, COST, RECORDED
from profiler.analysis.figures import Figure, figure_of
from profiler.analysis.gate_blockers import Blocker, blockers_of, labels_of, without_figure
from profiler.analysis.gate_fidelity import fidelity_line
from profiler.analysis.policy import Node, Policy, Requirement, RequirementGroup
from profiler.analysis.ranking import ranking, score
from profiler.analysis.remedy import served_remedy, sweep_command
from profiler.analysis.served import fits_served, served_figure, why_none_fits
from profiler.analysis.verdict import CandidateVerdict, Judged, JudgedNode, Line, Overall, Verdict, combined
from profiler.errors import nearest
from profiler.results.read import Run, printable

MOST_NOTES = 20
MOST_MATCHES = 2000
"""A requirement that means more cases than this is not what anybody meant."""


def judge(
    policy: Policy, runs: Sequence[Run], costs: Costs | None = None, predicted: Sequence[Candidate] = ()
) -> Verdict:
    """Judge runs by a policy.

    Every device with at least one case (of the policy's backends) is a candidate; runs of one device are
    evidence about one candidate.

    Args:
        policy: from :func:`profiler.analysis.policy_file.load_policy`.
        runs: as read from disk.
        costs: prices in place of the policy's own cost file.
        predicted: candidates that are not here; their figures count only where the policy allows it.
    """
    found = candidates_of(runs, _unverified(policy, runs))
    candidates = [one for one in found if not policy.backends or one.device.backend in policy.backends]
    candidates += predicted
    notes = [printable(warning) for run in runs for warning in run.warnings]
    notes[MOST_NOTES:] = [f"and {len(notes) - MOST_NOTES} more warnings"] if len(notes) > MOST_NOTES else []
    notes += [
        f"{printable(one.name)}: no candidate, its backend is {printable(one.device.backend)}"
        for one in found
        if one not in candidates
    ]
    error = 1 - policy.confidence
    if policy.candidates == "any":
        error /= max(1, len(candidates))
    prices = costs if costs is not None else policy.costs
    verdicts = tuple(_candidate(policy, candidate, prices, error) for candidate in candidates)
    about_something = any(line.case_id is not None for each in verdicts for line in each.root.lines())
    outcome: Overall = "nothing"
    if about_something:
        outcome = combined(policy.candidates, [each.outcome for each in verdicts])
    return Verdict(
        policy=policy.name,
        description=policy.description,
        confidence=policy.confidence,
        combine=policy.candidates,
        outcome=outcome,
        candidates=verdicts,
        ranking=ranking(verdicts),
        notes=tuple(notes),
    )


def _unverified(policy: Policy, runs: Sequence[Run]) -> dict[Path, str]:
    """Return why runs do not verify, where the policy asks for that at all."""
    if not any(requirement.evidence.verified for requirement in policy.requirements()):
        return {}
    from profiler.analysis.verify import verify_run  # it brings the code that measures

    verified = {run.path: verify_run(run.path) for run in runs}
    return {
        path: str(found.findings[0]) if found.findings else "it is incomplete"
        for path, found in verified.items()
        if found.state != "verified"
    }


def _candidate(policy: Policy, candidate: Candidate, costs: Costs | None, error: float) -> CandidateVerdict:
    box: Box | str = "the policy names no cost file" if costs is None else box_of(costs, candidate)
    share = 1.0 if costs is None else costs.output_share
    root = _Judge(candidate, box, share).group(policy.root, error)
    points = score(root.lines())
    return CandidateVerdict(
        name=candidate.name,
        device_key=candidate.device.key,
        backend=candidate.device.backend,
        runs=candidate.runs,
        simulated=candidate.simulated,
        outcome=root.outcome,
        root=root,
        score=points.value,
        score_low=points.low,
        score_high=points.high,
        unscored=points.reason,
    )


@dataclass(frozen=True)
class _Judge:
    """Judges one candidate.

    Attributes:
        candidate: the candidate.
        box: its prices, or why there are none.
        output_share: share of the cost on output tokens.
    """

    candidate: Candidate
    box: Box | str
    output_share: float

    def node(self, node: Node, error: float) -> JudgedNode:
        """Judge a requirement or a list; ``error`` is the probability of a false pass that is left to it."""
        return self.requirement(node, error) if isinstance(node, Requirement) else self.group(node, error)

    def group(self, group: RequirementGroup, error: float) -> Judged:
        """Judge a list; the members of ``any`` share the error, as each is a chance to pass."""
        each = error / len(group.members) if group.combine == "any" else error
        members = tuple(self.node(member, each) for member in group.members)
        outcome = combined(group.combine, [member.outcome for member in members])
        return Judged(group.id, group.combine, outcome, members)

    def requirement(self, requirement: Requirement, error: float) -> JudgedNode:
        """Judge a requirement on every case that it means."""
        selector = requirement.case
        if requirement.served:
            return self._served(requirement, error)
        # Memory does not depend on the work.
        about_model = requirement.metric.name in CAPACITY
        fits = selector.fits_model if about_model else selector.fits
        cases = [case for case in self.candidate.cases if case.spec.load is None and fits(case.spec)]
        if not cases:
            return self._no_case(requirement, error)
        if len(cases) > MOST_MATCHES:
            why = f"{len(cases)} cases fit, more than {MOST_MATCHES}: say which ones in case"
            return _undecided(requirement, error, str(selector), cases[0].spec.case_id, why, None)
        groups = capacity_groups(cases) if about_model else [[case] for case in cases]
        each = error / len(groups) if requirement.matching == "any" else error
        lines = tuple(self._line(requirement, group, each) for group in groups)
        return _together(requirement, lines)

    def _served(self, requirement: Requirement, error: float) -> JudgedNode:
        """Judge a requirement at a number of users on every served case that it means."""
        cases = [case for case in self.candidate.cases if fits_served(requirement, case.spec)]
        remedy = served_remedy(requirement)
        if not cases:
            specs = [case.spec for case in self.candidate.cases]
            # Only with a case of the model a requirement says something about this candidate.
            about = next((spec.case_id for spec in specs if requirement.case.fits_model(spec)), None)
            why = printable(why_none_fits(requirement, specs))
            return _undecided(requirement, error, str(requirement.case), about, why, remedy)
        each = error / len(cases) if requirement.matching == "any" else error
        lines = []
        for case in cases[:MOST_MATCHES]:
            if case.status == "ok":
                figure = served_figure(requirement, case, 1 - each)
                line = self._decided(requirement, case, figure, each)
            else:
                line = self._not_measured(requirement, case, each)
            # A sweep of offline batches would not decide it.
            undecided = line.outcome == "undecided"
            lines.append(replace(line, remedy=remedy if undecided else line.remedy, command=None))
        return _together(requirement, tuple(lines))

    def _no_case(self, requirement: Requirement, error: float) -> Line:
        there = {case.spec.scenario for case in self.candidate.cases}
        models = {case.spec.model for case in self.candidate.cases}
        hint = ""
        for wanted, known in ((requirement.case.model, models), (requirement.case.scenario, there)):
            if wanted is not None and wanted.lower() not in {name.lower() for name in known}:
                hint += f"; there is no '{wanted}'{nearest(wanted, known)}"
        why = printable(f"no case of this candidate fits{hint}")
        command = sweep_command(requirement, self.candidate, None, requirement.evidence.min_starts)
        line = _undecided(requirement, error, str(requirement.case), None, why, "measure it")
        return replace(line, command=command)

    def _line(self, requirement: Requirement, cases: Sequence[CaseEvidence], error: float) -> Line:
        case = cases[0]
        if case.forecast is not None:
            nothing = Figure.missing(case.reason or "it is not predicted")
            figure = case.forecast.get(requirement.metric.name, nothing)
        elif requirement.metric.name in CAPACITY:
            figure, case = capacity(
                requirement.metric.name, cases, requirement.limit or 0.0, requirement.context_tokens
            )
        elif case.status != "ok":
            return self._not_measured(requirement, case, error)
        elif requirement.metric.name == "fidelity":
            blank = _undecided(requirement, error, case.label, case.spec.case_id, "", None)
            return fidelity_line(requirement, case, blank)
        elif requirement.metric.name in COST:
            figure = cost_figure(requirement.metric.name, case, self.box, self.output_share)
        else:
            figure = figure_of(requirement.metric.name, case)
        return self._decided(requirement, case, figure, error)

    def _not_measured(self, requirement: Requirement, case: CaseEvidence, error: float) -> Line:
        """A case that failed or never ran; only running out of memory says something about the box."""
        starts = requirement.evidence.min_starts
        command = sweep_command(requirement, self.candidate, case, starts)
        line = _undecided(requirement, error, case.label, case.spec.case_id, "", "measure it again")
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

    def _decided(self, requirement: Requirement, case: CaseEvidence, figure: Figure, error: float) -> Line:
        confidence = 1 - error
        line = replace(
            _undecided(requirement, error, case.label, case.spec.case_id, "", None),
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


def _together(requirement: Requirement, lines: tuple[Line, ...]) -> JudgedNode:
    if len(lines) == 1:
        return lines[0]
    outcome = combined(requirement.matching, [line.outcome for line in lines])
    return Judged(requirement.id, requirement.matching, outcome, lines)


def _undecided(
    requirement: Requirement, error: float, subject: str, case_id: str | None, why: str, remedy: str | None
) -> Line:
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
