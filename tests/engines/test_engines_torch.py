"""Conductor side of the torch engine."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from profiler import registry
from profiler.backends.base import Device
from profiler.engines.base import Engine
from profiler.engines.torch import TorchEngine
from profiler.errors import UsageError
from profiler.models.catalogue import catalogue
from profiler.models.formats import Formats, formats_for

CPU = Device("cpu-0123456789ab", "cpu", 0, "A CPU", 1)
GPU = Device("GPU-Aa-1", "cuda", 1, "A GPU", 1, uuid="GPU-Aa-1", pci_address="00000000:17:00.0")


KNOWN = {entry.architecture.family: entry.architecture for entry in catalogue().values()}


def hello(*devices: tuple[str, str | None, str | None]) -> dict[str, Any]:
    entries = [
        {"device": device, "name": device, "uuid": uuid, "pci_address": pci} for device, uuid, pci in devices
    ]
    return {"engine": {"name": "torch", "version": "2.13.0"}, "devices": entries}


def test_it_is_registered_and_imports_no_torch() -> None:
    engine: Engine = registry.load("engines", "torch")
    assert (engine.name, engine.simulated) == ("torch", False)
    script = "import sys, profiler.engines.torch; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("arch", KNOWN.values(), ids=lambda arch: arch.family)
@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_what_it_runs(arch: Any, precision: str) -> None:
    assert TorchEngine().unsupported(arch, formats_for(precision), CPU) is None


@pytest.mark.parametrize(
    ("arch", "formats", "named"),
    [
        (replace(KNOWN["llama"], family="gemma3"), formats_for("bf16"), "gemma3"),
        (
            replace(KNOWN["llama"], rope_scaling={"rope_type": "dynamic", "factor": 4.0}),
            formats_for("bf16"),
            "dynamic",
        ),
        (KNOWN["deepseek_v3"], formats_for("fp8-block128"), "a scale for each block"),
        (KNOWN["llama"], formats_for("q4_0"), "q4_0"),
        (KNOWN["llama"], Formats("bf16", "bf16", "fp8"), "fp8"),
        (KNOWN["llama"], Formats("bf16", "fp32", "bf16"), "fp32"),
    ],
    ids=["family", "rope", "fp8", "q4_0", "kv cache", "mixed"],
)
def test_what_it_does_not_run_is_named(arch: Any, formats: Formats, named: str) -> None:
    reason = TorchEngine().unsupported(arch, formats, CPU)
    assert reason is not None
    assert named in reason


def test_devices_are_found_by_uuid_then_by_address() -> None:
    find = TorchEngine().device_string
    assert find(CPU, hello(("cpu", None, None))) == "cpu"
    by_uuid = hello(("cpu", None, None), ("cuda:0", "GPU-bb", "0000:17:00.0"), ("cuda:1", "gpu-aa-1", None))
    assert find(GPU, by_uuid) == "cuda:1"
    assert find(replace(GPU, uuid=None), by_uuid) == "cuda:0"
    assert find(replace(GPU, pci_address="0000:18:00.0"), by_uuid) == "cuda:1"


@pytest.mark.parametrize(
    "seen",
    [
        hello(("cpu", None, None)),
        hello(("cpu", None, None), ("cuda:0", None, None)),
        hello(("cpu", None, None), ("cuda:0", "GPU-other", "0001:17:00.0")),
    ],
    ids=["no accelerator", "tells nothing", "another"],
)
def test_a_device_that_is_not_seen_is_never_guessed(seen: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"A GPU \(GPU-Aa-1\).*2\.13\.0.*--python"):
        TorchEngine().device_string(GPU, seen)


def test_options() -> None:
    options = TorchEngine().options
    assert options({}) == {}
    assert options({"threads": "12", "linear": "plain"}) == {"threads": 12, "linear": "plain"}
    assert options({"layers": "4"}) == {"layers": 4}
    assert options({"layers": "0+3"}) == {"layers": [0, 3]}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"thread": "1"}, "did you mean 'threads'"),
        ({"threads": "0"}, "threads=0"),
        ({"threads": "-1"}, "threads=-1"),
        ({"threads": "two"}, "threads=two"),
        ({"linear": "fast"}, "packed, plain"),
        ({"step": "fast"}, "compiled, captured, eager"),
        ({"layers": "0"}, "layers=0: must be"),
        ({"layers": "0+0"}, "above 0"),
        ({"layers": "1+2+3"}, "as in 1\\+3"),
        ({"layers": "-1"}, "layers=-1"),
    ],
)
def test_bad_options_are_named(given: dict[str, str], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        TorchEngine().options(given)
