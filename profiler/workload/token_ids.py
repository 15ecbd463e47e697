"""Prompts as token ids: random, never the same twice in a run, and the same again for whoever asks.

Random ids keep every cache honest: no prefix, prompt or speculative cache can help with a prompt
that never came before.

To reproduce the ids of one request:

1. Read the stream (:mod:`profiler.workload.stream`) of the purpose ``"tokens"`` and the
   coordinates ``scenario, seed, start, trial, request``: SHAKE-256 over, for example,
   ``["aiprof",1,"tokens","chat",0,0,3,7]``.
2. Cut it into little-endian unsigned 32-bit words.
3. Drop every word that is not below ``2**32 - 2**32 % vocab_size``; keep the others modulo
   ``vocab_size``. The first ``count`` of them are the ids.

Dropping makes every id exactly equally likely.
"""

from __future__ import annotations

import numpy as np

from profiler.workload.stream import GENERATOR_VERSION, stream

__all__ = ["GENERATOR_VERSION", "token_ids"]

_WORDS = 2**32


def token_ids(
    scenario: str, seed: int, start: int, trial: int, request: int, count: int, vocab_size: int
) -> list[int]:
    """Return the prompt of one request.

    Args:
        scenario: name of the scenario.
        seed: the user's seed.
        start: which start of the case, from 0.
        trial: which trial in the start, from 0; warm-up trials have numbers of their own.
        request: which request of the trial, from 0.
        count: tokens wanted.
        vocab_size: ids are below this; from 1 to 2**32.

    Raises:
        ValueError: ``count`` is negative or ``vocab_size`` out of range.
    """
    if count < 0:
        raise ValueError(f"cannot make {count} token ids")
    if not 1 <= vocab_size <= _WORDS:
        raise ValueError(f"vocab_size must be from 1 to 2**32, not {vocab_size}")
    limit = _WORDS - _WORDS % vocab_size
    # Slack of six standard deviations: a second read is possible but all but never needed.
    expected = count * _WORDS / limit
    words = int(expected + 6 * (expected * (_WORDS / limit - 1)) ** 0.5) + 1
    while True:
        raw = np.frombuffer(
            stream("tokens", scenario, seed, start, trial, request, count=4 * words), dtype="<u4"
        )
        kept = raw[raw < limit] if limit < _WORDS else raw
        if len(kept) >= count:
            ids: list[int] = (kept[:count] % np.uint64(vocab_size)).tolist()
            return ids
        words *= 2
