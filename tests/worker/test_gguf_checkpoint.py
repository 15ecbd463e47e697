"""GGUF files with random weights, read back by the ``gguf`` package and by transformers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import architectures
import gguf
import numpy as np
import pytest

from profiler.models.accounting import weights_bytes
from profiler.models.architecture import Architecture
from profiler.models.formats import formats_for
from profiler.models.tensors import shapes
from profiler.worker import gguf_checkpoint
from profiler.worker.numpy_weights import NumpyWeights, to_bf16

SUPPORTED = [arch for arch in architectures.SMALL if arch.family != "deepseek_v3"]


def written(folder: Path, arch: Architecture, weight_format: str = "fp32") -> gguf.GGUFReader:
    path = folder / "model.gguf"
    gguf_checkpoint.write(str(path), dataclasses.asdict(arch), weight_format, "random", 11)
    return gguf.GGUFReader(path)


@pytest.mark.parametrize("arch", SUPPORTED, ids=lambda arch: arch.family)
def test_every_weight_of_the_model_is_in_the_file_once(tmp_path: Path, arch: Architecture) -> None:
    reader = written(tmp_path, arch)
    values = [
        np.array(tensor.data).ravel() for tensor in reader.tensors if not tensor.name.startswith("rope")
    ]
    found = np.sort(np.concatenate(values))
    weights, expected = NumpyWeights(11), []
    for name, shape in shapes(arch).items():
        expected.append(np.empty(shape, np.float32))
        weights.fill(name, expected[-1], "fp32")
    assert np.array_equal(found, np.sort(np.concatenate([one.ravel() for one in expected])))


@pytest.mark.parametrize("weight_format", ["bf16", "fp16"])
def test_matrices_have_the_format_and_small_tensors_stay_wide(tmp_path: Path, weight_format: str) -> None:
    kinds = {
        tensor.name: tensor.tensor_type.name
        for tensor in written(tmp_path, architectures.QWEN3_MOE, weight_format).tensors
    }
    narrow = {"bf16": "BF16", "fp16": "F16"}[weight_format]
    assert kinds["blk.1.ffn_gate_exps.weight"] == kinds["blk.0.attn_q.weight"] == narrow
    assert kinds["blk.0.attn_norm.weight"] == kinds["blk.1.ffn_gate_inp.weight"] == "F32"


def test_the_bytes_are_those_of_the_accounting(tmp_path: Path) -> None:
    arch = dataclasses.replace(architectures.QWEN3, hidden_size=256, intermediate_size=512, vocab_size=2000)
    size = sum(int(tensor.n_bytes) for tensor in written(tmp_path, arch, "bf16").tensors)
    assert size == pytest.approx(weights_bytes(arch, formats_for("bf16")), rel=0.01)


@pytest.mark.torch
@pytest.mark.parametrize("arch", SUPPORTED[:3], ids=lambda arch: arch.family)
def test_transformers_reads_the_description(tmp_path: Path, arch: Architecture) -> None:
    """Its reader was written for the files of llama.cpp's own converter."""
    pytest.importorskip("torch")
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    arch = dataclasses.replace(arch, rope_scaling=None)
    written(tmp_path, arch)
    read = load_gguf_checkpoint(str(tmp_path / "model.gguf"), return_tensors=False)["config"]
    assert read["hidden_size"] == arch.hidden_size
    assert read["num_hidden_layers"] == arch.layers
    assert read["num_key_value_heads"] == arch.kv_heads
    assert read["vocab_size"] == arch.vocab_size


def test_the_rotary_factors_of_llama_3_are_those_of_transformers(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    arch = dataclasses.replace(architectures.LLAMA, head_dim=64)
    (factors,) = [t for t in written(tmp_path, arch).tensors if t.name == "rope_freqs.weight"]
    config = LlamaConfig(
        hidden_size=256, num_attention_heads=4, head_dim=64,
        rope_parameters={"rope_theta": arch.rope_theta, **(arch.rope_scaling or {})},
    )  # fmt: skip
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = arch.rope_theta ** -(np.arange(32) / 32)
    assert np.allclose(plain / np.array(factors.data), scaled.numpy(), rtol=1e-5)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", full)
    with pytest.raises(OSError, match="No space left"):
        written(tmp_path, architectures.QWEN2)
    assert list(tmp_path.iterdir()) == []


def test_rounding_to_bf16_is_to_nearest_even() -> None:
    exact = np.array([1.0, 1.00390625, 1.01171875, -2.0, 0.0], np.float32)
    bits = (to_bf16(exact).astype(np.uint32) << 16).view(np.float32)
    assert bits.tolist() == [1.0, 1.0, 1.015625, -2.0, 0.0]
