"""Counts and bytes against published figures, and against each other."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from architectures import LLAMA, QWEN3_MOE, any_architecture
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.errors import UsageError
from profiler.models.accounting import (
    decode_flops_per_token,
    decode_step_bytes,
    expected_distinct_experts,
    kv_bytes_per_token,
    kv_cache_bytes,
    parameters,
    prefill_flops,
    shapes,
    weights_bytes,
)
from profiler.models.architecture import Architecture
from profiler.models.catalogue import catalogue
from profiler.models.formats import WEIGHT_FORMATS, formats_for
from profiler.models.tensors import named_tensors


def model(name: str) -> Architecture:
    return catalogue()[name].architecture


@pytest.mark.parametrize("name", catalogue())
def test_count_is_the_published_one(name: str) -> None:
    entry = catalogue()[name]
    counted = parameters(entry.architecture)
    assert counted.total + counted.routing_bias == entry.published_parameters


@pytest.mark.parametrize(
    ("name", "billions"), [("qwen3-30b-a3b", 3.3), ("qwen3-235b-a22b", 22), ("deepseek-r1", 37)]
)
def test_active_parameters_are_those_of_the_model_cards(name: str, billions: float) -> None:
    assert parameters(model(name)).active / 1e9 == pytest.approx(billions, rel=0.02)


def test_routing_biases_of_deepseek_stand_apart() -> None:
    counted = parameters(model("deepseek-r1"))
    assert counted.routing_bias == 58 * 256
    assert counted.total == 671_026_404_352


def test_qwen3_06b_differs_from_the_hub_by_the_repeated_head() -> None:
    for name, shown in (("qwen3-0.6b", 751_632_384), ("qwen3-1.7b", 2_031_739_904)):
        counted = parameters(model(name))
        assert counted.head == 0
        assert counted.total + counted.embedding == shown


@pytest.mark.parametrize(
    ("name", "precision", "published"),
    [
        # What llama.cpp reports as the size of the model, which is the sum over its tensors.
        ("qwen3-8b", "q4_0", 4_768_792_576),
        ("llama-3.1-8b", "q4_0", 4_653_375_488),
        ("qwen3-1.7b", "q8_0", 1_828_474_880),
        # Sum over the tensors of RedHatAI's checkpoint with 8 bits per weight and per-channel scales.
        ("llama-3.1-8b", "w8a8-int8", 9_083_953_152),
    ],
)
def test_weights_bytes_are_those_of_published_checkpoints(name: str, precision: str, published: int) -> None:
    assert weights_bytes(model(name), formats_for(precision)) == published


def test_w4a16_bytes_are_within_a_fifth_of_a_percent_of_a_published_gptq_checkpoint() -> None:
    # GPTQ files also list the order of inputs, which is not part of the format.
    ours = weights_bytes(model("llama-3.1-8b"), formats_for("w4a16-g128"))
    assert 0 <= 5_735_587_840 - ours < 0.002 * ours


def test_fp8_bytes_explain_the_published_deepseek_checkpoint() -> None:
    """The hub counts 684,531,386,000 numbers, by type; all of them are accounted for.

    Beside the model there is one more MoE layer for multi-token prediction, with its own embedding,
    head, three norms and a projection of two hidden states onto one.
    """
    published = {"BF16": 3_918_786_560, "F8_E4M3": 680_571_043_840, "F32": 41_555_600}
    arch = model("deepseek-r1")
    assert arch.experts is not None
    hidden, experts = arch.hidden_size, arch.experts
    with_prediction = replace(arch, layers=arch.layers + 1)
    counted = parameters(with_prediction)
    extra_bf16 = counted.embedding + counted.head + 3 * hidden + 2 * hidden * hidden
    bf16 = counted.embedding + counted.head + counted.norms + counted.router + extra_bf16
    assert bf16 == published["BF16"]

    fp8 = counted.attention + counted.dense_mlp + counted.routed_experts + counted.shared_experts
    assert fp8 == published["F8_E4M3"]

    size = weights_bytes(with_prediction, formats_for("fp8-block128"))
    routing_bias = 59 * experts.count
    scales_bytes = size - fp8 - 2 * (bf16 - extra_bf16) - 4 * routing_bias
    assert scales_bytes // 4 + routing_bias == published["F32"]


def test_gguf_keeps_norms_and_routers_in_fp32() -> None:
    # llama.cpp reports 61,089,832,960 bytes for a bf16 file of Qwen3-30B-A3B.
    counted = parameters(model("qwen3-30b-a3b"))
    wide = counted.norms + counted.router
    assert 2 * (counted.total - wide) + 4 * wide == 61_089_832_960
    q8 = weights_bytes(model("qwen3-30b-a3b"), formats_for("q8_0"))
    assert q8 == (counted.total - wide) // 32 * 34 + 4 * wide


@pytest.mark.parametrize(
    ("name", "kib"),
    [("qwen2.5-7b", 56), ("llama-3.1-8b", 128), ("qwen3-30b-a3b", 96), ("deepseek-r1", 68.625)],
)
def test_kv_bytes_per_token(name: str, kib: float) -> None:
    # DeepSeek-V2 (arXiv:2405.04434), table 1: (512 + 64) numbers per token and layer.
    assert kv_bytes_per_token(model(name), "bf16") == kib * 1024
    assert kv_bytes_per_token(model(name), "fp8") == kib * 512


def test_kv_cache_grows_with_tokens_and_batch() -> None:
    assert kv_cache_bytes(LLAMA, "fp32", 10, 3) == 10 * 3 * 2 * 2 * 2 * 8 * 4


@given(arch=any_architecture())
@settings(deadline=None)
def test_parameters_are_the_sizes_of_the_tensors(arch: Architecture) -> None:
    tensors = list(named_tensors(arch))
    sizes = {name: math.prod(shape) for name, shape in shapes(arch).items()}
    counted = parameters(arch)
    assert len(sizes) == len(tensors), "names are unique"
    assert sum(sizes.values()) == counted.total + counted.routing_bias
    named = sum(size for name, size in sizes.items() if "norm" in name)
    assert counted.norms == named
    assert counted.active <= counted.total
    for precision in WEIGHT_FORMATS:
        assert weights_bytes(arch, formats_for(precision)) > 0
    assert weights_bytes(arch, formats_for("fp32")) == 4 * sum(sizes.values())


@given(arch=any_architecture())
@settings(deadline=None)
def test_parameters_follow_the_closed_form(arch: Architecture) -> None:
    """The usual formula, written from the papers and not from the list of tensors."""
    hidden, latent, moe = arch.hidden_size, arch.latent_attention, arch.experts
    if latent is None:
        attention = hidden * arch.head_dim * (2 * arch.heads + 2 * arch.kv_heads)
        attention += arch.head_dim * (arch.heads + 2 * arch.kv_heads) if arch.attention_bias else 0
        attention += 2 * arch.head_dim if arch.qk_norm else 0
    else:
        query = arch.heads * (latent.nope_head_dim + latent.rope_head_dim)
        rank = latent.query_rank
        attention = hidden * query if rank is None else rank * (hidden + query + 1)
        attention += hidden * (latent.kv_rank + latent.rope_head_dim) + latent.kv_rank
        attention += latent.kv_rank * arch.heads * (latent.nope_head_dim + latent.value_head_dim)
        attention += hidden * arch.heads * latent.value_head_dim
    dense = arch.layers if moe is None else moe.dense_layers
    total = arch.layers * (attention + 2 * hidden) + hidden + dense * 3 * hidden * arch.intermediate_size
    if moe is not None:
        expert = 3 * hidden * moe.intermediate_size
        total += (arch.layers - dense) * ((moe.count + moe.shared) * expert + moe.count * hidden)
    total += arch.vocab_size * hidden * (1 if arch.tied_embeddings else 2)
    assert parameters(arch).total == total


@given(arch=any_architecture(), context=st.integers(1, 5000))
@settings(deadline=None)
def test_flops_are_two_per_active_weight_and_grow_with_context(arch: Architecture, context: int) -> None:
    counted = parameters(arch)
    biases = arch.layers * arch.head_dim * (arch.heads + 2 * arch.kv_heads) if arch.attention_bias else 0
    lookups = 0 if arch.tied_embeddings else counted.embedding
    used = counted.active - counted.norms - biases - lookups
    step = decode_flops_per_token(arch, 2) - decode_flops_per_token(arch, 1)
    assert decode_flops_per_token(arch, context) == 2 * used + context * step
    if arch.latent_attention is None:
        # Prefilling token by token costs the same, but for the heads of all positions but the last.
        head = 2 * arch.vocab_size * arch.hidden_size
        one_by_one = sum(decode_flops_per_token(arch, position) for position in range(1, 8))
        assert prefill_flops(arch, 7) == one_by_one - 6 * head


@given(arch=any_architecture(), batch=st.integers(1, 512), context=st.integers(1, 1000))
@settings(deadline=None)
def test_step_bytes_grow_with_the_batch_up_to_all_weights(
    arch: Architecture, batch: int, context: int
) -> None:
    formats = formats_for("bf16")
    step = decode_step_bytes(arch, formats, batch, context)
    more = decode_step_bytes(arch, formats, batch + 1, context)
    assert step.weights_read <= more.weights_read <= weights_bytes(arch, formats)
    assert step.kv_read == kv_cache_bytes(arch, "bf16", context, batch)
    assert step.kv_written == kv_cache_bytes(arch, "bf16", 1, batch)
    assert step.total == step.weights_read + step.kv_read + step.kv_written
    routed = arch.experts is not None and arch.experts.dense_layers < arch.layers
    assert step.expected == routed


def test_one_token_reads_the_active_weights() -> None:
    step = decode_step_bytes(QWEN3_MOE, formats_for("bf16"), 1, 1)
    counted = parameters(QWEN3_MOE)
    assert step.weights_read == 2 * (counted.active - counted.embedding + QWEN3_MOE.hidden_size)


def test_a_tied_embedding_is_read_whole() -> None:
    tied = replace(LLAMA, tied_embeddings=True)
    assert decode_step_bytes(tied, formats_for("bf16"), 1, 1).weights_read == 2 * parameters(tied).total


def test_expected_distinct_experts_by_enumeration() -> None:
    """Two tokens choose 2 of 4 experts each: 36 pairs of choices, counted one by one."""
    from itertools import combinations

    choices = list(combinations(range(4), 2))
    mean = sum(len({*first, *second}) for first in choices for second in choices) / len(choices) ** 2
    assert expected_distinct_experts(4, 2, 2) == pytest.approx(mean)
    assert expected_distinct_experts(128, 8, 1) == pytest.approx(8)


@pytest.mark.parametrize("bad", [0, -1])
def test_nothing_to_count_is_refused(bad: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        decode_flops_per_token(LLAMA, bad)
    with pytest.raises(ValueError, match="at least 1"):
        prefill_flops(LLAMA, bad)
    with pytest.raises(ValueError, match="at least 1"):
        decode_step_bytes(LLAMA, formats_for("bf16"), bad, 1)


def test_unknown_kv_dtype_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="unknown KV cache dtype 'fp4'"):
        kv_bytes_per_token(LLAMA, "fp4")
