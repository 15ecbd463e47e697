"""The tensors of a checkpoint: names, shapes and what each is for, from the architecture alone.

Names and shapes are those of the Hugging Face safetensors files, with every expert's matrices
apart (transformers 5 fuses them in memory only). Decoder, checkpoint writer and accounting all
read this one list, so they cannot disagree.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from profiler.models.architecture import Architecture

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TensorGroup:
    """Tensors of the same shape and purpose, one per layer and expert.

    Attributes:
        part: one of :data:`profiler.models.formats.PARTS`.
        pattern: the name, with ``{layer}`` and ``{expert}`` where they vary.
        shape: of each tensor; a linear layer's is (outputs, inputs).
        layers: the decoder layers that have one, or None for a tensor outside the layers.
        experts: tensors per layer.
    """

    part: str
    pattern: str
    shape: Shape
    layers: range | None = None
    experts: int = 1

    @property
    def count(self) -> int:
        """How many tensors the group stands for."""
        return self.experts * (1 if self.layers is None else len(self.layers))

    @property
    def parameters(self) -> int:
        """Numbers in all of them together."""
        return self.count * math.prod(self.shape)


def tensor_groups(arch: Architecture) -> tuple[TensorGroup, ...]:
    """All tensors of the model, grouped, in the order of the forward pass."""
    hidden = arch.hidden_size
    head = () if arch.tied_embeddings else _outside("head", "lm_head.weight", (arch.vocab_size, hidden))
    return (
        *_outside("embedding", "model.embed_tokens.weight", (arch.vocab_size, hidden)),
        *_layer_groups(arch),
        *_outside("norms", "model.norm.weight", (hidden,)),
        *head,
    )


def shapes(arch: Architecture) -> dict[str, Shape]:
    """Name and shape of every tensor, layer by layer, as in the safetensors files."""
    return {name: shape for name, shape, _ in named_tensors(arch)}


def named_tensors(arch: Architecture) -> Iterator[tuple[str, Shape, str]]:
    """Yield (name, shape, part) of every tensor, layer by layer."""
    groups = tensor_groups(arch)
    inside = [group for group in groups if group.layers is not None]
    first, *last = (group for group in groups if group.layers is None)
    yield first.pattern, first.shape, first.part
    for layer in range(arch.layers):
        for group in inside:
            if group.layers is not None and layer in group.layers:
                for expert in range(group.experts):
                    yield group.pattern.format(layer=layer, expert=expert), group.shape, group.part
    for group in last:
        yield group.pattern, group.shape, group.part


def _outside(part: str, name: str, shape: Shape) -> tuple[TensorGroup, ...]:
    return (TensorGroup(part, name, shape),)


def _layer_groups(arch: Architecture) -> Iterator[TensorGroup]:
    every = range(arch.layers)
    yield _in_layer("norms", "input_layernorm.weight", (arch.hidden_size,), every)
    yield from _grouped_attention(arch) if arch.latent_attention is None else _latent_attention(arch)
    yield _in_layer("norms", "post_attention_layernorm.weight", (arch.hidden_size,), every)
    dense = arch.layers if arch.experts is None else arch.experts.dense_layers
    if dense:
        yield from _mlp(arch, "dense_mlp", "mlp", arch.intermediate_size, range(dense))
    yield from _experts(arch)


def _in_layer(part: str, name: str, shape: Shape, layers: range, experts: int = 1) -> TensorGroup:
    return TensorGroup(part, "model.layers.{layer}." + name, shape, layers, experts)


def _grouped_attention(arch: Architecture) -> Iterator[TensorGroup]:
    layers, hidden = range(arch.layers), arch.hidden_size
    query, key = arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim
    for projection, width in (("q", query), ("k", key), ("v", key)):
        name = f"self_attn.{projection}_proj"
        yield _in_layer("attention", f"{name}.weight", (width, hidden), layers)
        if arch.attention_bias:
            yield _in_layer("attention_bias", f"{name}.bias", (width,), layers)
    yield _in_layer("attention", "self_attn.o_proj.weight", (hidden, query), layers)
    if arch.qk_norm:
        for norm in ("q_norm", "k_norm"):
            yield _in_layer("norms", f"self_attn.{norm}.weight", (arch.head_dim,), layers)


def _latent_attention(arch: Architecture) -> Iterator[TensorGroup]:
    latent = arch.latent_attention
    assert latent is not None
    layers, hidden = range(arch.layers), arch.hidden_size
    query = arch.heads * (latent.nope_head_dim + latent.rope_head_dim)
    if latent.query_rank is None:
        yield _in_layer("attention", "self_attn.q_proj.weight", (query, hidden), layers)
    else:
        rank = latent.query_rank
        yield _in_layer("attention", "self_attn.q_a_proj.weight", (rank, hidden), layers)
        yield _in_layer("norms", "self_attn.q_a_layernorm.weight", (rank,), layers)
        yield _in_layer("attention", "self_attn.q_b_proj.weight", (query, rank), layers)
    compressed = (latent.kv_rank + latent.rope_head_dim, hidden)
    expanded = (arch.heads * (latent.nope_head_dim + latent.value_head_dim), latent.kv_rank)
    yield _in_layer("attention", "self_attn.kv_a_proj_with_mqa.weight", compressed, layers)
    yield _in_layer("norms", "self_attn.kv_a_layernorm.weight", (latent.kv_rank,), layers)
    yield _in_layer("attention", "self_attn.kv_b_proj.weight", expanded, layers)
    output = (hidden, arch.heads * latent.value_head_dim)
    yield _in_layer("attention", "self_attn.o_proj.weight", output, layers)


def _mlp(
    arch: Architecture, part: str, name: str, width: int, layers: range, experts: int = 1
) -> Iterator[TensorGroup]:
    hidden = arch.hidden_size
    for projection, shape in (
        ("gate_proj", (width, hidden)),
        ("up_proj", (width, hidden)),
        ("down_proj", (hidden, width)),
    ):
        yield _in_layer(part, f"{name}.{projection}.weight", shape, layers, experts)


def _experts(arch: Architecture) -> Iterator[TensorGroup]:
    moe = arch.experts
    if moe is None or moe.dense_layers == arch.layers:
        return
    layers = range(moe.dense_layers, arch.layers)
    yield _in_layer("router", "mlp.gate.weight", (moe.count, arch.hidden_size), layers)
    if moe.routing_bias:
        yield _in_layer("routing_bias", "mlp.gate.e_score_correction_bias", (moe.count,), layers)
    yield from _mlp(arch, "routed_experts", "mlp.experts.{expert}", moe.intermediate_size, layers, moe.count)
    if moe.shared:
        width = moe.shared * moe.intermediate_size
        yield from _mlp(arch, "shared_experts", "mlp.shared_experts", width, layers)
