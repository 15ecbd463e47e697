"""What is said of a build of llama-cpp-python, on this box and on boxes with other devices."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

from profiler.backends.base import Device
from profiler.engines.llamacpp_traps import environment_in, look_at
from profiler.worker.llamacpp_check import features_of, narrow

REPOSITORY = Path(__file__).resolve().parents[2]
PYTHON = os.environ.get("AIPROF_LLAMACPP_PYTHON") or str(REPOSITORY / ".venv-llamacpp/bin/python")
CPU = Device("cpu-0123456789ab", "cpu", 0, "a CPU", None)
GPU = dataclasses.replace(CPU, key="GPU-1", backend="cuda", name="NVIDIA H100")
SYSTEM = "CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 0 | BLAS = 1 | REPACK = 1 | "


def said(**changes: object) -> str:
    answer = {
        "python": "3.12.1",
        "llama_cpp": "0.3.36",
        "gpu_offload": False,
        "features": ["AVX2"],
        "traps": [],
    }
    return "a package prints this\n" + json.dumps(answer | changes)


def codes(stdout: str, *devices: Device) -> list[str]:
    found = environment_in(stdout, "/usr/bin/python3", devices)
    assert found is not None
    return [trap.code for trap in found.traps]


def test_a_build_for_cpus_on_a_box_with_a_gpu_is_the_classic_mistake() -> None:
    assert codes(said(), CPU) == []
    assert codes(said(), CPU, GPU) == ["cpu_only_build"]
    assert codes(said(gpu_offload=True), CPU, GPU) == []
    assert codes(said(), CPU, dataclasses.replace(GPU, simulated=True)) == []
    found = environment_in(said(), "/usr/bin/python3", [GPU])
    assert found is not None
    assert "NVIDIA H100" in found.traps[0].text
    assert "-DGGML_CUDA=ON" in found.traps[0].remedy


def test_features_are_those_that_are_on() -> None:
    assert features_of(SYSTEM) == ["SSE3", "AVX2", "BLAS", "REPACK"]


def test_a_build_that_leaves_out_the_widest_vectors_is_named() -> None:
    assert [trap["code"] for trap in narrow(["AVX2"], {"avx2", "avx512f"})] == ["narrow_build"]
    assert narrow(["AVX2", "AVX512"], {"avx2", "avx512f"}) == []
    assert narrow(["AVX2"], {"avx2"}) == []
    assert "AVX2" in narrow([], {"avx2"})[0]["text"]
    assert narrow([], {"neon"}) == []


@pytest.mark.parametrize(
    "stdout", ["", "no JSON", "[]", said(llama_cpp=None), said(traps=[1]), said(features=3)]
)
def test_what_is_no_answer_is_no_environment(stdout: str) -> None:
    assert environment_in(stdout, "/usr/bin/python3", []) is None


@pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is not None, reason="llama-cpp-python is here")
def test_an_interpreter_without_it_has_none(tmp_path: Path) -> None:
    assert look_at(sys.executable, [CPU]) is None


def test_a_broken_build_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llama_cpp.py").write_text("raise RuntimeError('libllama.so: cannot open\\nshared object')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = look_at(sys.executable, [CPU])
    assert found is not None
    assert [trap.code for trap in found.traps] == ["broken"]
    assert "libllama.so: cannot open shared object" in found.traps[0].text


@pytest.mark.skipif(
    not Path(PYTHON).exists(), reason="no interpreter with llama-cpp-python (AIPROF_LLAMACPP_PYTHON)"
)
def test_the_real_one_names_its_features() -> None:
    found = look_at(PYTHON, [CPU])
    assert found is not None
    assert found.gpu_offload is not None
    assert found.features
