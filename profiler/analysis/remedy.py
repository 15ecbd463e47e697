"""What further measurement would decide an undecided requirement, and the command for it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from profiler.analysis.candidates import Candidate
from profiler.analysis.evidence import CaseEvidence
from profiler.analysis.policy import Requirement
from profiler.results.read import printable

SOAK = "30m"


def sweep_command(
    requirement: Requirement, candidate: Candidate, case: CaseEvidence | None, starts: int
) -> str:
    """Return the ``aiprof sweep`` that measures what a requirement is about.

    Everything from a run or a policy is quoted for a POSIX shell, and escaped where it is not printable.

    Args:
        requirement: the requirement.
        candidate: the device.
        case: the case to repeat, or None to make one that fits the requirement's selector.
        starts: fresh processes.
    """
    selector = requirement.case
    spec = case.spec if case is not None else None
    # What cannot count must not be measured again in the same way.
    elsewhere = candidate.simulated and "simulated" not in requirement.allow
    flags: list[tuple[str, str | None]] = [
        ("--preset", "quick" if (spec.variant if spec else selector.variant) == "quick" else "standard"),
        ("--model", spec.model if spec else selector.model),
        ("--scenario", spec.scenario if spec else selector.scenario),
        *(("--precision", name) for name in _precisions(requirement, case)),
        ("--concurrency", str(spec.batch) if spec else _text(selector.batch)),
        ("--engine", spec.engine if spec and not elsewhere else selector.engine),
        # A simulated device is only there for the engine that simulates it.
        ("--device", candidate.device.key if not candidate.simulated or (spec and not elsewhere) else None),
    ]
    words = ["aiprof", "sweep"]
    for flag, value in flags:
        words += [] if value is None else [flag, value]
    words += case.extra_flags if case is not None and not elsewhere else ()
    if requirement.metric.name == "sustained_ratio":
        words += ["--soak", SOAK]
    else:
        words += ["--starts", str(starts)]
    return shlex.join(word if word.isprintable() else printable(word) for word in words)


def _precisions(requirement: Requirement, case: CaseEvidence | None) -> Sequence[str]:
    if case is not None:
        return [case.spec.formats.weight_format]
    selector = requirement.case
    return selector.precision or ([selector.weight_format] if selector.weight_format else [])


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)


def served_remedy(requirement: Requirement) -> str:
    """Return the ``aiprof load`` that measures what a requirement at a number of users is about."""
    words = ["aiprof", "load", "URL", "--scenario", requirement.case.scenario or "NAME"]
    words += ["--concurrency", str(requirement.users)]
    for metric, limit in requirement.slo:
        words += ["--slo", f"{metric.removesuffix('_s')}={limit:g}s"]
    if requirement.percentile is not None and requirement.limit:
        name = requirement.metric.name.removesuffix("_s")
        words += ["--slo", f"{name}_p{requirement.percentile:g}={requirement.limit:g}s"]
    text = shlex.join(word if word.isprintable() else printable(word) for word in words)
    return f"{requirement.evidence.min_starts} loads, or more requests in each: `{text} --requests 2000`"
