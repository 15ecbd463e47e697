"""Small architectures of every family, for tests that build or enumerate whole models."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from profiler.models.architecture import Architecture, Experts, LatentAttention

LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN_SCALING = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}

LLAMA = Architecture(
    family="llama",
    vocab_size=96,
    hidden_size=32,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=8,
    intermediate_size=48,
    tied_embeddings=False,
    attention_bias=False,
    qk_norm=False,
    norm_eps=1e-5,
    rope_theta=10_000.0,
    rope_scaling=LLAMA3_SCALING,
    max_positions=256,
)
QWEN2 = replace(LLAMA, family="qwen2", attention_bias=True, tied_embeddings=True, rope_scaling=None)
QWEN3 = replace(LLAMA, family="qwen3", qk_norm=True, head_dim=16, rope_scaling=None)
QWEN3_MOE = replace(
    QWEN3,
    family="qwen3_moe",
    layers=3,
    experts=Experts(count=8, per_token=2, intermediate_size=24, dense_layers=1),
)
# As llama.cpp has it: experts in every layer.
QWEN3_MOE_ONLY = replace(
    QWEN3, family="qwen3_moe", experts=Experts(count=8, per_token=2, intermediate_size=24)
)
DEEPSEEK_V3 = replace(
    LLAMA,
    family="deepseek_v3",
    layers=3,
    kv_heads=4,
    head_dim=12,
    rope_scaling=YARN_SCALING,
    experts=Experts(
        count=8,
        per_token=2,
        intermediate_size=24,
        shared=2,
        dense_layers=1,
        groups=2,
        groups_per_token=1,
        scoring="sigmoid",
        scale=2.5,
        routing_bias=True,
    ),
    latent_attention=LatentAttention(
        query_rank=20, kv_rank=16, rope_head_dim=4, nope_head_dim=8, value_head_dim=10
    ),
)
# For the fidelity check: as narrow as attention with heads of the usual width and quantised rows allow.
NARROW = Architecture(
    family="llama",
    vocab_size=16_384,
    hidden_size=256,
    layers=8,
    heads=4,
    kv_heads=2,
    head_dim=64,
    intermediate_size=512,
    tied_embeddings=True,
    attention_bias=False,
    qk_norm=False,
    norm_eps=1e-6,
    rope_theta=1_000_000.0,
    rope_scaling=None,
    max_positions=4096,
)
SMALL = (LLAMA, QWEN2, QWEN3, QWEN3_MOE, DEEPSEEK_V3)


@st.composite
def any_architecture(draw: st.DrawFn) -> Architecture:
    """Architectures of every family, far from the sizes that anyone would train."""
    few = st.integers(min_value=1, max_value=6)
    base = draw(st.sampled_from(SMALL))
    layers, kv_heads = draw(few), draw(few)
    heads = kv_heads * draw(few)
    arch = replace(
        base,
        vocab_size=draw(st.integers(1, 200)),
        hidden_size=draw(st.integers(1, 64)),
        intermediate_size=draw(st.integers(1, 64)),
        layers=layers,
        heads=heads,
        kv_heads=heads if base.latent_attention else kv_heads,
        head_dim=base.head_dim if base.latent_attention else 2 * draw(few),
        tied_embeddings=draw(st.booleans()),
    )
    if base.experts is not None:
        groups = base.experts.groups
        each = draw(few)
        experts = replace(
            base.experts,
            count=groups * each,
            per_token=draw(st.integers(1, each)),
            intermediate_size=draw(st.integers(1, 32)),
            shared=draw(st.integers(0, 2)) if base.latent_attention else 0,
            dense_layers=draw(st.integers(0, layers)),
        )
        arch = replace(arch, experts=experts)
    if base.latent_attention is not None and draw(st.booleans()):
        arch = replace(arch, latent_attention=replace(base.latent_attention, query_rank=None))
    return arch
