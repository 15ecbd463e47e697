"""Reading config.json: both spellings, every family, and files from people who mean no good."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from architectures import DEEPSEEK_V3, LLAMA, QWEN2, QWEN3, QWEN3_MOE, SMALL, any_architecture
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.errors import InputFileError
from profiler.models.architecture import FAMILIES, Architecture
from profiler.models.catalogue import catalogue
from profiler.models.config import (
    FAMILY_OF_CLASS,
    MAX_CONFIG_BYTES,
    architecture_from_config,
    read_config,
    to_config,
)


def faults_of(config: Any) -> tuple[str, ...]:
    with pytest.raises(InputFileError) as caught:
        architecture_from_config(config, "config.json")
    return caught.value.faults


def changed(arch: Architecture, **fields: Any) -> dict[str, Any]:
    return to_config(arch) | fields


def test_families_are_those_of_the_architecture() -> None:
    assert set(FAMILY_OF_CLASS.values()) == set(FAMILIES)


@given(arch=any_architecture())
@settings(deadline=None)
def test_written_configurations_read_back(arch: Architecture) -> None:
    assert architecture_from_config(json.loads(json.dumps(to_config(arch))), "config.json") == arch


@pytest.mark.parametrize("name", catalogue())
def test_catalogue_configurations_read_back(name: str) -> None:
    arch = catalogue()[name].architecture
    assert architecture_from_config(to_config(arch), "config.json") == arch


@pytest.mark.parametrize("arch", SMALL, ids=lambda arch: arch.family)
def test_transformers_5_spelling_means_the_same(arch: Architecture) -> None:
    config = to_config(arch)
    scaling = config.pop("rope_scaling") or {"rope_type": "default"}
    config["rope_parameters"] = scaling | {"rope_theta": config.pop("rope_theta")}
    config["dtype"] = config.pop("torch_dtype")
    if arch.family == "qwen3_moe":
        config["num_local_experts"] = config.pop("num_experts")
    if arch.family == "deepseek_v3":
        config["num_local_experts"] = config.pop("n_routed_experts")
    assert architecture_from_config(config, "config.json") == arch


def test_old_rope_type_key_and_whole_numbers() -> None:
    config = to_config(DEEPSEEK_V3)
    config["rope_theta"] = 10_000
    config["rope_scaling"]["type"] = config["rope_scaling"].pop("rope_type")
    config["rope_scaling"]["factor"] = 4
    again = architecture_from_config(config, "config.json")
    assert again == DEEPSEEK_V3
    assert isinstance(again.rope_theta, float)


def test_absent_fields_mean_what_transformers_takes_them_for() -> None:
    config = to_config(LLAMA)
    for key in ("num_key_value_heads", "head_dim", "rope_theta", "rope_scaling", "tie_word_embeddings"):
        del config[key]
    arch = architecture_from_config(config, "config.json")
    assert (arch.kv_heads, arch.head_dim, arch.rope_theta, arch.rope_scaling) == (4, 8, 10_000.0, None)
    assert not arch.tied_embeddings
    config = to_config(QWEN3) | {"head_dim": None}
    assert architecture_from_config(config, "config.json").head_dim == 128


def test_null_is_absent_except_for_the_query_rank() -> None:
    arch = architecture_from_config(changed(LLAMA, head_dim=None, sliding_window=None), "config.json")
    assert arch == LLAMA
    deepseek = architecture_from_config(changed(DEEPSEEK_V3, q_lora_rank=None), "config.json")
    assert deepseek.latent_attention is not None
    assert deepseek.latent_attention.query_rank is None
    config = to_config(DEEPSEEK_V3)
    del config["q_lora_rank"]
    assert faults_of(config) == ("config.json: q_lora_rank: is missing",)


def test_qwen2_biases_need_no_field_and_its_unused_window_is_no_window() -> None:
    config = changed(QWEN2, sliding_window=131072, use_sliding_window=False, max_window_layers=2)
    assert architecture_from_config(config, "config.json") == QWEN2


def test_yarn_without_a_length_takes_the_longest() -> None:
    config = changed(LLAMA, rope_scaling={"type": "yarn", "factor": 2.0})
    assert architecture_from_config(config, "config.json").rope_scaling == {
        "rope_type": "yarn",
        "factor": 2.0,
        "original_max_position_embeddings": 256,
    }


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"architectures": ["MistralForCausalLM"]}, '"MistralForCausalLM" is not supported'),
        ({"architectures": ["Qwen2VLForConditionalGeneration"]}, "is not supported (supported: "),
        ({"model_type": "gpt2"}, '"gpt2" is not supported'),
        ({}, "architectures: is missing"),
        ({"architectures": "LlamaForCausalLM"}, "architectures: is missing"),
        ({"architectures": [{}]}, "is not supported"),
        ({"architectures": ["x" * 10_000]}, "is not supported"),
    ],
)
def test_unknown_architectures_take_one_line(config: dict[str, Any], what: str) -> None:
    (fault,) = faults_of(config)
    assert what in fault
    assert all(name in fault for name in FAMILY_OF_CLASS)
    assert len(fault) < 400


@pytest.mark.parametrize("config", [None, [], "text", 7])
def test_other_json_is_refused(config: Any) -> None:
    assert faults_of(config) == ("config.json: must be a JSON object",)


@pytest.mark.parametrize(
    ("arch", "fields", "what"),
    [
        (LLAMA, {"hidden_size": -32}, "hidden_size: must be greater than 0, not -32"),
        (LLAMA, {"hidden_size": 1e30}, "hidden_size: must be a whole number, not 1e+30"),
        (LLAMA, {"hidden_size": 10**30}, "hidden_size: must be at most"),
        (LLAMA, {"num_hidden_layers": True}, "num_hidden_layers: must be a whole number, not true"),
        (LLAMA, {"num_hidden_layers": "2"}, 'num_hidden_layers: must be a whole number, not "2"'),
        (LLAMA, {"num_hidden_layers": 2.0}, "num_hidden_layers: must be a whole number, not 2.0"),
        (LLAMA, {"num_key_value_heads": 3}, "num_key_value_heads: must divide num_attention_heads (4)"),
        (LLAMA, {"head_dim": 7}, "head_dim: rotary embedding needs an even width, not 7"),
        (LLAMA, {"head_dim": None, "num_attention_heads": 6}, "does not divide hidden_size (32)"),
        (LLAMA, {"rms_norm_eps": float("nan")}, "rms_norm_eps: "),
        (LLAMA, {"rms_norm_eps": 0}, "rms_norm_eps: must be greater than 0"),
        (LLAMA, {"tie_word_embeddings": 1}, "tie_word_embeddings: must be true or false"),
        (LLAMA, {"hidden_act": "gelu"}, "hidden_act: must be 'silu', not \"gelu\""),
        (LLAMA, {"attention_bias": True}, "attention_bias: must be false: biases on all attention"),
        (LLAMA, {"mlp_bias": True}, "mlp_bias: must be false: biases in the MLP"),
        (QWEN2, {"use_sliding_window": True}, "use_sliding_window: must be false: sliding-window attention"),
        (QWEN2, {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types[1]: must be"),
        (QWEN2, {"layer_types": ["full_attention"]}, "layer_types: has 1 entries for 2 layers"),
        (LLAMA, {"rope_theta": -1.0}, "rope_theta: must be at least 1"),
        (LLAMA, {"rope_scaling": 8}, "rope_scaling: must be an object"),
        (LLAMA, {"rope_scaling": {"type": "longrope"}}, "rope_scaling.rope_type: must be 'default'"),
        (LLAMA, {"rope_scaling": {"rope_type": "linear"}}, "rope_scaling.factor: is missing"),
        (LLAMA, {"rope_scaling": {"type": "yarn", "rope_type": "linear"}}, "type contradicts rope_type"),
        (LLAMA, {"rope_parameters": {"rope_theta": 5.0}}, "rope_theta: contradicts rope_parameters"),
        (LLAMA, {"partial_rotary_factor": 0.5}, "partial_rotary_factor: must be at least 1"),
        (QWEN3_MOE, {"decoder_sparse_step": 2}, "decoder_sparse_step: must be 1"),
        (QWEN3_MOE, {"mlp_only_layers": [1]}, "mlp_only_layers: only the first layers can be dense"),
        (QWEN3_MOE, {"mlp_only_layers": [0, 1, 2, 3]}, "4 dense layers of 3"),
        (QWEN3_MOE, {"num_experts_per_tok": 9}, "num_experts_per_tok: 9 per token"),
        (QWEN3_MOE, {"num_local_experts": 9}, "num_local_experts: contradicts num_experts"),
        (QWEN3_MOE, {"num_experts": 4096, "num_hidden_layers": 4096}, "are more than 262144 in all"),
        (DEEPSEEK_V3, {"num_key_value_heads": 2}, "num_key_value_heads: latent attention"),
        (DEEPSEEK_V3, {"n_group": 3}, "n_group: 3 groups"),
        (DEEPSEEK_V3, {"topk_group": 3}, "n_group: 2 groups, 3 of them per token"),
        (DEEPSEEK_V3, {"num_experts_per_tok": 5}, "num_experts_per_tok: 5 per token"),
        (DEEPSEEK_V3, {"scoring_func": "softmax"}, "scoring_func: must be 'sigmoid'"),
        (DEEPSEEK_V3, {"moe_layer_freq": 2}, "moe_layer_freq: must be 1"),
        (DEEPSEEK_V3, {"qk_rope_head_dim": 5}, "needs an even width, not 5"),
    ],
)
def test_nonsense_is_refused(arch: Architecture, fields: dict[str, Any], what: str) -> None:
    faults = faults_of(changed(arch, **fields))
    assert any(what in fault for fault in faults), faults
    assert all(fault.startswith("config.json: ") and "\n" not in fault for fault in faults)


def test_all_faults_come_at_once() -> None:
    config = changed(LLAMA, vocab_size=0, rope_theta="big", hidden_act="relu")
    del config["num_hidden_layers"]
    faults = "\n".join(faults_of(config))
    assert faults.count("\n") == 3
    for field in ("vocab_size", "rope_theta", "hidden_act", "num_hidden_layers: is missing"):
        assert field in faults


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def read_or_faults(config: dict[str, Any]) -> Architecture | tuple[str, ...]:
    try:
        return architecture_from_config(config, "config.json")
    except InputFileError as error:
        return error.faults


@given(arch=st.sampled_from(SMALL), data=st.data())
@settings(deadline=None)
def test_any_value_is_read_or_refused_in_plain_words(arch: Architecture, data: st.DataObject) -> None:
    config = to_config(arch)
    keys = st.sampled_from([*config, "rope_parameters", "layer_types"])
    outcome = read_or_faults(config | data.draw(st.dictionaries(keys, JSON, max_size=3)))
    if isinstance(outcome, Architecture):
        assert outcome.heads % outcome.kv_heads == 0
        assert architecture_from_config(to_config(outcome), "config.json") == outcome
    else:
        assert outcome
        assert all(fault.startswith("config.json: ") for fault in outcome)


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_config(QWEN3_MOE)), encoding="utf-8")
    assert read_config(path) == QWEN3_MOE


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b" " * (MAX_CONFIG_BYTES + 1), "larger than 1048576 bytes"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"a": 1, "a": 2}', 'duplicate key "a"'),
        (b'{"vocab_size": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b"[]", "must be a JSON object"),
    ],
)
def test_hostile_files_are_refused_in_one_line(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=what) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "config.json"
    os.mkfifo(pipe)
    with pytest.raises(InputFileError, match="is not a regular file"):
        read_config(pipe)
    with pytest.raises(InputFileError, match="cannot be read: No such file"):
        read_config(tmp_path / "missing.json")
