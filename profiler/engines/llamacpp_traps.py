"""What a build of llama-cpp-python can do, and what is wrong with it on the devices of this box."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.backends.base import Device
from profiler.engines.vllm_traps import Trap, run_check, shown
from profiler.privacy import scrub

SCRIPT = Path(__file__).resolve().parent.parent / "worker" / "llamacpp_check.py"
_CMAKE = {"cuda": "-DGGML_CUDA=ON", "rocm": "-DGGML_HIP=ON", "ascend": "-DGGML_CANN=ON"}
_MOST_FEATURES = 60


@dataclass(frozen=True)
class LlamaCppEnvironment:
    """An interpreter with llama-cpp-python.

    Attributes:
        python: the interpreter, without the home folder.
        version: of llama-cpp-python.
        gpu_offload: whether the build can compute on an accelerator; None where it cannot be imported.
        features: instruction sets and libraries that the build uses, in llama.cpp's words.
        traps: what is wrong, each with its remedy.
    """

    python: str
    version: str
    gpu_offload: bool | None
    features: tuple[str, ...]
    traps: tuple[Trap, ...]


def look_at(python: str, devices: Sequence[Device]) -> LlamaCppEnvironment | None:
    """Look at llama-cpp-python under an interpreter; None where it is not installed.

    Raises:
        UsageError: the interpreter cannot be started.
    """
    stdout, _ = run_check(python, SCRIPT)
    return environment_in(stdout, python, devices)


def environment_in(stdout: str, python: str, devices: Sequence[Device]) -> LlamaCppEnvironment | None:
    """Return what the look has printed; None also for what is no answer, which the look for vLLM reports."""
    try:
        found: dict[str, Any] = json.loads(stdout.splitlines()[-1])
        if not found.get("llama_cpp"):
            return None
        offload = found.get("gpu_offload")
        own = tuple(
            Trap(shown(one["code"]), shown(one["text"]), shown(one["remedy"])) for one in found["traps"]
        )
        return LlamaCppEnvironment(
            scrub(python),
            shown(found["llama_cpp"]),
            offload if isinstance(offload, bool) else None,
            tuple(shown(name) for name in found.get("features", ())[:_MOST_FEATURES]),
            (*_cpu_only(offload, devices), *own),
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _cpu_only(offload: Any, devices: Sequence[Device]) -> list[Trap]:
    """Return the classic mistake: a wheel for CPUs on a box with an accelerator."""
    accelerators = [device for device in devices if device.backend != "cpu" and not device.simulated]
    if offload is not False or not accelerators:
        return []
    cmake = _CMAKE.get(accelerators[0].backend, "-DGGML_VULKAN=ON")
    text = f"this llama.cpp computes on CPUs only, and the box has {accelerators[0].name}"
    remedy = (
        f"CMAKE_ARGS='{cmake}' pip install --force-reinstall --no-cache-dir --no-binary llama-cpp-python "
        "llama-cpp-python"
    )
    return [Trap("cpu_only_build", text, remedy)]
