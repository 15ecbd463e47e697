"""Number formats of weights, arithmetic and KV cache, and how many bytes a tensor takes in each.

Bits per weight always include scales, zero points and whatever a format leaves unquantised:

=============  ===========================  ==========================  =============================
format         a quantised matrix           what stays unquantised      source
=============  ===========================  ==========================  =============================
fp8-block128   1 byte per weight, an fp32   embedding, head, norms,     the published DeepSeek-R1
               scale per 128 x 128 block    biases, router in bf16      checkpoint, by tensor type
w8a16-int8     1 byte per weight, an fp32   as above, in bf16           torchao
               scale per output channel                                 ``Int8WeightOnlyConfig``
w8a8-int8      1 byte per weight, a bf16    as above                    compressed-tensors ``W8A8``
               scale per output channel                                 checkpoints (``ignore:
                                                                        [lm_head]``)
w4a16-g128     4 bits per weight, an fp16   embedding, head, norms,     AutoAWQ ``gemm`` packing,
               scale and a 4-bit zero per   biases, router in fp16      group size 128
               128 inputs of an output
q8_0           34 bytes per 32 weights      norms, biases, router in    llama.cpp's ``Q8_0``
                                            fp32
q4_0           18 bytes per 32 weights;     norms, biases, router in    llama.cpp's ``Q4_0`` without
               the head (the embedding,     fp32                        an importance matrix
               when tied) is Q6_K: 210
               bytes per 256 weights
=============  ===========================  ==========================  =============================

Embedding and head stay wide outside GGUF because quantising them costs the most accuracy per byte
saved, norms and biases because they are too small to matter, and the router because a wrong choice
of expert is not a small error. A bias that only steers routing is fp32 everywhere, as in the
checkpoints that have one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from profiler.errors import UsageError, unknown

PARTS = (
    "embedding",
    "head",
    "attention",
    "attention_bias",
    "norms",
    "dense_mlp",
    "routed_experts",
    "shared_experts",
    "router",
    "routing_bias",
)
"""What a tensor is for; the formats treat each part alike in all layers."""

DTYPE_BYTES: Mapping[str, int] = {"bf16": 2, "fp16": 2, "fp32": 4, "fp8": 1, "int8": 1}
"""Bytes of one number in the formats without scales."""

KV_BLOCKS: Mapping[str, tuple[int, int]] = {
    **{name: (1, width) for name, width in DTYPE_BYTES.items()},
    "q8_0": (32, 34),
    "q4_0": (32, 18),
}
"""What a KV cache can hold: so many numbers take so many bytes. Those with scales are llama.cpp's."""

_LINEAR = frozenset({"attention", "dense_mlp", "routed_experts", "shared_experts"})
_GGUF = _LINEAR | {"embedding", "head"}


@dataclass(frozen=True)
class Formats:
    """The three number formats of a case.

    Attributes:
        weight_format: one of :data:`WEIGHT_FORMATS`, or with ``stored_bytes`` whatever the file calls itself.
        compute_dtype: what the matrix products are done in; the ceiling for MFU follows it.
        kv_dtype: what the KV cache holds, one of :data:`KV_BLOCKS`.
        stored_bytes: (one of :data:`PARTS`, bytes) where each tensor of a file has a format of its own; None
            where the bytes follow from ``weight_format``.
    """

    weight_format: str
    compute_dtype: str
    kv_dtype: str
    stored_bytes: tuple[tuple[str, int], ...] | None = None


@dataclass(frozen=True)
class _WeightFormat:
    """How one weight format stores a model.

    Attributes:
        matrix_bytes: bytes of a quantised matrix of (rows, cols), scales included.
        quantised: parts that are stored so.
        rest: dtype of the other parts.
        compute_dtype: what engines multiply in when the weights come like this.
        kv_dtype: what engines keep the KV cache in by default.
    """

    matrix_bytes: Callable[[int, int], int]
    quantised: frozenset[str]
    rest: str
    compute_dtype: str
    kv_dtype: str


def _plain(dtype: str) -> _WeightFormat:
    width = DTYPE_BYTES[dtype]
    return _WeightFormat(lambda rows, cols: rows * cols * width, frozenset(), dtype, dtype, dtype)


def _fp8_block128(rows: int, cols: int) -> int:
    return rows * cols + 4 * math.ceil(rows / 128) * math.ceil(cols / 128)


def _w8a16_int8(rows: int, cols: int) -> int:
    return rows * cols + 4 * rows


def _w8a8_int8(rows: int, cols: int) -> int:
    return rows * cols + 2 * rows


def _w4a16_g128(rows: int, cols: int) -> int:
    groups = rows * math.ceil(cols / 128)
    return math.ceil(rows * cols / 2) + 2 * groups + math.ceil(groups / 2)


def _ggml(block: int, block_bytes: int) -> Callable[[int, int], int]:
    def matrix_bytes(rows: int, cols: int) -> int:
        if cols % block:  # ggml blocks never cross rows; llama.cpp then falls back to F16
            return 2 * rows * cols
        return rows * cols // block * block_bytes

    return matrix_bytes


_q8_0 = _ggml(32, 34)
_q4_0 = _ggml(32, 18)
_q6_k = _ggml(256, 210)

WEIGHT_FORMATS: Mapping[str, _WeightFormat] = {
    "bf16": _plain("bf16"),
    "fp16": _plain("fp16"),
    "fp32": _plain("fp32"),
    "fp8-block128": _WeightFormat(_fp8_block128, _LINEAR, "bf16", "fp8", "bf16"),
    "w8a16-int8": _WeightFormat(_w8a16_int8, _LINEAR, "bf16", "bf16", "bf16"),
    "w8a8-int8": _WeightFormat(_w8a8_int8, _LINEAR, "bf16", "int8", "bf16"),
    "w4a16-g128": _WeightFormat(_w4a16_g128, _LINEAR, "fp16", "fp16", "fp16"),
    # llama.cpp quantises activations to 8 bits and multiplies integers (q8_0 x q8_0, q4_0 x q8_0).
    "q8_0": _WeightFormat(_q8_0, _GGUF, "fp32", "int8", "fp16"),
    "q4_0": _WeightFormat(_q4_0, _GGUF, "fp32", "int8", "fp16"),
}


def formats_for(precision: str) -> Formats:
    """Return what ``--precision`` stands for: the weight format with its usual companions.

    Raises:
        UsageError: the precision is unknown; the line names the nearest and all known ones.
    """
    entry = _weight_format(precision, "precision")
    return Formats(precision, entry.compute_dtype, entry.kv_dtype)


def arithmetic_of(formats: Formats) -> Formats:
    """Return the formats of which an engine that reads a file with mixed ones has the arithmetic.

    llama.cpp multiplies whatever it quantised by activations in 8 bits, as it does with Q8_0.
    """
    weight_format = "q8_0" if formats.compute_dtype == "int8" else formats.compute_dtype
    return Formats(weight_format, formats.compute_dtype, formats.kv_dtype)


def weight_format_bytes(weight_format: str, rows: int, cols: int) -> int:
    """Bytes of a quantised matrix of ``rows`` outputs and ``cols`` inputs, scales included.

    Raises:
        UsageError: the weight format is unknown.
    """
    return _weight_format(weight_format).matrix_bytes(rows, cols)


def tensor_bytes(weight_format: str, part: str, shape: tuple[int, ...], tied: bool = False) -> int:
    """Bytes of one tensor of a model that is stored in ``weight_format``.

    Args:
        weight_format: one of :data:`WEIGHT_FORMATS`.
        part: one of :data:`PARTS`.
        shape: (rows, cols) of a matrix, (length,) of a vector.
        tied: whether the embedding also serves as the output head.

    Raises:
        UsageError: the weight format is unknown.
    """
    entry = _weight_format(weight_format)
    if part == "routing_bias":
        return DTYPE_BYTES["fp32"] * math.prod(shape)
    if part in entry.quantised:
        rows, cols = shape
        if weight_format == "q4_0" and part == ("embedding" if tied else "head"):
            return _q6_k(rows, cols) if cols % 256 == 0 else _q8_0(rows, cols)
        return entry.matrix_bytes(rows, cols)
    return DTYPE_BYTES[entry.rest] * math.prod(shape)


def kv_bytes(kv_dtype: str, numbers: int) -> int:
    """Bytes of so many numbers in the KV cache, scales included.

    Raises:
        UsageError: the dtype is unknown.
    """
    if kv_dtype not in KV_BLOCKS:
        raise UsageError(unknown("KV cache dtype", kv_dtype, KV_BLOCKS))
    block, size = KV_BLOCKS[kv_dtype]
    return -(-numbers * size // block)


def _weight_format(name: str, what: str = "weight format") -> _WeightFormat:
    if name not in WEIGHT_FORMATS:
        raise UsageError(unknown(what, name, WEIGHT_FORMATS))
    return WEIGHT_FORMATS[name]
