"""Names, shapes, counts and operations against the models that transformers builds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from architectures import DEEPSEEK_V3, LLAMA, QWEN2, QWEN3, QWEN3_MOE, SMALL

from profiler.models.accounting import decode_flops_per_token, parameters, prefill_flops, shapes
from profiler.models.architecture import Architecture
from profiler.models.catalogue import catalogue
from profiler.models.config import architecture_from_config, to_config

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.torch

Shapes = dict[str, tuple[int, ...]]


def transformers_config(arch: Architecture) -> Any:
    from transformers import CONFIG_MAPPING

    config = to_config(arch)
    return CONFIG_MAPPING[config["model_type"]].from_dict(config)


def build(arch: Architecture, device: str) -> Any:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            transformers_config(arch), attn_implementation="eager", dtype=torch.float32
        )
    model.set_experts_implementation("eager")
    return model.eval()


def as_on_disk(state: Mapping[str, Any], arch: Architecture) -> Shapes:
    """Shapes of a state dict with the experts taken apart, which transformers 5 fuses in memory."""
    found: Shapes = {}
    for name, tensor in state.items():
        shape = tuple(tensor.shape)
        fused = re.fullmatch(r"(.*\.experts)\.(gate_up_proj|down_proj)", name)
        if fused is None:
            found[name] = shape
            continue
        count, rows, cols = shape
        parts = ("gate_proj", "up_proj") if fused[2] == "gate_up_proj" else ("down_proj",)
        for expert in range(count):
            for part in parts:
                found[f"{fused[1]}.{expert}.{part}.weight"] = (rows // len(parts), cols)
    if arch.tied_embeddings:
        del found["lm_head.weight"]
    return found


@pytest.mark.parametrize("name", catalogue())
def test_catalogue_entry_is_the_model_that_transformers_builds(name: str) -> None:
    arch = catalogue()[name].architecture
    model = build(arch, "meta")
    counted = parameters(arch)
    assert sum(parameter.numel() for parameter in model.parameters()) == counted.total
    # The biases that steer DeepSeek's routing are a buffer there, and part of the checkpoint.
    steering = [tensor for key, tensor in model.named_buffers() if key.endswith("e_score_correction_bias")]
    assert sum(tensor.numel() for tensor in steering) == counted.routing_bias
    assert as_on_disk(model.state_dict(), arch) == shapes(arch)


@pytest.mark.parametrize("arch", SMALL, ids=lambda arch: arch.family)
def test_names_are_those_of_saved_files(arch: Architecture, tmp_path: Path) -> None:
    from safetensors import safe_open

    build(arch, "cpu").save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    assert found == shapes(arch)


@pytest.mark.parametrize("arch", [entry.architecture for entry in catalogue().values()] + list(SMALL))
def test_what_transformers_writes_reads_back(arch: Architecture) -> None:
    assert architecture_from_config(transformers_config(arch).to_dict(), "config.json") == arch


def counted_flops(model: Any, cached: int, tokens: int) -> int:
    """Operations of the matrix products of one forward pass, as PyTorch counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad():
        cache = None
        if cached:
            cache = model(torch.zeros((1, cached), dtype=torch.long), use_cache=True).past_key_values
        inputs = torch.arange(tokens).remainder(model.config.vocab_size)[None]
        with FlopCounterMode(display=False) as counter:
            model(inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return int(counter.get_total_flops())


FEWER_BIASES = replace(QWEN2, tied_embeddings=False)


@pytest.mark.parametrize(
    "arch", [LLAMA, QWEN2, FEWER_BIASES, QWEN3, QWEN3_MOE, DEEPSEEK_V3], ids=lambda arch: arch.family
)
def test_prefill_flops_are_counted_ones_without_the_masked_half(arch: Architecture) -> None:
    """Eager attention multiplies the whole square and masks; causal attention needs the lower half."""
    tokens = 17
    latent = arch.latent_attention
    widths = 2 * arch.head_dim if latent is None else arch.head_dim + latent.value_head_dim
    masked = tokens * tokens - tokens * (tokens + 1) // 2
    above_the_diagonal = 2 * arch.layers * arch.heads * widths * masked
    assert counted_flops(build(arch, "cpu"), 0, tokens) == prefill_flops(arch, tokens) + above_the_diagonal


@pytest.mark.parametrize("arch", [LLAMA, QWEN2, QWEN3, QWEN3_MOE], ids=lambda arch: arch.family)
def test_decode_flops_are_counted_ones(arch: Architecture) -> None:
    assert counted_flops(build(arch, "cpu"), 22, 1) == decode_flops_per_token(arch, 23)


def test_decode_flops_of_mla_are_counted_ones_without_the_expansion() -> None:
    """transformers expands every cached position again; engines attend in the compressed space."""
    context, arch = 23, DEEPSEEK_V3
    latent = arch.latent_attention
    assert latent is not None
    up_projection = arch.heads * (latent.nope_head_dim + latent.value_head_dim) * latent.kv_rank
    expanded = latent.nope_head_dim + latent.rope_head_dim + latent.value_head_dim
    compressed = 2 * latent.kv_rank + latent.rope_head_dim
    difference = (context - 1) * up_projection + context * arch.heads * (expanded - compressed)
    counted = counted_flops(build(arch, "cpu"), context - 1, 1)
    assert counted == decode_flops_per_token(arch, context) + 2 * arch.layers * difference
