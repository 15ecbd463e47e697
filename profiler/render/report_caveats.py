"""What a reader of the first table must know first: unfaithful engines, flags, single starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from profiler.render.report_subjects import Entry
from profiler.render.report_view import listed, plural

MAX_NAMED: Final = 4
_SINGLE: Final = {"one_start", "one_load"}
# They say what kind of figure it is, which the page says elsewhere, or where the page has a banner.
_TOLD_ELSEWHERE: Final = {"simulated", "fidelity_wrong", "fidelity_degraded"}


def caveats(entries: Sequence[Entry]) -> tuple[str, ...]:
    """Return a sentence for each thing that weakens the figures of the first table.

    Args:
        entries: the cases that stand in it.
    """
    cases = list({entry.anchor: entry for entry in entries}.values())
    return tuple(filter(None, (_unfaithful(cases), _flagged(cases), _single(cases))))


def _unfaithful(cases: Sequence[Entry]) -> str:
    engines = dict.fromkeys(
        f"{entry.spec.engine} with {entry.spec.model_label} on {entry.subject.label} ({entry.refuted})"
        for entry in cases
        if entry.refuted
    )
    if not engines:
        return ""
    return f"Does not count, because the engine computes something else: {listed(list(engines), MAX_NAMED)}."


def _flagged(cases: Sequence[Entry]) -> str:
    codes = [_disturbing(entry) for entry in cases]
    carrying = sum(map(bool, codes))
    if not carrying:
        return ""
    often = Counter(code for found in codes for code in sorted(found)).most_common()
    named = listed([f"{code} in {count}" for code, count in often], MAX_NAMED)
    who = f"Of the {plural(len(cases), 'case')} in this table {carrying}"
    if carrying == len(cases):
        who = "The case in this table" if carrying == 1 else f"All {carrying} cases in this table"
    verb = "carries" if carrying == 1 else "carry"
    return (
        f"{who} {verb} flags: {named}. What was seen and what to do about it stands under “What limits "
        "these results”."
    )


def _disturbing(entry: Entry) -> set[str]:
    return {flag.code for flag in entry.case.flags} - _SINGLE - _TOLD_ELSEWHERE


def _single(cases: Sequence[Entry]) -> str:
    once = sum(any(flag.code in _SINGLE for flag in entry.case.flags) for entry in cases)
    if not once:
        return ""
    which = "Every case" if once == len(cases) else f"{once} of {plural(len(cases), 'case')}"
    verb = "was" if once in (1, len(cases)) else "were"
    return f"{which} {verb} measured in one start or load only, which is no evidence for a purchase."
