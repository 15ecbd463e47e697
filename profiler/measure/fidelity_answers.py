"""What engines answer in a fidelity check, and how far two answers are apart.

Any engine can be held to this: one that gives its logits, a server that gives the log-probabilities of
its twenty best tokens, or one that gives nothing but text. Nothing here knows how answers were got.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from profiler.results.fidelity_record import FidelityFigures, FidelityPositions, GreedyComparison

Prompt = tuple[int, ...]
# Probability below which a class counts as this: an engine that cannot say less than e**-23 is not wrong.
LEAST_PROBABILITY = 1e-10
# A repeated prompt that takes less than this share of a fresh one was not computed again.
CACHED_SHARE = 0.5


@dataclass(frozen=True)
class Answer:
    """What was said to one prompt.

    Attributes:
        tokens: the likeliest token at each position.
        logprobs: natural log-probabilities by token at each position, as many tokens as the engine
            gives; empty when it gives none.
        log_sum_exp: of all logits at each position, so that logit = logprob + this; empty when unknown.
        elapsed_s: time until the whole answer was there, or None.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[Mapping[int, float], ...] = ()
    log_sum_exp: tuple[float, ...] = ()
    elapsed_s: float | None = None


@dataclass(frozen=True)
class Fault:
    """Something in the answers that no rounding explains.

    Attributes:
        code: ``shortened``, ``end_of_sequence``, ``canned`` or ``cached``.
        text: what was seen.
    """

    code: str
    text: str


def divergence(reference: Mapping[int, float], found: Mapping[int, float]) -> float:
    """Return the Kullback-Leibler divergence of ``found`` from ``reference`` in nats.

    Over the tokens that both name, one class for those that only the reference names, and one for all
    others; by the data processing inequality (Cover & Thomas, Elements of Information Theory, 2.8) that
    is at most the divergence over the whole vocabulary. A server names its likeliest tokens, so that each
    one it does not name is at most as likely as the last it does; within this bound the second class is
    given the share that makes the divergence smallest.

    Args:
        reference: log-probabilities by token.
        found: likewise; of all that the reference names, or of the likeliest tokens.
    """
    shared = sorted(reference.keys() & found.keys())
    ours = [math.exp(min(reference[token], 0.0)) for token in shared]
    theirs = [math.exp(min(found[token], 0.0)) for token in shared]
    unnamed = math.fsum(math.exp(min(reference[token], 0.0)) for token in reference.keys() - found.keys())
    left, theirs_left = (max(1.0 - math.fsum(masses), 0.0) for masses in (ours, theirs))
    if unnamed and left:
        named_alone = math.fsum(math.exp(min(found[token], 0.0)) for token in found.keys() - reference.keys())
        least = math.exp(min(min(found.values(), default=0.0), 0.0))
        most = min(len(reference.keys() - found.keys()) * least, theirs_left - named_alone)
        share = max(min(theirs_left * min(unnamed / left, 1.0), most), 0.0)
        ours.append(min(unnamed, left))
        theirs.append(share)
        left, theirs_left = left - ours[-1], theirs_left - share
    ours.append(left)
    theirs.append(theirs_left)
    terms = [
        p * (math.log(max(p, LEAST_PROBABILITY)) - math.log(max(q, LEAST_PROBABILITY)))
        for p, q in zip(ours, theirs, strict=True)
    ]
    return max(math.fsum(terms), 0.0)


def compare(
    scored: Sequence[Answer],
    found: Sequence[Answer],
    greedy: Sequence[Answer],
    continued: Sequence[Answer],
) -> FidelityFigures:
    """Return how far an engine is from the reference.

    Args:
        scored: the reference along given tokens, one answer for each prompt.
        found: the engine along the same tokens, or nothing.
        greedy: the reference along its own choices, one answer for each prompt.
        continued: the engine's own greedy continuations.
    """
    divergences: list[float] = []
    same: list[bool] = []
    errors: list[float] = []
    for ours, theirs in zip(scored, found, strict=False):
        for position, (reference, given) in enumerate(zip(ours.logprobs, theirs.logprobs, strict=False)):
            divergences.append(divergence(reference, given))
            same.append(ours.tokens[position] == theirs.tokens[position])
            shared = reference.keys() & given.keys()
            if shared and ours.log_sum_exp and theirs.log_sum_exp:
                shift = theirs.log_sum_exp[position] - ours.log_sum_exp[position]
                errors.append(max(abs(given[token] - reference[token] + shift) for token in shared))
    steps = [_followed(ours, theirs) for ours, theirs in zip(greedy, continued, strict=False)]
    at = FidelityPositions(
        kl=tuple(divergences), same=tuple(same), logit_error=tuple(errors), greedy=tuple(steps)
    )
    return figures_at(at, max(len(scored), len(greedy)))


def figures_at(at: FidelityPositions, prompts: int) -> FidelityFigures:
    """Return the figures that follow from what was found at each position.

    Args:
        at: what was found.
        prompts: prompts that were answered.
    """
    gaps = [step.gap for step in at.greedy if step.gap is not None]
    return FidelityFigures(
        prompts=prompts,
        positions=len(at.kl),
        mean_kl=fmean(at.kl) if at.kl else None,
        max_kl=max(at.kl, default=None),
        top1_agreement=fmean(at.same) if at.same else None,
        max_logit_error=max(at.logit_error, default=None),
        greedy_tokens=sum(step.compared for step in at.greedy),
        greedy_agreed=sum(step.agreed for step in at.greedy),
        greedy_gap=max(gaps, default=None),
        at=at,
    )


def _followed(reference: Answer, found: Answer) -> GreedyComparison:
    """Compare two continuations up to where they part.

    After the first difference the two continue different texts, and nothing can be compared.
    """
    for position, (ours, theirs) in enumerate(zip(reference.tokens, found.tokens, strict=False)):
        if ours != theirs:
            known = reference.logprobs[position]
            # A token that the reference does not even name is at most as likely as the last it names.
            gap = known[ours] - known.get(theirs, min(known.values()))
            return GreedyComparison(compared=position + 1, agreed=position, gap=gap)
    both = min(len(reference.tokens), len(found.tokens))
    return GreedyComparison(compared=both, agreed=both)


def answer_faults(
    prompts: Sequence[Prompt], answers: Sequence[Answer], wanted: int, end_of_sequence: frozenset[int]
) -> list[Fault]:
    """Return what is wrong with answers whatever the model.

    Args:
        prompts: all different.
        answers: one for each.
        wanted: tokens that were asked for.
        end_of_sequence: tokens that must not end an answer.
    """
    faults = []
    short = [answer for answer in answers if len(answer.tokens) < wanted]
    ended = [answer for answer in short if answer.tokens and answer.tokens[-1] in end_of_sequence]
    if ended:
        text = f"{len(ended)} of {len(answers)} answers end with the end of sequence before {wanted} tokens"
        faults.append(Fault("end_of_sequence", text))
    if len(short) > len(ended):
        fewest = min(len(answer.tokens) for answer in short)
        text = f"{len(short)} of {len(answers)} answers are short of {wanted} tokens, down to {fewest}"
        faults.append(Fault("shortened", text))
    distinct = len({answer.tokens for answer in answers})
    if len(answers) > 1 and distinct <= len(answers) // 2 and len(set(prompts)) == len(prompts):
        text = f"{len(answers)} different prompts got only {distinct} different answers"
        faults.append(Fault("canned", text))
    return faults


def caching_fault(fresh: Sequence[Answer], repeated: Sequence[Answer]) -> Fault | None:
    """Return whether repeated prompts were answered from a cache, judged by time.

    Every repeated answer must have been faster than every fresh one, and their median must have
    taken less than half; so a single hiccup decides nothing.

    Args:
        fresh: answers to prompts never sent before.
        repeated: answers to prompts of the same length that had been sent before.
    """
    first = [answer.elapsed_s for answer in fresh if answer.elapsed_s is not None]
    again = [answer.elapsed_s for answer in repeated if answer.elapsed_s is not None]
    if len(first) < 3 or len(again) < 3 or max(again) >= min(first):
        return None
    share = median(again) / median(first)
    if share >= CACHED_SHARE:
        return None
    return Fault("cached", f"a repeated prompt takes {share:.0%} of the time of a fresh one")
