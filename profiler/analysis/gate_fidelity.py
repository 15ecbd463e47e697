"""The requirement that the engine computed the right thing."""

from __future__ import annotations

from dataclasses import replace

from profiler.analysis.evidence import CaseEvidence
from profiler.analysis.figures import Figure
from profiler.analysis.gate_blockers import blockers_of, labels_of, without_figure
from profiler.analysis.policy import Requirement
from profiler.analysis.verdict import Line
from profiler.results.read import printable

NO_VERDICT = "the record holds no verdict on fidelity"


def fidelity_line(requirement: Requirement, case: CaseEvidence, line: Line) -> Line:
    """Decide ``verdict: faithful``: every run of the case must say so, and one that says otherwise fails it.

    Args:
        requirement: what is asked for.
        case: the evidence.
        line: undecided, to be filled.
    """
    checks = [record.fidelity for record in case.records]
    figure = Figure.missing(NO_VERDICT)
    line = replace(line, labels=labels_of(case, figure))
    blockers = blockers_of(replace(requirement, flags=replace(requirement.flags, forbidden=())), case, figure)
    against = [found for found in checks if found is not None and found.verdict in ("degraded", "wrong")]
    if against:
        outcome = "fail"
        why = f"{against[0].verdict}: {against[0].reason}"
    elif all(found is not None and found.verdict == "faithful" for found in checks):
        outcome, why = "pass", "faithful"
    else:
        unsaid = next(found for found in checks if found is None or found.verdict == "not_checked")
        reason = NO_VERDICT if unsaid is None else f"not checked: {unsaid.reason}"
        blocker = without_figure(requirement, reason)
        return replace(line, why=printable(blocker.why), remedy=blocker.remedy)
    if not blockers:
        return replace(line, outcome="pass" if outcome == "pass" else "fail", why=printable(why))
    why = "; ".join(dict.fromkeys(blocker.why for blocker in blockers)) + f"; it would {outcome}"
    remedy = "; ".join(dict.fromkeys(blocker.remedy for blocker in blockers))
    return replace(line, why=printable(why), remedy=printable(remedy))
