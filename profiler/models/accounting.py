"""What a model costs, from its architecture alone: parameters, bytes and floating-point operations.

A multiply and an add are two operations. Counted are the matrix products, attention included;
norms, rotary embedding, softmax, activations and bias additions are left out, as is usual for MFU
(Kaplan et al. 2020, arXiv:2001.08361, section 2.1; Chowdhery et al. 2022, arXiv:2204.02311,
appendix B). The bytes of a decode step follow Pope et al. 2022, arXiv:2211.05102, section 2.1.
Everything is an exact integer except what is marked as expected.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from profiler.models.architecture import Architecture
from profiler.models.formats import Formats, kv_bytes, tensor_bytes
from profiler.models.tensors import TensorGroup, shapes, tensor_groups

__all__ = [
    "Parameters",
    "StepBytes",
    "decode_flops_per_token",
    "decode_step_bytes",
    "expected_distinct_experts",
    "group_bytes",
    "kv_bytes_per_token",
    "kv_cache_bytes",
    "parameters",
    "part_bytes",
    "prefill_flops",
    "shapes",
    "weights_bytes",
]


@dataclass(frozen=True)
class Parameters:
    """Trained numbers by what they are for.

    Attributes:
        embedding: the input embedding.
        head: the output head; 0 when it is the embedding.
        attention: projections and their biases.
        norms: all norms, those inside attention included.
        dense_mlp: MLPs outside the experts.
        routed_experts: all routed experts.
        shared_experts: experts that every token uses.
        router: the matrices that score experts.
        routing_bias: biases that only steer the choice of experts. Not part of :attr:`total`:
            they take no part in the arithmetic, and transformers keeps them as a buffer.
        active: numbers that one token uses: :attr:`total` less the experts it is not routed to.
    """

    embedding: int
    head: int
    attention: int
    norms: int
    dense_mlp: int
    routed_experts: int
    shared_experts: int
    router: int
    routing_bias: int
    active: int

    @property
    def total(self) -> int:
        """All parameters, without :attr:`routing_bias`."""
        return (
            self.embedding
            + self.head
            + self.attention
            + self.norms
            + self.dense_mlp
            + self.routed_experts
            + self.shared_experts
            + self.router
        )


@dataclass(frozen=True)
class StepBytes:
    """Bytes that one decode step has to move at least.

    Attributes:
        weights_read: weights, every tensor at most once.
        kv_read: cached keys and values of all sequences.
        kv_written: keys and values of the new tokens.
        expected: whether ``weights_read`` is an expectation over routings that are equally likely.
    """

    weights_read: int
    kv_read: int
    kv_written: int
    expected: bool

    @property
    def total(self) -> int:
        """Bytes read and written."""
        return self.weights_read + self.kv_read + self.kv_written


def parameters(arch: Architecture) -> Parameters:
    """Count the parameters: the sizes of the tensors in :func:`shapes`, by part."""
    by_part: dict[str, int] = {}
    for group in tensor_groups(arch):
        by_part[group.part] = by_part.get(group.part, 0) + group.parameters
    routing_bias = by_part.pop("routing_bias", 0)
    routed = by_part.get("routed_experts", 0)
    idle = 0 if arch.experts is None else routed // arch.experts.count * _idle_experts(arch)
    by_part["attention"] += by_part.pop("attention_bias", 0)
    return Parameters(
        embedding=by_part["embedding"],
        head=by_part.get("head", 0),
        attention=by_part["attention"],
        norms=by_part["norms"],
        dense_mlp=by_part.get("dense_mlp", 0),
        routed_experts=routed,
        shared_experts=by_part.get("shared_experts", 0),
        router=by_part.get("router", 0),
        routing_bias=routing_bias,
        active=sum(by_part.values()) - idle,
    )


def _idle_experts(arch: Architecture) -> int:
    return 0 if arch.experts is None else arch.experts.count - arch.experts.per_token


def weights_bytes(arch: Architecture, formats: Formats) -> int:
    """Bytes of all tensors in the weight format, scales included (see ``formats``).

    Raises:
        UsageError: the weight format is unknown.
    """
    return sum(part_bytes(arch, formats).values())


def part_bytes(arch: Architecture, formats: Formats) -> dict[str, int]:
    """Bytes of all tensors by what they are for (``formats.PARTS``).

    Raises:
        UsageError: the weight format is unknown.
    """
    if formats.stored_bytes is not None:
        return dict(formats.stored_bytes)
    found: dict[str, int] = {}
    for group in tensor_groups(arch):
        found[group.part] = found.get(group.part, 0) + group.count * group_bytes(group, arch, formats)
    return found


def group_bytes(group: TensorGroup, arch: Architecture, formats: Formats) -> int:
    """Bytes of one tensor of a group, scales included.

    Where a file has a format for each tensor, its share of the bytes of its part, rounded up.
    """
    if formats.stored_bytes is None:
        return tensor_bytes(formats.weight_format, group.part, group.shape, arch.tied_embeddings)
    whole = dict(formats.stored_bytes).get(group.part, 0)
    numbers = sum(one.parameters for one in tensor_groups(arch) if one.part == group.part)
    return -(-whole * math.prod(group.shape) // numbers)


def kv_bytes_per_token(arch: Architecture, kv_dtype: str) -> int:
    """Bytes that one cached token takes in all layers.

    Grouped-query attention keeps a key and a value of ``head_dim`` per KV head:
    ``2 * layers * kv_heads * head_dim`` numbers (Ainslie et al. 2023, arXiv:2305.13245). MLA keeps
    the compressed vector and the shared rotary key: ``layers * (kv_rank + rope_head_dim)``
    (DeepSeek-V2, arXiv:2405.04434, section 2.1.2 and table 1).

    Raises:
        UsageError: the dtype is unknown.
    """
    latent = arch.latent_attention
    per_layer = 2 * arch.kv_heads * arch.head_dim if latent is None else latent.kv_rank + latent.rope_head_dim
    return kv_bytes(kv_dtype, arch.layers * per_layer)


def kv_cache_bytes(arch: Architecture, kv_dtype: str, tokens: int, batch: int) -> int:
    """Bytes of the KV cache of ``batch`` sequences of ``tokens`` tokens each.

    Raises:
        UsageError: the dtype is unknown.
    """
    return batch * tokens * kv_bytes_per_token(arch, kv_dtype)


def _matrix_flops(arch: Architecture) -> tuple[int, int]:
    """Operations of one token in the matrices of the layers, and in the head: 2 per weight used."""
    weights = 0
    for group in tensor_groups(arch):
        if group.part in ("attention", "dense_mlp", "shared_experts", "router"):
            weights += group.parameters
        elif group.part == "routed_experts" and arch.experts is not None:
            weights += group.parameters // arch.experts.count * arch.experts.per_token
    return 2 * weights, 2 * arch.vocab_size * arch.hidden_size


def decode_flops_per_token(arch: Architecture, context: int) -> int:
    """Operations to decode one token that attends to ``context`` positions, its own included.

    ``2 * weights used + layers * context * (scores + mixing)``. Scores and mixing of one position
    take ``2 * heads * head_dim`` each. MLA attends in the compressed space, where the up-projections
    are applied to the query and to the mixed vector instead of to every cached position (DeepSeek-V2,
    arXiv:2405.04434, section 2.1.2): ``2 * heads * (kv_rank + rope_head_dim)`` and
    ``2 * heads * kv_rank``; the up-projections still take 2 operations per weight.

    Raises:
        ValueError: ``context`` is less than 1.
    """
    if context < 1:
        raise ValueError(f"context must be at least 1, not {context}")
    layers, head = _matrix_flops(arch)
    latent = arch.latent_attention
    widths = 2 * arch.head_dim if latent is None else 2 * latent.kv_rank + latent.rope_head_dim
    return layers + head + 2 * arch.layers * context * arch.heads * widths


def prefill_flops(arch: Architecture, prompt_tokens: int) -> int:
    """Operations to prefill one prompt and produce the logits of its last position.

    ``tokens * 2 * weights used in the layers + 2 * head + attention``, where causal attention
    has ``tokens * (tokens + 1) / 2`` pairs of positions, each ``2 * heads * head_dim`` for the score
    and for the mixing. MLA expands keys and values here: ``nope + rope`` and ``value_head_dim``.

    Raises:
        ValueError: ``prompt_tokens`` is less than 1.
    """
    if prompt_tokens < 1:
        raise ValueError(f"prompt_tokens must be at least 1, not {prompt_tokens}")
    layers, head = _matrix_flops(arch)
    latent = arch.latent_attention
    widths = 2 * arch.head_dim if latent is None else arch.head_dim + latent.value_head_dim
    pairs = prompt_tokens * (prompt_tokens + 1) // 2
    return prompt_tokens * layers + head + 2 * arch.layers * pairs * arch.heads * widths


def expected_distinct_experts(experts: int, per_token: int, batch: int) -> float:
    """Distinct experts that ``batch`` tokens use in one layer: ``E * (1 - (1 - k/E)**B)``.

    Each token takes ``k`` of ``E`` experts, all choices equally likely and tokens independent, so
    an expert is left out by one token with probability ``1 - k/E`` (Feller, An Introduction to
    Probability Theory, volume 1, section IV.2). Real routing is uneven, which makes this an upper
    estimate.
    """
    return float(experts * (1 - (1 - per_token / experts) ** batch))


def decode_step_bytes(arch: Architecture, formats: Formats, batch: int, context: int) -> StepBytes:
    """Bytes to move for one decode step of ``batch`` sequences at ``context`` positions each.

    Weights are read once per step, whatever the batch: all of them except the rows of the
    embedding that no token needs and the experts that no token is routed to (see
    :func:`expected_distinct_experts`). KV read: ``batch * context`` tokens, the new one included;
    KV written: ``batch`` tokens. Activations are left out: they fit into caches.

    Raises:
        UsageError: a format is unknown.
        ValueError: ``batch`` or ``context`` is less than 1.
    """
    if batch < 1 or context < 1:
        raise ValueError(f"batch and context must be at least 1, not {batch} and {context}")
    stored = part_bytes(arch, formats)
    routed = 0.0
    if not arch.tied_embeddings and "embedding" in stored:
        rows = min(batch, arch.vocab_size)
        stored["embedding"] = -(-stored["embedding"] * rows // arch.vocab_size)
    if arch.experts is not None:
        moe = arch.experts
        used = expected_distinct_experts(moe.count, moe.per_token, batch) / moe.count
        routed = used * stored.pop("routed_experts", 0)
    certain = sum(stored.values())
    per_token = kv_bytes_per_token(arch, formats.kv_dtype)
    return StepBytes(
        weights_read=certain + round(routed),
        kv_read=batch * context * per_token,
        kv_written=batch * per_token,
        expected=routed > 0,
    )
