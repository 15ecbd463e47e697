"""Checkpoint folders with random weights: their layout, their bytes, and the cache that keeps them."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import architectures
import numpy as np
import pytest
from hypothesis import given, settings
from safetensors import safe_open

from profiler.models.architecture import Architecture
from profiler.models.config import to_config
from profiler.models.tensors import shapes
from profiler.worker import checkpoint_layout, hf_checkpoint
from profiler.worker.numpy_fidelity import after_recipe
from profiler.worker.numpy_weights import NumpyWeights
from profiler.worker.protocol import EngineError


def request(arch: Architecture, weight_format: str = "fp32", seed: int = 1) -> dict[str, Any]:
    return {
        "architecture": dataclasses.asdict(arch),
        "weights": {"kind": "random", "seed": seed},
        "formats": {"weight_format": weight_format},
    }


@settings(deadline=None)
@given(architectures.any_architecture())
def test_names_shapes_and_config_are_those_of_the_conductor(arch: Architecture) -> None:
    given = json.loads(json.dumps(dataclasses.asdict(arch)))
    assert dict(checkpoint_layout.tensors(given)) == shapes(arch)
    assert checkpoint_layout.config(given, "bfloat16") == to_config(arch)


@pytest.mark.parametrize("arch", architectures.SMALL, ids=lambda arch: arch.family)
@pytest.mark.parametrize("weight_format", ["fp32", "fp16"])
def test_the_safetensors_library_reads_the_weights_that_every_engine_gets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arch: Architecture, weight_format: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder, words = hf_checkpoint.find(request(arch, weight_format, seed=11))
    assert "seed 11" in words
    weights = NumpyWeights(11)
    with safe_open(f"{folder}/model.safetensors", "np") as file:
        assert set(file.keys()) == set(shapes(arch))
        for name, shape in shapes(arch).items():
            expected = np.empty(shape, hf_checkpoint.STORAGE[weight_format][2])
            weights.fill(name, expected, weight_format)
            assert np.array_equal(file.get_tensor(name), expected)


def test_bf16_takes_two_bytes_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder, _ = hf_checkpoint.find(request(architectures.LLAMA, "bf16"))
    raw = (Path(folder) / "model.safetensors").read_bytes()
    header = int.from_bytes(raw[:8], "little")
    values = sum(math.prod(shape) for shape in shapes(architectures.LLAMA).values())
    assert len(raw) == 8 + header + 2 * values
    assert json.loads((Path(folder) / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_a_folder_is_written_once_and_the_oldest_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first, _ = hf_checkpoint.find(request(architectures.LLAMA, seed=0))
    stamp = Path(first, "model.safetensors").stat().st_mtime_ns
    assert hf_checkpoint.find(request(architectures.LLAMA, seed=0))[0] == first
    assert Path(first, "model.safetensors").stat().st_mtime_ns == stamp
    os.utime(first, (1, 1))
    torn = Path(first).parent / "torn.part"
    torn.mkdir()
    for seed in range(1, 5):
        hf_checkpoint.find(request(architectures.LLAMA, seed=seed))
    kept = [path for path in Path(first).parent.iterdir() if path.is_dir()]
    assert len(kept) == 4
    assert Path(first) not in kept
    assert torn not in kept


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(EngineError, match=r"take 0\.0 GB on disk.*XDG_CACHE_HOME"):
        hf_checkpoint.find(request(architectures.LLAMA))
    assert [path for path in (tmp_path / "aiprof" / "checkpoints").iterdir() if path.is_dir()] == []


def test_real_weights_stay_where_they_are_and_other_kinds_are_refused() -> None:
    asked = request(architectures.LLAMA) | {"weights": {"kind": "folder", "path": "/models/some"}}
    assert hf_checkpoint.find(asked) == ("/models/some", "safetensors folder")
    with pytest.raises(EngineError, match="written as bf16, fp16, fp32, not as q4_0"):
        hf_checkpoint.find(request(architectures.LLAMA, "q4_0"))


def test_the_weights_of_the_fidelity_check_are_written_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arch = dataclasses.asdict(architectures.QWEN2)
    asked = request(architectures.QWEN2) | {"weights": {"kind": "fidelity", "seed": 5}}
    folder, words = hf_checkpoint.find(asked)
    assert "fidelity" in words
    assert folder != hf_checkpoint.find(request(architectures.QWEN2, seed=5))[0]
    name = "model.layers.0.self_attn.k_proj.weight"
    with safe_open(f"{folder}/model.safetensors", "np") as file:
        found = file.get_tensor(name)
    assert np.array_equal(found, after_recipe(name, found.shape, NumpyWeights(5), arch))
