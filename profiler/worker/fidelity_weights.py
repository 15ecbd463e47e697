"""Weights under which a mistake anywhere in a model shows in its next-token distribution.

N(0, 0.02) everywhere, as for throughput, would hide most mistakes: attention is nearly uniform, so a
wrong rotation changes nothing, and logits are so alike that a layer left out moves no probability.
The same normal numbers (``random_weights``) are scaled here, tensor by tensor, after these rules;
docs/method.md has the derivation. H is the width of the stream, L the layers, V the vocabulary, D
the width of a head, ``n`` a number of N(0, 1):

- Every attention and every MLP adds a vector of root mean square about 1 to the stream, so that each
  has the same share of the result.
- Attention scores have the standard deviation 2.5: a few positions take most of the weight, and which
  ones depends on the rotary embedding.
- Logits have the standard deviation sqrt(2 ln V), at which the softmax of V normal numbers just
  condenses on a few of them: neither flat nor one token of probability 1.
- A tied embedding meets itself in the head. It is kept so small in the stream that a token's own logit
  is raised by one standard deviation, not by hundreds.
- Norm weights are 1 + n/4, biases n/2: an engine that leaves them out is seen.
- One rotary pair in eight is sixteen times as large in the keys and as much smaller in the queries. In
  floating point these powers of two change nothing at all; a cache of 8-bit integers, whose scale the
  large ones set, loses four bits of all others.

All values are rounded to bf16 first, so that every engine gets numbers it can hold exactly and
differences come from its arithmetic. Pure Python up to :class:`FidelitySource`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

SCHEME = "aiprof-fidelity-1"
SCORE_DEVIATION = 2.5
OWN_TOKEN_DEVIATIONS = 1.0
OUTLIER = 16.0
EVERY = 8
BIAS_DEVIATION = 0.5
NORM_DEVIATION = 0.25
ROUTER_DEVIATION = 1.5
# Root mean square of what these get from independent normal numbers of variance 1, measured once.
SWIGLU_RMS = 0.6
ATTENDED_RMS = 0.5


class Recipe(NamedTuple):
    """How a tensor is made: ``(mean + deviation * n)``, rounded to bf16, times powers of two.

    Attributes:
        deviation: standard deviation.
        mean: mean.
        rows: factor of each row (of each value of a vector), or None.
    """

    deviation: float
    mean: float = 0.0
    rows: list[float] | None = None


def logit_deviation(vocabulary: int) -> float:
    """Standard deviation at which the softmax of so many normal logits condenses: sqrt(2 ln V)."""
    return math.sqrt(2.0 * math.log(max(vocabulary, 2)))


def recipe(name: str, shape: tuple[int, ...], architecture: dict[str, Any]) -> Recipe:
    """Return how the tensor ``name`` is made.

    Args:
        name: Hugging Face tensor name.
        shape: of the tensor.
        architecture: fields of ``profiler.models.architecture.Architecture``.
    """
    part = name.rsplit(".", 1)[0].rsplit(".", 1)[-1]
    if name in ("model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"):
        return _outside(name, architecture)
    if name.endswith("bias"):
        return _bias(name, part, shape, architecture)
    if len(shape) == 1:
        return _norm(part, shape, architecture)
    if ".self_attn." in name:
        return _attention(part, shape, architecture)
    return _mlp(name, part, shape, architecture)


def _outside(name: str, architecture: dict[str, Any]) -> Recipe:
    width, tied = math.sqrt(architecture["hidden_size"]), architecture["tied_embeddings"]
    logits = logit_deviation(architecture["vocab_size"])
    stream = math.sqrt(2.0 * architecture["layers"])
    embedding = OWN_TOKEN_DEVIATIONS * stream / width if tied else 1.0
    if name == "model.embed_tokens.weight":
        return Recipe(embedding)
    if name == "lm_head.weight":
        return Recipe(logits / width)
    gain = logits / (width * embedding) if tied else 1.0
    return Recipe(gain * NORM_DEVIATION, gain)


def _bias(name: str, part: str, shape: tuple[int, ...], architecture: dict[str, Any]) -> Recipe:
    if name.endswith("e_score_correction_bias"):
        return Recipe(0.1)
    return Recipe(BIAS_DEVIATION, 0.0, _head_rows(part, shape[0], architecture))


def _norm(part: str, shape: tuple[int, ...], architecture: dict[str, Any]) -> Recipe:
    if part in ("q_norm", "k_norm"):
        gain = math.sqrt(SCORE_DEVIATION)
        rows = _rotary(shape[0], OUTLIER if part == "k_norm" else 1.0 / OUTLIER)
        return Recipe(gain * NORM_DEVIATION, gain, rows)
    return Recipe(NORM_DEVIATION, 1.0)


def _attention(part: str, shape: tuple[int, ...], architecture: dict[str, Any]) -> Recipe:
    rows, columns = shape
    plain, score = 1.0 / math.sqrt(columns), math.sqrt(SCORE_DEVIATION / columns)
    if part == "o_proj":
        return Recipe(plain / ATTENDED_RMS)
    if part in ("v_proj", "kv_b_proj", "q_a_proj"):
        return Recipe(plain)
    normed = architecture["qk_norm"]
    return Recipe(plain if normed else score, 0.0, _head_rows(part, rows, architecture))


def _head_rows(part: str, rows: int, architecture: dict[str, Any]) -> list[float] | None:
    """Return the factors of the rows of a projection to queries or keys, or None."""
    latent = architecture["latent_attention"]
    if part == "v_proj":
        return None
    if latent is not None:
        rope = _rotary_pairs(latent["rope_head_dim"], OUTLIER if part.startswith("kv_a") else 1.0 / OUTLIER)
        if part.startswith("kv_a"):
            return [1.0] * (rows - len(rope)) + rope
        if part not in ("q_proj", "q_b_proj"):
            return None
        plain = [1.0] * int(latent["nope_head_dim"])
        heads: int = architecture["heads"]
        return (plain + rope) * heads
    if architecture["qk_norm"]:  # its norm undoes what came before
        return None
    width: int = architecture["head_dim"]
    return _rotary(width, OUTLIER if part == "k_proj" else 1.0 / OUTLIER) * (rows // width)


def _mlp(name: str, part: str, shape: tuple[int, ...], architecture: dict[str, Any]) -> Recipe:
    plain, moe = 1.0 / math.sqrt(shape[1]), architecture["experts"]
    if part == "gate":
        return Recipe(ROUTER_DEVIATION * plain)
    if part != "down_proj":
        return Recipe(plain)
    if ".experts." in name:
        # k experts with a weight of about 1/k each add up to 1/sqrt(k).
        return Recipe(plain / SWIGLU_RMS * math.sqrt(moe["per_token"]) / moe["scale"])
    return Recipe(plain / SWIGLU_RMS)


def _channels(count: int, factor: float) -> list[float]:
    return [factor if channel % EVERY == 0 else 1.0 for channel in range(count)]


def _rotary(width: int, factor: float) -> list[float]:
    """Factors of a head whose rotary pairs are (d, d + D/2); both of a pair must have the same."""
    return _channels(width // 2, factor) * 2


def _rotary_pairs(width: int, factor: float) -> list[float]:
    """Likewise for pairs (2d, 2d + 1)."""
    return [value for value in _channels(width // 2, factor) for _ in range(2)]


class FidelitySource:
    """Fills a decoder after the recipes; ``details`` go into the answer to ``load``.

    Args:
        seed: of the random numbers.
        architecture: of the decoder.
    """

    def __init__(self, seed: int, architecture: dict[str, Any]) -> None:
        self._seed = seed
        self._architecture = architecture
        self.details = {"weights": "generated for the fidelity check, %s, seed %d" % (SCHEME, seed)}

    def check(self, decoder: Any) -> None:
        """Generated weights fit every decoder."""

    def fill(self, decoder: Any, dtype: Any, device: Any) -> None:
        """Write every tensor of ``decoder`` on ``device``."""
        from .native import library_for_weights
        from .random_weights import RandomWeights, check_device

        check_device(device, dtype)
        weights = RandomWeights(self._seed, device, library_for_weights(device))
        for name, destination in decoder.tensors():
            made = recipe(name, tuple(destination.shape), self._architecture)
            weights.fill_normal(name, destination, made.deviation, made.mean)
            # Powers of two: exact in every floating-point format.
            if made.rows is not None:
                factors = destination.new_tensor(made.rows)
                destination.mul_(factors.view(-1, *[1] * (destination.dim() - 1)))
