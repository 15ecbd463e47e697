"""What a server's answers show by themselves, whatever model is behind them.

Fresh prompts, each asked twice, must bring answers of the length asked for, different ones, under the name
that was asked, and not much faster the second time.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace

from profiler.load.asking import Said
from profiler.load.job import Job
from profiler.measure.fidelity_answers import Answer, Fault, answer_faults, caching_fault
from profiler.measure.fidelity_artefact import STEPS
from profiler.privacy import served_name
from profiler.results.fidelity_record import AnswerCheck


def look_at_answers(job: Job, said: Sequence[Said]) -> tuple[list[Fault], list[AnswerCheck]]:
    """Return what is wrong whatever the model, and a line on everything that was looked at.

    Args:
        job: the server and what it understands.
        said: answers of ``STEPS`` tokens to prompts that were each asked twice in a row.
    """
    ok = [one for one in said if one.status == "ok"]
    fresh, again = said[::2], said[1::2]
    both = [(one, two) for one, two in zip(fresh, again, strict=True) if one.status == two.status == "ok"]
    first = [_answer(one) for one in fresh if one.status == "ok"]
    faults = answer_faults([(number,) for number in range(len(first))], first, STEPS, frozenset())
    ended = [one for one in ok if one.finish_reason == "stop" and (one.tokens or 0) < STEPS]
    checks = [_length(ok, len(said))]
    if ended:
        text = f"{len(ended)} of {len(ok)} answers end with the end of sequence before {STEPS} tokens"
        if len(ended) == sum((one.tokens or 0) < STEPS for one in ok):
            faults = [fault for fault in faults if fault.code != "shortened"]
        if job.features.ignore_eos:
            faults.append(Fault("end_of_sequence", text))
        else:
            text += "; the server has no ignore_eos"
        checks.append(_check("end_of_sequence", False if job.features.ignore_eos else None, text))
    else:
        checks.append(
            _check("end_of_sequence", bool(ok) or None, "no answer ended early with the end of sequence")
        )
    canned = next((fault.text for fault in faults if fault.code == "canned"), None)
    distinct = canned or f"{len(fresh)} different prompts got different answers"
    checks.append(_check("distinct", canned is None if len(ok) > 1 else None, distinct))
    name = _name_check(job.model, ok)
    checks.append(name)
    if name.passed is False:
        faults.append(Fault("served_model", name.text))
    checks.append(_cache_check([one for one, _ in both], [two for _, two in both]))
    return faults, checks


def _length(ok: Sequence[Said], asked: int) -> AnswerCheck:
    counts = [one.tokens for one in ok if one.tokens is not None]
    if not counts:
        return _check("length", None, f"none of {asked} prompts was answered")
    seen = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    lost = "" if len(ok) == asked else f"; {asked - len(ok)} of {asked} prompts were not answered"
    good = min(counts) == max(counts) == STEPS and not lost
    return _check("length", good, f"answers of {seen} tokens, {STEPS} were asked for{lost}")


def _name_check(asked: str, ok: Sequence[Said]) -> AnswerCheck:
    names = {one.model for one in ok if one.model}
    if not names:
        return _check("served_model", None, "the server does not say which model answers")
    others = sorted(name for name in names if not _same_model(asked, name))
    if others:
        answering = ", ".join(served_name(name) for name in others)
        return _check("served_model", False, f"asked for {served_name(asked)}, {answering} answers")
    return _check("served_model", True, f"{served_name(asked)} answers under this name")


def _same_model(asked: str, served: str) -> bool:
    """Whether two names may mean one model: folders left out, and a version or tag behind it allowed."""
    ours, theirs = (name.rstrip("/").rsplit("/", 1)[-1].lower() for name in (asked, served))
    return (
        theirs == ours
        or theirs.startswith((f"{ours}-", f"{ours}:", f"{ours}@"))
        or ours.startswith(f"{theirs}:")
    )


def _cache_check(fresh: Sequence[Said], again: Sequence[Said]) -> AnswerCheck:
    """Look for a cache of answers (the whole is faster) or prefixes (the first token is, or it says so)."""
    if len(fresh) < 3:
        return _check("cache", None, "too few answers to tell")
    said = sum(one.cached_tokens or 0 for one in again)
    whole = caching_fault([_answer(one) for one in fresh], [_answer(one) for one in again])
    first = caching_fault(
        [replace(_answer(one), elapsed_s=one.first_s) for one in fresh],
        [replace(_answer(one), elapsed_s=one.first_s) for one in again],
    )
    # Behind a short answer a saved prefill is most of the time, too; what the server says of it comes first.
    if said:
        return _check(
            "cache", False, f"the server took {said} tokens of repeated prompts from a prefix cache"
        )
    if whole is not None:
        return _check("cache", False, f"{whole.text}: answers come from a cache")
    if first is not None:
        return _check("cache", False, f"{first.text} up to the first token: prefixes come from a cache")
    return _check("cache", True, "a repeated prompt takes as long as a fresh one")


def _check(name: str, passed: bool | None, text: str) -> AnswerCheck:
    return AnswerCheck(name=name, passed=passed, text=text)


def _answer(said: Said) -> Answer:
    """Return an answer for the checks that need no reference.

    Where no ids are told, slices of the text stand for tokens: as many as there are, equal for equal texts.
    """
    tokens = said.ids
    if not tokens and said.tokens:
        size = len(said.text) / said.tokens
        slices = [said.text[int(at * size) : int((at + 1) * size)] for at in range(said.tokens)]
        tokens = tuple(zlib.crc32(one.encode("utf-8", "surrogatepass")) for one in slices)
    return Answer(tokens, elapsed_s=said.elapsed_s)
