"""The prompts of a trial, and what a verifier's challenge changes about them.

A challenge is a text that a verifier makes up and a sweep mixes into the token ids and the seed of
random weights. Nobody can have computed anything with them before the challenge was known.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from profiler.workload.stream import stream
from profiler.workload.token_ids import token_ids


def trial_prompts(
    label: str,
    *,
    seed: int,
    challenge: str | None,
    start: int,
    trial: int,
    batch: int,
    prompt_tokens: int,
    vocab_size: int,
) -> list[list[int]]:
    """Return the token ids of every request of a trial.

    Args:
        label: what keeps cases of one scenario apart, see :func:`case_label`.
        seed: the user's seed.
        challenge: of the verifier, or None.
        start: which start of the case, from 0.
        trial: which trial in the start, from 0, warm-up included.
        batch: requests.
        prompt_tokens: length of each prompt.
        vocab_size: ids are below this.
    """
    name = label if challenge is None else f"{label}/challenge/{challenge}"
    return [
        token_ids(name, seed, start, trial, request, prompt_tokens, vocab_size) for request in range(batch)
    ]


def case_label(scenario: str, variant: str, batch: int) -> str:
    """Return what two cases of one scenario do not share, so that they never share a prompt."""
    return f"{scenario}/{variant}/{batch}"


def weights_seed(seed: int, challenge: str | None) -> int:
    """Return the seed of random weights: the user's, or 63 bits that follow from it and the challenge."""
    if challenge is None:
        return seed
    return int.from_bytes(stream("weights", seed, challenge, count=8), "little") >> 1


def prompts_digest(prompts: Sequence[Sequence[int]]) -> str:
    """SHA-256 in hex over the prompts as JSON without spaces, in ASCII: ``[[1,2],[3,4]]``."""
    return hashlib.sha256(
        json.dumps([list(ids) for ids in prompts], separators=(",", ":")).encode()
    ).hexdigest()
