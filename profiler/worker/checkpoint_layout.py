"""What a checkpoint of an architecture holds: the names and shapes of its tensors, and its ``config.json``.

The same as ``profiler.models.tensors`` and ``profiler.models.config.to_config``, which the worker cannot
import; a test holds both together for every family.
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, Tuple

CLASS_OF_FAMILY = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
}

Named = Tuple[str, Tuple[int, ...]]


def tensors(arch: Dict[str, Any]) -> Iterator[Named]:
    """Yield (Hugging Face name, shape) of every tensor, layer by layer.

    Args:
        arch: fields of ``profiler.models.architecture.Architecture`` as JSON.
    """
    hidden, vocabulary = arch["hidden_size"], arch["vocab_size"]
    yield "model.embed_tokens.weight", (vocabulary, hidden)
    for layer in range(arch["layers"]):
        prefix = "model.layers.%d." % layer
        for name, shape in _layer(arch, layer):
            yield prefix + name, shape
    yield "model.norm.weight", (hidden,)
    if not arch["tied_embeddings"]:
        yield "lm_head.weight", (vocabulary, hidden)


def _layer(arch: Dict[str, Any], layer: int) -> Iterator[Named]:
    yield "input_layernorm.weight", (arch["hidden_size"],)
    yield from _grouped(arch) if arch["latent_attention"] is None else _latent(arch, arch["latent_attention"])
    yield "post_attention_layernorm.weight", (arch["hidden_size"],)
    moe = arch["experts"]
    if moe is None or layer < moe["dense_layers"]:
        yield from _mlp("mlp", arch["intermediate_size"], arch["hidden_size"])
    else:
        yield from _experts(moe, arch["hidden_size"])


def _grouped(arch: Dict[str, Any]) -> Iterator[Named]:
    hidden, width = arch["hidden_size"], arch["head_dim"]
    query, key = arch["heads"] * width, arch["kv_heads"] * width
    for letter, rows in (("q", query), ("k", key), ("v", key)):
        yield "self_attn.%s_proj.weight" % letter, (rows, hidden)
        if arch["attention_bias"]:
            yield "self_attn.%s_proj.bias" % letter, (rows,)
    yield "self_attn.o_proj.weight", (hidden, query)
    if arch["qk_norm"]:
        for letter in ("q", "k"):
            yield "self_attn.%s_norm.weight" % letter, (width,)


def _latent(arch: Dict[str, Any], latent: Dict[str, Any]) -> Iterator[Named]:
    hidden, heads, rank = arch["hidden_size"], arch["heads"], latent["query_rank"]
    query = heads * (latent["nope_head_dim"] + latent["rope_head_dim"])
    if rank is None:
        yield "self_attn.q_proj.weight", (query, hidden)
    else:
        yield "self_attn.q_a_proj.weight", (rank, hidden)
        yield "self_attn.q_a_layernorm.weight", (rank,)
        yield "self_attn.q_b_proj.weight", (query, rank)
    compressed = latent["kv_rank"] + latent["rope_head_dim"]
    expanded = heads * (latent["nope_head_dim"] + latent["value_head_dim"])
    yield "self_attn.kv_a_proj_with_mqa.weight", (compressed, hidden)
    yield "self_attn.kv_a_layernorm.weight", (latent["kv_rank"],)
    yield "self_attn.kv_b_proj.weight", (expanded, latent["kv_rank"])
    yield "self_attn.o_proj.weight", (hidden, heads * latent["value_head_dim"])


def _mlp(name: str, width: int, hidden: int) -> Iterator[Named]:
    yield name + ".gate_proj.weight", (width, hidden)
    yield name + ".up_proj.weight", (width, hidden)
    yield name + ".down_proj.weight", (hidden, width)


def _experts(moe: Dict[str, Any], hidden: int) -> Iterator[Named]:
    yield "mlp.gate.weight", (moe["count"], hidden)
    if moe["routing_bias"]:
        yield "mlp.gate.e_score_correction_bias", (moe["count"],)
    for expert in range(moe["count"]):
        yield from _mlp("mlp.experts.%d" % expert, moe["intermediate_size"], hidden)
    if moe["shared"]:
        yield from _mlp("mlp.shared_experts", moe["shared"] * moe["intermediate_size"], hidden)


def config(arch: Dict[str, Any], dtype: str) -> Dict[str, Any]:
    """Return ``config.json`` in the old spelling, which every version of transformers reads.

    Args:
        arch: as for :func:`tensors`.
        dtype: how PyTorch calls the type that the weights are stored in.
    """
    found: Dict[str, Any] = {
        "architectures": [CLASS_OF_FAMILY[arch["family"]]],
        "model_type": arch["family"],
        "vocab_size": arch["vocab_size"],
        "hidden_size": arch["hidden_size"],
        "intermediate_size": arch["intermediate_size"],
        "num_hidden_layers": arch["layers"],
        "num_attention_heads": arch["heads"],
        "num_key_value_heads": arch["kv_heads"],
        "hidden_act": "silu",
        "max_position_embeddings": arch["max_positions"],
        "rms_norm_eps": arch["norm_eps"],
        "rope_theta": arch["rope_theta"],
        "rope_scaling": arch["rope_scaling"],
        "tie_word_embeddings": arch["tied_embeddings"],
        "torch_dtype": dtype,
    }
    if arch["latent_attention"] is None:
        found["head_dim"] = arch["head_dim"]
    else:
        found.update(_latent_config(arch["latent_attention"]))
    if arch["experts"] is not None:
        found.update(_experts_config(arch["experts"], arch["family"]))
    return found


def _latent_config(latent: Dict[str, Any]) -> Dict[str, Any]:
    return {
        "q_lora_rank": latent["query_rank"],
        "kv_lora_rank": latent["kv_rank"],
        "qk_rope_head_dim": latent["rope_head_dim"],
        "qk_nope_head_dim": latent["nope_head_dim"],
        "v_head_dim": latent["value_head_dim"],
    }


def _experts_config(moe: Dict[str, Any], family: str) -> Dict[str, Any]:
    found = {
        "num_experts_per_tok": moe["per_token"],
        "moe_intermediate_size": moe["intermediate_size"],
        "norm_topk_prob": moe["normalise"],
    }
    if family == "qwen3_moe":
        found["num_experts"] = moe["count"]
        found["decoder_sparse_step"] = 1
        found["mlp_only_layers"] = list(range(moe["dense_layers"]))
        return found
    found.update(
        n_routed_experts=moe["count"],
        n_shared_experts=moe["shared"],
        first_k_dense_replace=moe["dense_layers"],
        moe_layer_freq=1,
        n_group=moe["groups"],
        topk_group=moe["groups_per_token"],
        routed_scaling_factor=moe["scale"],
        scoring_func=moe["scoring"],
        topk_method="noaux_tc",
        num_nextn_predict_layers=0,
    )
    return found
