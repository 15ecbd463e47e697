"""The gate: a buyer's policy and the evidence of runs make pass, fail or undecided.

How often a box that does not meet a requirement passes is bounded by the policy's confidence: a
requirement passes only when its one-sided bound does. Where several chances to pass are given (``any``,
``matching: any``, ``candidates: any``), the error is shared among them (Bonferroni), so that the bound holds
for the whole; where all must pass, nothing needs sharing (Berger 1982, Technometrics 24:295,
intersection-union test).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from profiler.analysis.candidates import Candidate, candidates_of
from profiler.analysis.capacity import capacity_groups
from profiler.analysis.cost import box_of
from profiler.analysis.cost_types import Box, Costs
from profiler.analysis.figure_metrics import CAPACITY
from profiler.analysis.gate_line import LineJudge, undecided
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
    root = _Judge(candidate, LineJudge(candidate, box, share)).group(policy.root, error)
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
    """Judges one candidate by the tree of a policy.

    Attributes:
        candidate: the candidate.
        lines: judges it by single figures.
    """

    candidate: Candidate
    lines: LineJudge

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
            return undecided(requirement, error, str(selector), cases[0].spec.case_id, why, None)
        groups = capacity_groups(cases) if about_model else [[case] for case in cases]
        each = error / len(groups) if requirement.matching == "any" else error
        lines = tuple(self.lines.of_cases(requirement, group, each) for group in groups)
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
            return undecided(requirement, error, str(requirement.case), about, why, remedy)
        each = error / len(cases) if requirement.matching == "any" else error
        lines = []
        for case in cases[:MOST_MATCHES]:
            if case.status == "ok":
                figure = served_figure(requirement, case, 1 - each)
                line = self.lines.of_figure(requirement, case, figure, each)
            else:
                line = self.lines.not_measured(requirement, case, each)
            # A sweep of offline batches would not decide it.
            still = remedy if line.outcome == "undecided" else line.remedy
            lines.append(replace(line, remedy=still, command=None))
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
        line = undecided(requirement, error, str(requirement.case), None, why, "measure it")
        return replace(line, command=command)


def _together(requirement: Requirement, lines: tuple[Line, ...]) -> JudgedNode:
    if len(lines) == 1:
        return lines[0]
    outcome = combined(requirement.matching, [line.outcome for line in lines])
    return Judged(requirement.id, requirement.matching, outcome, lines)
