"""What the fake engine answers when it is asked for tokens: logits made from the text, not from a model.

They behave as those of a model that rounds: the same text always has the same logits, another text
has others, and a number format adds noise of about the size that it has in the fidelity check.
"""

from __future__ import annotations

import hashlib
import math
import random
from typing import Any

CANDIDATES = 64
DEVIATION = 4.0
# Standard deviation of a logit's error, a plausible one for each format (fp32: too small to be seen).
NOISE = {
    "fp32": 1e-5,
    "fp16": 0.01,
    "bf16": 0.05,
    "q8_0": 0.1,
    "w8a16-int8": 0.08,
    "w8a8-int8": 0.15,
    "fp8-block128": 0.2,
    "w4a16-g128": 0.8,
    "q4_0": 0.8,
}
MODES = ("faithful", "wrong", *NOISE)


def next_logits(text: tuple[int, ...], vocabulary: int, mode: str, weight_format: str) -> dict[int, float]:
    """Return logits of the likeliest tokens after ``text``.

    Args:
        text: all tokens so far.
        vocabulary: tokens there are.
        mode: ``faithful``, ``wrong`` (another model), or a format that secretly replaces the claimed one.
        weight_format: the claimed one.
    """
    noise = NOISE.get(mode, NOISE.get(weight_format, 0.05))
    seed = hashlib.sha256(repr(text[-8:]).encode()).hexdigest()
    exact, error = random.Random(seed), random.Random(seed + weight_format + mode)
    count = min(CANDIDATES, vocabulary)
    ids = exact.sample(range(vocabulary), count)
    source = random.Random(seed + "of another model") if mode == "wrong" else exact
    return {token: source.gauss(0.0, DEVIATION) + error.gauss(0.0, noise) for token in ids}


def score(request: dict[str, Any], vocabulary: int, mode: str, weight_format: str) -> dict[str, Any]:
    """Answer a ``score`` request; see :mod:`scoring`."""
    found: dict[str, Any] = {"tokens": [], "ids": [], "logits": [], "log_sum_exp": []}
    forced, wanted = request["forced_ids"], request.get("score_ids")
    for row, prompt in enumerate(request["prompt_ids"]):
        text = tuple(prompt)
        sequence: dict[str, list[Any]] = {name: [] for name in found}
        for step in range(request["output_tokens"]):
            logits = next_logits(text, vocabulary, mode, weight_format)
            best = max(logits, key=lambda token: (logits[token], token))
            ids = sorted(logits) if wanted is None else wanted[row][step]
            sequence["tokens"].append(best)
            sequence["ids"].append(ids)
            sequence["logits"].append([logits.get(token, -20.0) for token in ids])
            highest = max(logits.values())
            total = sum(math.exp(value - highest) for value in logits.values())
            sequence["log_sum_exp"].append(highest + math.log(total))
            given = forced[row]
            text = (*text, best if given is None or step >= len(given) else given[step])
        for name, values in sequence.items():
            found[name].append(values)
    return found
