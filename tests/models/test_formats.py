"""Bytes of tensors in each format, against the block sizes that the formats' own libraries state."""

from __future__ import annotations

import math
from collections.abc import Callable

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.errors import UsageError
from profiler.models.formats import (
    DTYPE_BYTES,
    PARTS,
    WEIGHT_FORMATS,
    formats_for,
    kv_bytes,
    tensor_bytes,
    weight_format_bytes,
)

BITS = {
    "bf16": 16,
    "fp16": 16,
    "fp32": 32,
    "fp8-block128": 8,
    "w8a16-int8": 8,
    "w8a8-int8": 8,
    "w4a16-g128": 4,
    "q8_0": 8,
    "q4_0": 4,
}
sizes = st.integers(min_value=1, max_value=20_000)


def test_every_format_has_a_shorthand() -> None:
    assert set(BITS) == set(WEIGHT_FORMATS)
    for name in WEIGHT_FORMATS:
        formats = formats_for(name)
        assert formats.weight_format == name
        assert formats.compute_dtype in DTYPE_BYTES
        assert formats.kv_dtype in DTYPE_BYTES


def test_plain_shorthand_sets_all_three() -> None:
    formats = formats_for("bf16")
    assert (formats.weight_format, formats.compute_dtype, formats.kv_dtype) == ("bf16", "bf16", "bf16")


def test_unknown_precision_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown precision 'bf61'; did you mean 'bf16'\? \(known: bf16, "):
        formats_for("bf61")


@pytest.mark.parametrize("call", [lambda: weight_format_bytes("q5", 1, 1), lambda: kv_bytes("q5", 1)])
def test_unknown_formats_are_usage_errors(call: Callable[[], int]) -> None:
    with pytest.raises(UsageError, match=r"unknown .* 'q5'"):
        call()


@pytest.mark.parametrize("kv_dtype", ["q8_0", "q4_0", "fp16", "bf16", "fp32"])
def test_a_cache_takes_what_ggml_says(kv_dtype: str) -> None:
    names = {"fp16": "F16", "fp32": "F32"}
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[names.get(kv_dtype, kv_dtype.upper())]]
    assert kv_bytes(kv_dtype, 64 * block) == 64 * size
    assert kv_bytes(kv_dtype, 1) == -(-size // block)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("q8_0", gguf.GGMLQuantizationType.Q8_0), ("q4_0", gguf.GGMLQuantizationType.Q4_0)],
)
def test_ggml_blocks_agree_with_the_gguf_library(name: str, kind: gguf.GGMLQuantizationType) -> None:
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    assert weight_format_bytes(name, 3, 4 * block) == 3 * 4 * block_bytes


def test_head_in_q4_0_is_q6_k() -> None:
    block, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType.Q6_K]
    expected = 7 * 2 * block_bytes
    assert tensor_bytes("q4_0", "head", (7, 2 * block)) == expected
    assert tensor_bytes("q4_0", "embedding", (7, 2 * block), tied=True) == expected
    assert tensor_bytes("q4_0", "embedding", (7, 2 * block)) == weight_format_bytes("q4_0", 7, 2 * block)


def test_rows_that_do_not_fill_ggml_blocks_stay_16_bit() -> None:
    assert weight_format_bytes("q8_0", 5, 33) == 5 * 33 * 2


def test_scales_of_partial_blocks_count() -> None:
    assert weight_format_bytes("fp8-block128", 129, 128) == 129 * 128 + 2 * 4
    assert weight_format_bytes("w8a8-int8", 10, 7) == 10 * 7 + 10 * 2
    assert weight_format_bytes("w8a16-int8", 10, 7) == 10 * 7 + 10 * 4
    assert weight_format_bytes("w4a16-g128", 2, 256) == 256 + 4 * 2 + 2


@given(rows=sizes, cols=sizes)
@settings(deadline=None)
def test_no_format_takes_less_than_its_bits_or_wider_than_fp32(rows: int, cols: int) -> None:
    for name, bits in BITS.items():
        size = weight_format_bytes(name, rows, cols)
        assert size * 8 >= rows * cols * bits
        # Scales of at most 4 bytes per row and per block keep every format below two numbers a weight.
        assert size <= rows * cols * max(bits / 8, 2) + 4 * rows * math.ceil(cols / 32)


@given(part=st.sampled_from(PARTS), name=st.sampled_from(sorted(WEIGHT_FORMATS)), length=sizes)
@settings(deadline=None)
def test_vectors_and_routers_are_never_quantised(part: str, name: str, length: int) -> None:
    if part in ("norms", "attention_bias", "routing_bias"):
        assert tensor_bytes(name, part, (length,)) in (2 * length, 4 * length)
    if part == "router":
        assert tensor_bytes(name, part, (8, length)) in (16 * length, 32 * length)


def test_routing_bias_is_always_fp32() -> None:
    assert {tensor_bytes(name, "routing_bias", (256,)) for name in WEIGHT_FORMATS} == {1024}
