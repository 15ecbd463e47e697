"""Does the verdict on an engine follow from what was found at each position? Made again from those."""

from __future__ import annotations

from collections.abc import Iterator

from profiler.measure.differences import Difference, close
from profiler.measure.fidelity_answers import figures_at
from profiler.measure.fidelity_limits import judge
from profiler.models.architecture import Architecture
from profiler.models.formats import Formats
from profiler.results.fidelity_record import Fidelity
from profiler.results.schema import CaseRecord

_NUMBERS = ("mean_kl", "max_kl", "top1_agreement", "max_logit_error", "greedy_gap")
_COUNTS = ("positions", "greedy_tokens", "greedy_agreed")
_SEVERITY = ("faithful", "degraded", "wrong")


def fidelity_faults(case: CaseRecord, architecture: Architecture | None) -> Iterator[Difference]:
    """Yield what of a verdict does not follow from the record.

    Args:
        case: the case.
        architecture: of its model, or None where the record has none.
    """
    found = case.fidelity
    if found is None or found.figures is None:
        return
    at = found.figures.at
    if at is None:
        if found.verdict != "wrong":  # answers that are wrong in themselves are held against nothing
            yield Difference("fidelity", "what was found at each position is missing")
        return
    if len(at.same) != len(at.kl) or len(at.logit_error) not in (0, len(at.kl)):
        yield Difference("fidelity", "its positions are not all there")
    again = figures_at(at, found.figures.prompts)
    for name in (*_NUMBERS, *_COUNTS):
        was, follows = getattr(found.figures, name), getattr(again, name)
        if not close(was, follows):
            yield Difference("fidelity", f"{name} is {was}, the positions give {follows}")
    yield from _verdict_faults(found, case, experts=getattr(architecture, "experts", None) is not None)


def _verdict_faults(found: Fidelity, case: CaseRecord, *, experts: bool) -> Iterator[Difference]:
    """Whether the figures allow the verdict; faults of the answers themselves can only make it worse."""
    assert found.figures is not None
    judgement = judge(found.figures, Formats(**case.spec.formats.model_dump()), experts=experts)
    if _SEVERITY.index(found.verdict) < _SEVERITY.index(judgement.verdict):
        yield Difference("fidelity", f"the verdict is {found.verdict}, the figures say {judgement.verdict}")
    if found.verdict == judgement.verdict == "degraded" and found.explained_by != judgement.explained_by:
        follows = judgement.explained_by
        yield Difference("fidelity", f"{found.explained_by} is said to explain it, {follows} does")
    if found.limits is not None and found.limits != judgement.limits:
        yield Difference("fidelity", "its limits are not those of the number formats")
