"""Reading and writing the ``config.json`` of Hugging Face models.

Old and transformers-5 spellings are read: ``rope_theta`` and ``rope_scaling`` at the top or
``rope_parameters``, ``type`` or ``rope_type``, ``num_local_experts`` or a family's own name. Absent
fields mean what transformers takes them for. What would change the arithmetic in a way that
:class:`~profiler.models.architecture.Architecture` cannot say (sliding windows, other activations,
further biases) is refused. A configuration may come from anyone, so its size, its types and the
range of every number are checked, and all faults are reported at once.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from profiler.errors import InputFileError
from profiler.models.architecture import Architecture, Experts, LatentAttention
from profiler.models.config_fields import FIELDS, DecoderFields
from profiler.models.rope import read_rope
from profiler.yamlio_faults import plain_words, show_path

MAX_CONFIG_BYTES = 1 << 20
FAMILY_OF_CLASS = {
    "LlamaForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3_moe",
    "DeepseekV3ForCausalLM": "deepseek_v3",
}
"""The ``architectures`` entry of each family; the family is its ``model_type``."""

_NULL_MEANS_SOMETHING = frozenset({"q_lora_rank"})


def read_config(path: Path) -> Architecture:
    """Read a ``config.json``.

    Raises:
        InputFileError: the file cannot be read, is too large, is not JSON or does not describe a
            model that we know.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputFileError([f"{path}: is not a regular file"])
        with path.open("rb") as file:
            raw = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise InputFileError([f"{path}: cannot be read: {error.strerror or error}"]) from None
    if len(raw) > MAX_CONFIG_BYTES:
        raise InputFileError([f"{path}: larger than {MAX_CONFIG_BYTES} bytes, which no config.json is"])
    try:
        config = json.loads(raw.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise InputFileError([f"{path}: not valid JSON: {' '.join(str(error).split())}"]) from None
    return architecture_from_config(config, str(path))


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for key, value in pairs:
        if key in entries:
            raise ValueError(f"duplicate key {json.dumps(key)[:60]}")
        entries[key] = value
    return entries


def architecture_from_config(config: Any, where: str) -> Architecture:
    """Read the contents of a ``config.json``, in its old or its transformers-5 spelling.

    Args:
        config: the parsed JSON.
        where: what stands before each fault, usually the file's name.

    Raises:
        InputFileError: the architecture is not one of ours, or fields are missing, of the wrong
            type, out of range or contradict each other; all faults at once.
    """
    if not isinstance(config, dict):
        raise InputFileError([f"{where}: must be a JSON object"])
    family = _family(config, where)
    model = FIELDS[family]
    faults: list[str] = []
    fields = _respelled(config, model, faults)
    rope = read_rope(config, faults)
    filled: DecoderFields | None = None
    try:
        filled = model.model_validate(fields)
    except ValidationError as error:
        faults += [f"{show_path(place)}: {what}" for place, what in plain_words(error, model, fields)]
    else:
        faults += filled.conflicts()
    if faults or filled is None or rope is None:
        raise InputFileError([f"{where}: {fault}" for fault in faults])
    return Architecture(
        family=family,
        vocab_size=filled.vocab_size,
        hidden_size=filled.hidden_size,
        layers=filled.num_hidden_layers,
        heads=filled.num_attention_heads,
        kv_heads=filled.kv_heads,
        head_dim=filled.width_of_head,
        intermediate_size=filled.intermediate_size,
        tied_embeddings=filled.tie_word_embeddings,
        attention_bias=family == "qwen2",
        qk_norm=family in ("qwen3", "qwen3_moe"),
        norm_eps=filled.rms_norm_eps,
        rope_theta=rope.theta,
        rope_scaling=rope.scaling(filled.max_position_embeddings),
        max_positions=filled.max_position_embeddings,
        experts=filled.experts(),
        latent_attention=filled.latent_attention(),
    )


def _family(config: Mapping[str, Any], where: str) -> str:
    named = config.get("architectures")
    candidate = named[0] if isinstance(named, list) and named else config.get("model_type")
    family = FAMILY_OF_CLASS.get(candidate, candidate) if isinstance(candidate, str) else None
    if family in FIELDS:
        return str(family)
    supported = ", ".join(FAMILY_OF_CLASS)
    if candidate is None:
        raise InputFileError([f"{where}: architectures: is missing (supported: {supported})"])
    shown = str(candidate)[:60]
    raise InputFileError(
        [f"{where}: architectures: {json.dumps(shown)} is not supported (supported: {supported})"]
    )


def _respelled(config: Mapping[str, Any], model: type[DecoderFields], faults: list[str]) -> dict[str, Any]:
    """Return the fields that ``model`` knows under its own spelling; null counts as absent."""
    fields = {
        key: value
        for key, value in config.items()
        if key in model.model_fields and (value is not None or key in _NULL_MEANS_SOMETHING)
    }
    for other, ours in model.spellings.items():
        value = config.get(other)
        if value is not None and fields.setdefault(ours, value) != value:
            faults.append(f"{other}: contradicts {ours}")
    return fields


def to_config(arch: Architecture, dtype: str = "bfloat16") -> dict[str, Any]:
    """Write the architecture as a ``config.json`` that transformers, vLLM and llama.cpp read.

    The spelling is the old one (``rope_theta``, ``rope_scaling``, ``torch_dtype``), which is read
    everywhere. Feeding the result to :func:`architecture_from_config` gives ``arch`` again.

    Args:
        arch: what to write.
        dtype: how PyTorch calls the type that the weights are stored in.
    """
    config: dict[str, Any] = {
        "architectures": [name for name, family in FAMILY_OF_CLASS.items() if family == arch.family],
        "model_type": arch.family,
        "vocab_size": arch.vocab_size,
        "hidden_size": arch.hidden_size,
        "intermediate_size": arch.intermediate_size,
        "num_hidden_layers": arch.layers,
        "num_attention_heads": arch.heads,
        "num_key_value_heads": arch.kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": arch.max_positions,
        "rms_norm_eps": arch.norm_eps,
        "rope_theta": arch.rope_theta,
        "rope_scaling": None if arch.rope_scaling is None else dict(arch.rope_scaling),
        "tie_word_embeddings": arch.tied_embeddings,
        "torch_dtype": dtype,
    }
    if arch.latent_attention is not None:
        config |= _latent_config(arch.latent_attention)
    else:
        config["head_dim"] = arch.head_dim
    if arch.experts is not None:
        config |= _experts_config(arch.experts, arch.family)
    return config


def _latent_config(latent: LatentAttention) -> dict[str, Any]:
    return {
        "q_lora_rank": latent.query_rank,
        "kv_lora_rank": latent.kv_rank,
        "qk_rope_head_dim": latent.rope_head_dim,
        "qk_nope_head_dim": latent.nope_head_dim,
        "v_head_dim": latent.value_head_dim,
    }


def _experts_config(moe: Experts, family: str) -> dict[str, Any]:
    common = {
        "num_experts_per_tok": moe.per_token,
        "moe_intermediate_size": moe.intermediate_size,
        "norm_topk_prob": moe.normalise,
    }
    if family == "qwen3_moe":
        return common | {
            "num_experts": moe.count,
            "decoder_sparse_step": 1,
            "mlp_only_layers": list(range(moe.dense_layers)),
        }
    return common | {
        "n_routed_experts": moe.count,
        "n_shared_experts": moe.shared,
        "first_k_dense_replace": moe.dense_layers,
        "moe_layer_freq": 1,
        "n_group": moe.groups,
        "topk_group": moe.groups_per_token,
        "routed_scaling_factor": moe.scale,
        "scoring_func": moe.scoring,
        "topk_method": "noaux_tc",
        "num_nextn_predict_layers": 0,
    }
