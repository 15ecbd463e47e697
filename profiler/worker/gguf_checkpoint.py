"""Random weights as a GGUF file, for llama.cpp: the same tensors as everywhere, under its names.

Matrices are stored in the asked-for plain format; norms, biases and routers in fp32, as llama.cpp's own
converter does. There is no vocabulary in the file, only its size: prompts are token ids.
"""

from __future__ import annotations

import math
import os
from typing import Any, Dict, Iterator, List, Optional, Tuple

import gguf
import numpy as np

from .numpy_fidelity import after_recipe
from .numpy_weights import NumpyWeights, to_bf16

_ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "qwen3_moe": "qwen3moe"}
_STORAGE = {
    "bf16": (np.uint16, gguf.GGMLQuantizationType.BF16),
    "fp16": (np.float16, gguf.GGMLQuantizationType.F16),
    "fp32": (np.float32, gguf.GGMLQuantizationType.F32),
}
_FILE_TYPES = {
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "fp16": gguf.LlamaFileType.MOSTLY_F16,
    "fp32": gguf.LlamaFileType.ALL_F32,
}


class Tensor:
    """One tensor of the file.

    Args:
        name: llama.cpp's.
        sources: Hugging Face names; several are stacked along a new first axis (experts).
        shape: of each source.
        heads: of the rotary permutation that llama.cpp wants of Llama's q and k, or None.
        wide: whether it is kept in fp32 whatever the format.
    """

    def __init__(
        self,
        name: str,
        sources: List[str],
        shape: Tuple[int, ...],
        heads: Optional[int] = None,
        wide: bool = False,
    ) -> None:
        self.name, self.sources, self.shape, self.heads, self.wide = name, sources, shape, heads, wide


def write(path: str, architecture: Dict[str, Any], weight_format: str, kind: str, seed: int) -> None:
    """Write the checkpoint; a file of that name is replaced only by a complete one.

    Args:
        path: of the file.
        architecture: fields of ``Architecture`` as JSON.
        weight_format: ``bf16``, ``fp16`` or ``fp32``.
        kind: ``random`` (as for throughput) or ``fidelity`` (see :mod:`fidelity_weights`).
        seed: of the weights.

    Raises:
        OSError: the disk does not take it; nothing is left behind.
    """
    weights = NumpyWeights(seed)
    wanted = list(tensors(architecture))
    partial = f"{path}.{os.getpid()}.part"
    writer = gguf.GGUFWriter(partial, _ARCHITECTURES[architecture["family"]])
    try:
        _describe(writer, architecture, weight_format)
        for tensor in wanted:
            dtype, stored = _STORAGE["fp32" if tensor.wide else weight_format]
            shape = tensor.shape if len(tensor.sources) == 1 else (len(tensor.sources), *tensor.shape)
            size = math.prod(shape) * np.dtype(dtype).itemsize
            writer.add_tensor_info(tensor.name, shape, np.dtype(dtype), size, raw_dtype=stored)
        factors = _rope_factors(architecture)
        if factors is not None:
            writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in wanted:
            storage = "fp32" if tensor.wide else weight_format
            recipe_of = architecture if kind == "fidelity" else None
            writer.write_tensor_data(_data(tensor, weights, storage, recipe_of))
        if factors is not None:
            writer.write_tensor_data(factors)
        writer.close()
        os.replace(partial, path)
    finally:
        writer.close()
        if os.path.exists(partial):
            os.unlink(partial)


def _data(
    tensor: Tensor, weights: NumpyWeights, weight_format: str, recipe_of: Optional[Dict[str, Any]]
) -> Any:
    dtype, _ = _STORAGE[weight_format]
    data = np.empty((len(tensor.sources), *tensor.shape), dtype)
    for at, source in enumerate(tensor.sources):
        if recipe_of is None:
            weights.fill(source, data[at], weight_format)
        else:
            values = after_recipe(source, tensor.shape, weights, recipe_of)
            data[at] = to_bf16(values) if weight_format == "bf16" else values
    values = data if len(tensor.sources) > 1 else data[0]
    return values if tensor.heads is None else _permuted(values, tensor.heads)


def _permuted(values: Any, heads: int) -> Any:
    """Order the rows of each head as llama.cpp's rotary embedding for Llama takes them: in pairs."""
    rows = values.reshape(heads, 2, values.shape[0] // heads // 2, -1)
    return np.ascontiguousarray(rows.swapaxes(1, 2).reshape(values.shape))


def unpermuted(values: Any, heads: int) -> Any:
    """Take back what llama.cpp's rotary embedding wants of the rows of each head."""
    rows = values.reshape(heads, values.shape[0] // heads // 2, 2, -1)
    return np.ascontiguousarray(rows.swapaxes(1, 2).reshape(values.shape))


def tensors(arch: Dict[str, Any]) -> Iterator[Tensor]:
    """Yield every tensor that llama.cpp wants of an architecture (fields of ``Architecture`` as JSON)."""
    hidden = arch["hidden_size"]
    yield Tensor("token_embd.weight", ["model.embed_tokens.weight"], (arch["vocab_size"], hidden))
    for layer in range(arch["layers"]):
        yield from _layer(arch, layer)
    yield Tensor("output_norm.weight", ["model.norm.weight"], (hidden,), wide=True)
    if not arch["tied_embeddings"]:
        yield Tensor("output.weight", ["lm_head.weight"], (arch["vocab_size"], hidden))


def _layer(arch: Dict[str, Any], layer: int) -> Iterator[Tensor]:
    hidden, block, source = arch["hidden_size"], f"blk.{layer}", f"model.layers.{layer}"
    query, key = arch["heads"] * arch["head_dim"], arch["kv_heads"] * arch["head_dim"]
    paired = arch["family"] == "llama"
    yield Tensor(f"{block}.attn_norm.weight", [f"{source}.input_layernorm.weight"], (hidden,), wide=True)
    for letter, width, heads in (("q", query, arch["heads"]), ("k", key, arch["kv_heads"]), ("v", key, None)):
        turned = heads if paired else None
        name, projection = f"{block}.attn_{letter}", f"{source}.self_attn.{letter}_proj"
        yield Tensor(f"{name}.weight", [f"{projection}.weight"], (width, hidden), turned)
        if arch["attention_bias"]:
            yield Tensor(f"{name}.bias", [f"{projection}.bias"], (width,), turned, wide=True)
    yield Tensor(f"{block}.attn_output.weight", [f"{source}.self_attn.o_proj.weight"], (hidden, query))
    if arch["qk_norm"]:
        for letter in ("q", "k"):
            norm = f"{source}.self_attn.{letter}_norm.weight"
            yield Tensor(f"{block}.attn_{letter}_norm.weight", [norm], (arch["head_dim"],), wide=True)
    norm = f"{source}.post_attention_layernorm.weight"
    yield Tensor(f"{block}.ffn_norm.weight", [norm], (hidden,), wide=True)
    yield from _mlp(arch, layer)


def _mlp(arch: Dict[str, Any], layer: int) -> Iterator[Tensor]:
    hidden, block, source = arch["hidden_size"], f"blk.{layer}", f"model.layers.{layer}.mlp"
    experts = arch["experts"]
    if experts is None or layer < experts["dense_layers"]:
        width, suffix, paths = arch["intermediate_size"], "", [source]
    else:
        yield Tensor(
            f"{block}.ffn_gate_inp.weight", [f"{source}.gate.weight"], (experts["count"], hidden), wide=True
        )
        width, suffix = experts["intermediate_size"], "_exps"
        paths = [f"{source}.experts.{expert}" for expert in range(experts["count"])]
    for name, shape in (("gate", (width, hidden)), ("up", (width, hidden)), ("down", (hidden, width))):
        sources = [f"{path}.{name}_proj.weight" for path in paths]
        yield Tensor(f"{block}.ffn_{name}{suffix}.weight", sources, shape)


def _describe(writer: Any, arch: Dict[str, Any], weight_format: str) -> None:
    writer.add_file_type(_FILE_TYPES[weight_format])
    writer.add_vocab_size(arch["vocab_size"])
    writer.add_tokenizer_model("none")
    writer.add_context_length(arch["max_positions"])
    writer.add_embedding_length(arch["hidden_size"])
    writer.add_block_count(arch["layers"])
    writer.add_feed_forward_length(arch["intermediate_size"])
    writer.add_head_count(arch["heads"])
    writer.add_head_count_kv(arch["kv_heads"])
    writer.add_key_length(arch["head_dim"])
    writer.add_value_length(arch["head_dim"])
    writer.add_rope_dimension_count(arch["head_dim"])
    writer.add_rope_freq_base(arch["rope_theta"])
    writer.add_layer_norm_rms_eps(arch["norm_eps"])
    if arch["experts"] is not None:
        writer.add_expert_count(arch["experts"]["count"])
        writer.add_expert_used_count(arch["experts"]["per_token"])
        writer.add_expert_feed_forward_length(arch["experts"]["intermediate_size"])


def _rope_factors(arch: Dict[str, Any]) -> Any:
    """Return by what llama.cpp divides each rotary frequency, or None for plain ones.

    Llama 3's scaling, after ``_compute_llama3_parameters`` of transformers: long waves are stretched by
    ``factor``, short ones kept, those in between blended.
    """
    scaling = arch["rope_scaling"]
    if scaling is None or scaling.get("rope_type", "default") == "default":
        return None
    half = arch["head_dim"] // 2
    frequency = arch["rope_theta"] ** -(np.arange(half, dtype=np.float64) / half)
    wavelength = 2 * math.pi / frequency
    original = scaling["original_max_position_embeddings"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    smooth = np.clip((original / wavelength - low) / (high - low), 0.0, 1.0)
    stretched = (1 - smooth) / scaling["factor"] + smooth
    return (1 / stretched).astype(np.float32)
