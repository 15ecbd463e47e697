"""What is wrong with an environment that has vLLM, seen together with the devices of this box."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.backends.base import Device
from profiler.errors import UsageError
from profiler.privacy import scrub

VARIABLE = "AIPROF_VLLM_PYTHON"
SCRIPT = Path(__file__).resolve().parent.parent / "worker" / "vllm_check.py"
TIMEOUT_S = 180.0
LONGEST = 1000
_BUILDS = {"cuda": "+cu", "rocm": "+rocm"}
_ASCEND_PACKAGES = ("vllm-ascend", "torch-npu")


@dataclass(frozen=True)
class Trap:
    """Something that goes wrong or slows vLLM down.

    Attributes:
        code: short name.
        text: one sentence.
        remedy: what to do.
    """

    code: str
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.text} ({self.remedy})"


@dataclass(frozen=True)
class VllmEnvironment:
    """An interpreter and what was found there.

    Attributes:
        python: the interpreter, without the home folder.
        versions: of Python, vLLM and PyTorch, as far as they are there.
        traps: what is wrong, worst first.
    """

    python: str
    versions: dict[str, str]
    traps: tuple[Trap, ...]


def look_at(python: str, devices: Sequence[Device]) -> VllmEnvironment:
    """Look through the environment of an interpreter.

    Args:
        python: its path.
        devices: of this box.

    Raises:
        UsageError: it cannot be started, or does not answer.
    """
    stdout, stderr = run_check(python, SCRIPT)
    return environment_in(stdout, stderr, python, devices)


def run_check(python: str, script: Path) -> tuple[str, str]:
    """Run a script that looks at an environment under its interpreter; return stdout and stderr.

    Raises:
        UsageError: it cannot be started, or does not answer.
    """
    try:
        done = subprocess.run(
            [python, str(script)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except OSError as error:
        raise UsageError(f"--python {python}: cannot be started: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"--python {python}: did not answer within {TIMEOUT_S:.0f} s") from error
    return done.stdout, done.stderr


def environment_in(stdout: str, stderr: str, python: str, devices: Sequence[Device]) -> VllmEnvironment:
    """Return what the look through an environment has printed.

    Args:
        stdout: one JSON object on its last line; what packages print comes before.
        stderr: whose last line says why there is none.
        python: the interpreter.
        devices: of this box.

    Raises:
        UsageError: it is not the answer of the look.
    """
    try:
        found: dict[str, Any] = json.loads(stdout.splitlines()[-1])
        versions = {name: shown(found[name]) for name in ("python", "vllm", "torch") if found.get(name)}
        own = tuple(
            Trap(shown(one["code"]), shown(one["text"]), shown(one["remedy"])) for one in found["traps"]
        )
        traps = (*_wrong_build(found, devices), *_without_plugin(found, devices), *own)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        last = (stderr.strip().splitlines() or ["no word"])[-1]
        raise UsageError(
            f"--python {python}: is no Python that can be looked at: {scrub(last)[:200]}"
        ) from None
    return VllmEnvironment(scrub(python), versions, traps)


def shown(value: Any) -> str:
    """Return what can be shown, whatever was printed there."""
    return scrub(str(value)[:LONGEST])


def _wrong_build(found: dict[str, Any], devices: Sequence[Device]) -> list[Trap]:
    """Return that vLLM was built for other devices than this box has."""
    if not found.get("vllm"):
        return []
    accelerators = [device for device in devices if device.backend != "cpu" and not device.simulated]
    if found.get("cpu_build") and accelerators:
        text = f"this vLLM computes on CPUs only, and the box has {accelerators[0].name}"
        return [Trap("wrong_build", text, "name a Python whose vLLM was built for it (--python)")]
    torch = shown(found.get("torch") or "")
    built = next((name for name, mark in _BUILDS.items() if mark in torch), None)
    if not found.get("cpu_build") and not accelerators:
        text = f"this vLLM was built for accelerators{f' ({built})' if built else ''}, and the box has none"
        return [Trap("wrong_build", text, "`make vllm-cpu` builds one for CPUs")]
    if built is not None and all(device.backend != built for device in accelerators):
        text = f"its PyTorch {torch} was built for {built}, and the box has {accelerators[0].name}"
        return [Trap("wrong_build", text, "install the build for these devices")]
    return []


def _without_plugin(found: dict[str, Any], devices: Sequence[Device]) -> list[Trap]:
    """Return what is missing for vLLM to see the Ascend NPUs of this box: a plugin and PyTorch's adapter."""
    npus = [device for device in devices if device.backend == "ascend" and not device.simulated]
    if not npus or not found.get("vllm") or found.get("cpu_build"):
        return []
    there = found["ascend"]
    missing = [name for name in _ASCEND_PACKAGES if not there.get(name)]
    if not missing:
        return []
    text = f"the box has {shown(npus[0].name)}, which vLLM does not see without {' and '.join(missing)}"
    remedy = (
        f"pip install {' '.join(missing)} in the versions that vllm-ascend names for vLLM "
        f"{shown(found['vllm'])} and for the CANN of this box, or use its container image"
    )
    return [Trap("no_ascend_plugin", text, remedy)]
