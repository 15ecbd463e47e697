"""Small GGUF files written by the ``gguf`` package, which llama.cpp publishes: its spelling, not ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from architectures import LLAMA

from profiler.models.architecture import Architecture
from profiler.worker import gguf_checkpoint

Kind = gguf.GGMLQuantizationType
KindOf = Callable[[str], Any]
# Rows of quantised matrices are whole blocks of up to 256 weights.
WIDE = replace(
    LLAMA,
    vocab_size=64,
    hidden_size=256,
    intermediate_size=512,
    heads=4,
    kv_heads=4,
    head_dim=64,
    rope_scaling=None,
    tied_embeddings=True,
)


def all_in(kind: Any) -> KindOf:
    return lambda name: kind


def write_gguf(
    path: Path,
    arch: Architecture = WIDE,
    kind_of: KindOf | None = None,
    *,
    fields: Mapping[str, Any] | None = None,
    named: str | None = None,
    keep: Callable[[int], bool] = lambda number: True,
    extra: Sequence[tuple[str, Any]] = (),
    tokens: int | None = None,
) -> Path:
    """Write a file of this architecture; norms and other vectors are fp32, as everywhere.

    Args:
        path: of the file.
        arch: the model.
        kind_of: type of each matrix, by its name; fp32 unless given.
        fields: metadata beside those of the architecture, or instead of them; None leaves a field out.
        named: architecture that the file claims.
        keep: by number, which tensors are in this file.
        extra: further tensors.
        tokens: of a vocabulary that is in the file.
    """
    family = named or {"qwen3_moe": "qwen3moe"}.get(arch.family, arch.family)
    writer = gguf.GGUFWriter(path, family)
    described: dict[str, Any] = {
        "context_length": arch.max_positions,
        "embedding_length": arch.hidden_size,
        "block_count": arch.layers,
        "feed_forward_length": arch.intermediate_size,
        "attention.head_count": arch.heads,
        "attention.head_count_kv": arch.kv_heads,
        "attention.key_length": arch.head_dim,
        "attention.layer_norm_rms_epsilon": arch.norm_eps,
        "rope.freq_base": arch.rope_theta,
    }
    if arch.experts is not None:
        described["expert_count"] = arch.experts.count
        described["expert_used_count"] = arch.experts.per_token
        described["expert_feed_forward_length"] = arch.experts.intermediate_size
    values = {f"{family}.{key}": value for key, value in described.items()} | dict(fields or {})
    for key, value in values.items():
        _add(writer, key, value)
    if tokens is not None:
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list([f"token {number}" for number in range(tokens)])
    generator = np.random.default_rng(1)
    for number, tensor in enumerate(gguf_checkpoint.tensors(asdict(arch))):
        shape = tensor.shape if len(tensor.sources) == 1 else (len(tensor.sources), *tensor.shape)
        kind = Kind.F32 if tensor.wide or kind_of is None else kind_of(tensor.name)
        values_of = generator.normal(0, 0.02, shape).astype(np.float32)
        if not keep(number):
            continue
        writer.add_tensor(tensor.name, _stored(values_of, kind), raw_dtype=kind)
    for name, data in extra:
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _stored(values: Any, kind: Any) -> Any:
    try:
        return gguf.quants.quantize(values, kind)
    except NotImplementedError:  # the package only reads it: any bytes will do where nothing computes
        block, size = gguf.GGML_QUANT_SIZES[kind]
        return np.zeros((*values.shape[:-1], values.shape[-1] // block * size), np.uint8)


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    adders: list[tuple[type, Callable[[str, Any], None]]] = [
        (bool, writer.add_bool),
        (int, writer.add_uint32),
        (float, writer.add_float32),
        (str, writer.add_string),
        (list, writer.add_array),
    ]
    for kind, add in adders:
        if isinstance(value, kind):
            add(key, value)
            return
