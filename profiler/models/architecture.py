"""The fields of a decoder architecture, normalised from ``config.json``.

Old and transformers-5 spellings of ``config.json`` end up in the same fields, so that the
accounting, the worker and the record never look at a raw configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FAMILIES = ("llama", "qwen2", "qwen3", "qwen3_moe", "deepseek_v3")


@dataclass(frozen=True)
class Experts:
    """The mixture-of-experts part of an architecture.

    Attributes:
        count: routed experts per MoE layer.
        per_token: routed experts that each token uses.
        intermediate_size: hidden width of one routed expert.
        shared: experts that every token uses (their joint width is ``shared * intermediate_size``).
        dense_layers: the first layers that keep a dense MLP.
        groups: groups of experts that routing first chooses from (1: no groups).
        groups_per_token: groups a token may use.
        scoring: ``"softmax"`` or ``"sigmoid"``.
        normalise: whether the chosen experts' weights are divided by their sum.
        scale: factor on the routed output.
        routing_bias: whether each expert has a bias that only the choice sees.
    """

    count: int
    per_token: int
    intermediate_size: int
    shared: int = 0
    dense_layers: int = 0
    groups: int = 1
    groups_per_token: int = 1
    scoring: str = "softmax"
    normalise: bool = True
    scale: float = 1.0
    routing_bias: bool = False


@dataclass(frozen=True)
class LatentAttention:
    """Multi-head latent attention (MLA, DeepSeek-V2 and later).

    Attributes:
        query_rank: rank of the query compression, or None for a full query projection.
        kv_rank: width of the compressed key-value vector that the cache holds.
        rope_head_dim: width of the shared rotary key that the cache holds beside it.
        nope_head_dim: per-head width of the part without rotary embedding.
        value_head_dim: per-head width of the values.
    """

    query_rank: int | None
    kv_rank: int
    rope_head_dim: int
    nope_head_dim: int
    value_head_dim: int


@dataclass(frozen=True)
class Architecture:
    """One decoder-only architecture; every number as in ``config.json``.

    Attributes:
        family: one of :data:`FAMILIES`.
        vocab_size: rows of the embedding.
        hidden_size: width of the residual stream.
        layers: decoder layers.
        heads: query heads.
        kv_heads: key-value heads (equal to ``heads`` for MLA).
        head_dim: width of one head (for MLA: nope + rope).
        intermediate_size: hidden width of the dense MLP.
        tied_embeddings: whether the output head shares the embedding.
        attention_bias: whether q, k and v projections have biases.
        qk_norm: whether q and k are normalised per head (Qwen3).
        norm_eps: epsilon of RMSNorm.
        rope_theta: base of the rotary embedding.
        rope_scaling: rotary scaling as in ``config.json`` (``rope_type`` spelled so), or None.
        max_positions: longest context that the configuration allows.
        experts: the MoE part, or None for dense models.
        latent_attention: the MLA part, or None.
    """

    family: str
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    tied_embeddings: bool
    attention_bias: bool
    qk_norm: bool
    norm_eps: float
    rope_theta: float
    rope_scaling: dict[str, Any] | None
    max_positions: int
    experts: Experts | None = None
    latent_attention: LatentAttention | None = None
