"""Does an engine answer from a cache? The last trial's prompts once more, against fresh ones.

No measured trial shares a prompt with another, so no cache can help it; what is asked here is whether a
cache is there at all, because a user's figures, or another tool's, would then be faster than these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from profiler.measure.phase_energies import Run
from profiler.results.schema import Flag, TrialRecord

WHOLE_SHARE, PREFILL_SHARE = 0.02, 0.05
"""Parts of the time of a start that a whole repeat, and one up to the first token, may take."""

MUCH_FASTER = 0.6
"""A repeated prompt that takes less than this part of a fresh one's time was not computed again."""

Ask = Callable[[bool, int], Run]
"""Runs a batch with the last trial's prompts (True) or with other ones, always the same (False); and for how
many tokens."""


@dataclass(frozen=True)
class RepeatedPrompt:
    """What became of the check.

    Attributes:
        ratio: smallest ratio of the repeated prompt's times to those of fresh ones, or None: not judged,
            because it would have taken too long.
        flag: ``cached_answers``, or None.
    """

    ratio: float | None
    flag: Flag | None = None


def tokens_to_repeat(trial: TrialRecord, output_tokens: int, seconds: float) -> int | None:
    """Return how many tokens a repeat may generate without costing much, or None for no repeat.

    Args:
        trial: a measured one.
        output_tokens: of the case.
        seconds: time of the start.
    """
    if trial.e2e_s <= WHOLE_SHARE * seconds:
        return output_tokens
    if trial.prefill_s is None:  # mixed phases: a repeat up to the first token has nothing to be held against
        return None
    return 1 if trial.prefill_s <= PREFILL_SHARE * seconds else None


def reserve_s(trial: TrialRecord, output_tokens: int, seconds: float) -> float:
    """Return the time to be kept back for the repeat."""
    tokens = tokens_to_repeat(trial, output_tokens, seconds)
    if tokens is None:
        return 0.0
    return trial.e2e_s if tokens == output_tokens else _first_s(trial)


def repeat_prompt(
    trials: Sequence[TrialRecord], output_tokens: int, seconds: float, ask: Ask
) -> RepeatedPrompt:
    """Run the last prompts again; if that is much faster than any trial was, make sure.

    Args:
        trials: of the start, warm-up included; the last one is measured.
        output_tokens: of the case.
        seconds: that the start has taken so far.
        ask: runs a batch.
    """
    tokens = tokens_to_repeat(trials[-1], output_tokens, seconds)
    if tokens is None:
        return RepeatedPrompt(None)
    measured = [trial for trial in trials if not trial.warm_up]
    fastest = [min(_first_s(trial) for trial in measured), min(trial.e2e_s for trial in measured)]
    compared = slice(None) if tokens == output_tokens else slice(1)
    ratio = _ratio(_times(ask(True, tokens))[compared], fastest[compared])
    if ratio >= MUCH_FASTER:
        return RepeatedPrompt(ratio)
    # The device may just have got faster: only a fresh prompt beside a repeated one tells. The fresh one is
    # what is repeated, because a server with one slot remembers nothing but the last prompt.
    beside = _times(ask(False, tokens))
    ratio = _ratio(_times(ask(False, tokens))[compared], beside[compared])
    if ratio >= MUCH_FASTER:
        return RepeatedPrompt(ratio)
    text = (
        f"the same prompt took {ratio:.0%} of a fresh one's time: the engine, or something before it, "
        "answers from a cache. The trials here shared no prompt; figures made on repeated ones flatter"
    )
    hint = "turn prefix and answer caches off, or compare only with figures made on fresh prompts"
    return RepeatedPrompt(ratio, Flag(code="cached_answers", text=text, hint=hint))


def _times(run: Run) -> list[float]:
    first_ns = run.last_ns if run.first_ns is None else run.first_ns
    return [(first_ns - run.submit_ns) / 1e9, (run.last_ns - run.submit_ns) / 1e9]


def _ratio(repeated: Sequence[float], fresh: Sequence[float]) -> float:
    return min(mine / other for mine, other in zip(repeated, fresh, strict=True))


def _first_s(trial: TrialRecord) -> float:
    """Return the time to the first token, or the whole where phases were mixed."""
    return trial.e2e_s if trial.prefill_s is None else trial.prefill_s
