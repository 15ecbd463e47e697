"""Figures and flags of speculative decoding: what was guessed, and what of it was right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from profiler.engines.server_metrics import ServerMetrics, since
from profiler.results.schema import CaseSpec, Flag, Measurement, Speculation

NO_STEPS = (
    "with speculative decoding a token is not a step of the model, and how many steps there were is not known"
)
_UNITS = {"speculative_acceptance": "ratio", "speculative_tokens_per_step": "tokens"}


def speculation_figures(spec: CaseSpec, starts: Sequence[Speculation | None]) -> dict[str, Measurement]:
    """Return the acceptance of guessed tokens, and tokens per guess; nothing without speculation.

    Args:
        spec: the case.
        starts: what each start that counts has counted.
    """
    if spec.speculative is None:
        return {}
    known = [one for one in starts if one is not None]
    drafts, guessed = sum(one.drafts for one in known), sum(one.draft_tokens for one in known)
    if len(known) < len(starts) or not drafts or not guessed:
        reason = "the engine does not say" if len(known) < len(starts) else "nothing was guessed"
        return {name: Measurement.missing(unit, reason) for name, unit in _UNITS.items()}
    accepted = sum(one.accepted_tokens for one in known)
    values = (accepted / guessed, 1 + accepted / drafts)
    scope = "within_process" if len(starts) == 1 else "across_starts"
    return {
        name: Measurement(value=value, unit=unit, n=drafts, method="counted by the engine", scope=scope)
        for (name, unit), value in zip(_UNITS.items(), values, strict=True)
    }


def speculation_flags(spec: CaseSpec) -> list[Flag]:
    """Return that acceptance is that of our prompts; nothing without speculation."""
    if spec.speculative is None:
        return []
    text = (
        f"speculative decoding ({spec.speculative}): how much is accepted depends on the text, and prompts "
        "are random tokens here"
    )
    hint = "judge a box by runs without it; see what it gains on your own traffic"
    return [Flag(code="speculative_prompts", text=text, hint=hint)]


def speculation_between(
    method: str | None, before: ServerMetrics, after: ServerMetrics
) -> Speculation | None:
    """Return what speculative decoding did between two looks, None without any or where it is not said."""
    if method is None:
        return None
    drafts, guessed = since(before.drafts, after.drafts), since(before.draft_tokens, after.draft_tokens)
    accepted = since(before.accepted_tokens, after.accepted_tokens)
    if drafts is None or guessed is None or accepted is None:
        return None
    return Speculation(method=method, drafts=drafts, draft_tokens=guessed, accepted_tokens=accepted)


def speculation_of_trials(method: str | None, told: Sequence[Mapping[str, Any] | None]) -> Speculation | None:
    """Return what speculative decoding did over trials, None without any or where one does not say.

    Args:
        method: of the case.
        told: the worker's ``speculation`` of each trial.
    """
    if method is None or not told or any(one is None for one in told):
        return None
    names = ("drafts", "draft_tokens", "accepted_tokens")
    return Speculation(method=method, **{name: sum(one[name] for one in told if one) for name in names})
