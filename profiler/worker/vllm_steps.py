"""One batch through vLLM's engine, step by step, with a stamp after each."""

from __future__ import annotations

import time
from typing import Any, Dict, List, Optional

from .protocol import EngineError


class Stepped:
    """What a batch did.

    Attributes:
        submit_ns: before the first prompt was handed over.
        stamps: end of each engine step that gave tokens.
        given: for each of these steps, how many requests got how many tokens, as a list per request.
        ids: tokens of each request.
        preemptions: how often a request was thrown out of the cache and begun again.
        engine: earliest ``scheduled``, last ``first_token`` and ``last_token`` by the engine's own clock,
            seconds; None where it keeps none.
    """

    def __init__(self, count: int) -> None:
        self.submit_ns = 0
        self.stamps: List[int] = []
        self.given: List[List[int]] = []
        self.ids: List[List[int]] = [[] for _ in range(count)]
        self.preemptions = 0
        self.engine: Optional[Dict[str, float]] = None

    def mixed(self) -> Optional[str]:
        """Return why prefill and decode cannot be told apart, or None where they can."""
        if self._single():
            return None  # all of it is prefill, in however many steps
        if self.preemptions:
            return "%d requests were preempted and computed again" % self.preemptions
        waiting = {row for row, _ in enumerate(self.ids)}
        firsts = []
        for at, given in enumerate(self.given):
            begun = {row for row in waiting if given[row]}
            if begun:
                firsts.append(at)
                waiting -= begun
        if len(firsts) > 1:
            return (
                "vLLM finished the prompts over %d steps and decoded meanwhile: they do not fit into one "
                "step (max_num_batched_tokens)" % (firsts[-1] - firsts[0] + 1)
            )
        return None

    def token_stamps(self) -> List[int]:
        """Return for each token when the last request had it: with guesses, steps give several or differ."""
        found: List[int] = []
        have = [0] * len(self.ids)
        for at, stamp in enumerate(self.stamps):
            have = [before + self.given[at][row] for row, before in enumerate(have)]
            found += [stamp] * (min(have) - len(found))
        return found

    def first_ns(self) -> int:
        """Return when all requests had their first token, where phases are not mixed."""
        return self.stamps[-1] if self._single() else self.stamps[0]

    def _single(self) -> bool:
        return all(len(ids) == 1 for ids in self.ids)


def run(engine: Any, prompts: List[List[int]], params: Any, label: str) -> Stepped:
    """Run a batch to its end.

    Args:
        engine: vLLM's ``LLMEngine``.
        prompts: token ids; all are queued before the first step.
        params: vLLM's ``SamplingParams`` with deltas as output.
        label: makes request ids unique.

    Raises:
        EngineError: ``internal``, when a request got another number of tokens than asked for.
    """
    rows = {"%s-%d" % (label, row): row for row in range(len(prompts))}
    found = Stepped(len(prompts))
    metrics = []
    found.submit_ns = time.monotonic_ns()
    for name, row in rows.items():
        engine.add_request(name, {"prompt_token_ids": prompts[row]}, params)
    while engine.has_unfinished_requests():
        outputs = engine.step()
        now = time.monotonic_ns()
        given = [0] * len(prompts)
        for output in outputs:
            row, tokens = rows[output.request_id], output.outputs[0].token_ids
            given[row] += len(tokens)
            found.ids[row].extend(int(token) for token in tokens)
            if output.finished:
                metrics.append(output.metrics)
        if any(given):
            found.stamps.append(now)
            found.given.append(given)
    lengths = sorted({len(ids) for ids in found.ids})
    if lengths != [params.max_tokens]:
        raise EngineError(
            "internal",
            "asked vLLM for %d tokens, got %s" % (params.max_tokens, " and ".join(map(str, lengths))),
        )
    known = [one for one in metrics if one is not None]
    found.preemptions = sum(int(getattr(one, "num_preemptions", 0)) for one in known)
    if known and len(known) == len(prompts):
        found.engine = {
            "scheduled_s": min(one.scheduled_ts for one in known),
            "first_token_s": max(one.first_token_ts for one in known),
            "last_token_s": max(one.last_token_ts for one in known),
        }
    return found
