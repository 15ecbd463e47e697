"""The architecture that a GGUF file's metadata describe, in the fields of a ``config.json``.

Metadata are taken as llama.cpp takes them and checked as a configuration is, so the same model has the same
architecture, and is the same work, whether it comes as safetensors or as GGUF.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from profiler.errors import InputFileError
from profiler.models.architecture import Architecture
from profiler.models.config import architecture_from_config
from profiler.models.gguf_file import GgufFile, TensorPlace
from profiler.models.gguf_types import TYPES

FAMILIES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "qwen3moe": "qwen3_moe"}
"""llama.cpp's name of an architecture -> our family."""

ROPE_FACTORS = "rope_freqs.weight"
"""Llama 3's rotary scaling, as the factors that it makes of the parameters of ``config.json``."""

# Fields of config.json -> what follows the architecture's name in the metadata, for those that are needed.
_FIELDS = {
    "max_position_embeddings": "context_length",
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
    "num_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
}
# Rotary scaling of Llama 3.1 to 3.3 but for the factor, the same in all that were published.
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def architecture_of(file: GgufFile, tensors: Mapping[str, TensorPlace]) -> Architecture:
    """Return the architecture by metadata and names of tensors; see :func:`with_rope_factors`.

    Args:
        file: the first one of the model, where the metadata are.
        tensors: of all its files.

    Raises:
        InputFileError: it is not one of ours, or fields are missing or wrong; all faults at once.
    """
    named = file.fields.get("general.architecture")
    if not isinstance(named, str) or named not in FAMILIES:
        known = ", ".join(FAMILIES)
        shown = "no architecture" if named is None else f"the architecture {str(named)[:40]!r}"
        raise InputFileError(
            [
                f"{file.path}: has {shown}; known are {known}. Start llama-server with others, and drive it "
                "with `aiprof load URL`"
            ]
        )
    config = _config(file, named, tensors)
    try:
        return architecture_from_config(config, str(file.path))
    except InputFileError as error:
        raise InputFileError([_respelt(fault, str(file.path), named) for fault in error.faults]) from None


def _config(file: GgufFile, named: str, tensors: Mapping[str, TensorPlace]) -> dict[str, Any]:
    """Return the metadata as fields of a ``config.json``; what is of a wrong type is left to its checks."""
    fields = file.fields
    config: dict[str, Any] = {"model_type": FAMILIES[named]}
    for ours, theirs in _FIELDS.items():
        value = fields.get(f"{named}.{theirs}")
        if isinstance(value, tuple):
            # One per layer. Layers that differ have no place in our architecture.
            value = value[0] if value and len(set(value)) == 1 else list(value)[:8]
        if value is not None:
            config[ours] = _shortest(value)
    if FAMILIES[named] == "qwen3_moe":
        config["norm_topk_prob"] = True  # llama.cpp always does
    elif config.pop("num_experts", 0) not in (0, None):
        raise InputFileError([f"{file.path}: is a mixture of experts of the architecture {named!r}"])
    for unused in ("num_experts_per_tok", "moe_intermediate_size"):
        if FAMILIES[named] != "qwen3_moe":
            config.pop(unused, None)
    heads, width = config.get("num_attention_heads"), config.get("hidden_size")
    if "head_dim" not in config and type(heads) is int and type(width) is int and heads > 0:
        config["head_dim"] = width // heads
    rotated = fields.get(f"{named}.rope.dimension_count", config.get("head_dim"))
    if rotated != config.get("head_dim"):
        raise InputFileError(
            [f"{file.path}: {named}.rope.dimension_count: only part of each head is rotated"]
        )
    embedding = tensors.get("token_embd.weight")
    config["vocab_size"] = None if embedding is None else embedding.dims[-1]
    config["tie_word_embeddings"] = "output.weight" not in tensors
    config["rope_scaling"] = _rope_scaling(fields, named)
    return config


def _rope_scaling(fields: Mapping[str, Any], named: str) -> dict[str, Any] | None:
    kind = fields.get(f"{named}.rope.scaling.type", "none")
    if kind in ("none", ""):
        return None
    scaling = {"rope_type": kind, "factor": _shortest(fields.get(f"{named}.rope.scaling.factor"))}
    original = fields.get(f"{named}.rope.scaling.original_context_length")
    return scaling | ({} if original is None else {"original_max_position_embeddings": original})


def _shortest(value: Any) -> Any:
    """Return the shortest decimal that is this 32-bit number: 1e-5, not 9.999999747378752e-06."""
    if not isinstance(value, float) or not math.isfinite(value):
        return value
    for digits in range(6, 10):
        short = float(f"{value:.{digits}g}")
        try:
            if struct.pack("<f", short) == struct.pack("<f", value):
                return short
        except OverflowError:  # a double that is no 32-bit number
            break
    return value


def _respelt(fault: str, where: str, named: str) -> str:
    """Return a fault of a ``config.json`` under the name that the field has in GGUF."""
    what = fault.removeprefix(f"{where}: ")
    key = what.split(":", 1)[0]
    if key == "vocab_size":
        return f"{where}: token_embd.weight: the embedding is missing, or no matrix"
    return f"{where}: {named}.{_FIELDS[key]}{what[len(key) :]}" if key in _FIELDS else fault


def with_rope_factors(architecture: Architecture, path: Path, place: TensorPlace) -> Architecture:
    """Return the architecture with the scaling that its table of rotary factors stands for.

    A table that is not Llama 3's keeps the model from being checked against a reference, nothing else.

    Args:
        architecture: of the model.
        path: of the file that holds :data:`ROPE_FACTORS`.
        place: of that tensor.

    Raises:
        InputFileError: it is no table of factors.
    """
    half = architecture.head_dim // 2
    if place.type != TYPES[0] or place.dims != (half,):
        raise InputFileError([f"{path}: {ROPE_FACTORS} is {list(place.dims)} in {place.type.name}"])
    with path.open("rb") as file:
        file.seek(place.offset)
        factors = struct.unpack(f"<{half}f", file.read(place.size))
    if not all(math.isfinite(factor) and factor > 0 for factor in factors):
        raise InputFileError([f"{path}: {ROPE_FACTORS} holds what is no factor"])
    if all(factor == 1.0 for factor in factors):
        return architecture
    scaling = {"rope_type": "llama3", "factor": _shortest(max(factors)), **_LLAMA3}
    wanted = llama3_factors(architecture.rope_theta, half, scaling)
    if not all(math.isclose(one, other, rel_tol=1e-3) for one, other in zip(factors, wanted, strict=True)):
        table = hashlib.sha256(struct.pack(f"<{half}f", *factors)).hexdigest()
        scaling = {"rope_type": "table", "sha256": table}
    return replace(architecture, rope_scaling=scaling)


def llama3_factors(theta: float, half: int, scaling: Mapping[str, Any]) -> list[float]:
    """Return by what each rotary frequency is divided (``_compute_llama3_parameters`` of transformers)."""
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    factors = []
    for at in range(half):
        wavelength = 2 * math.pi * theta ** (at / half)
        smooth = (scaling["original_max_position_embeddings"] / wavelength - low) / (high - low)
        smooth = min(max(smooth, 0.0), 1.0)
        factors.append(1 / ((1 - smooth) / scaling["factor"] + smooth))
    return factors
