"""Runs whose energies come from a library without a GPU: the fake engine takes real time beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes.power import compile_fake, write_config

UUID = "GPU-00000001-1111-2222-3333-444444444444"
WATTS = 300.0
ENGINE = ("--engine", "fake", "--engine-option", "real_time=true", "--engine-option", "read_bandwidth=2e11")


def gpu_environment(folder: Path, **more: object) -> dict[str, str]:
    """A library of one GPU that is always at :data:`WATTS`, too hot, and shared with somebody.

    Args:
        folder: for library and configuration.
        more: keys of the configuration.
    """
    if compile_fake("fake_nvml.c", folder / "libnvidia-ml.so.1") is None:
        pytest.skip("the fake library needs a C compiler (cc or gcc)")
    config = {"t0": repr(time.monotonic()), "gpus": 1, "0.uuid": UUID, "0.profile": f"0:{WATTS}"}
    config |= {"0.update_ms": 20, "0.throttle": 0x20, "0.processes": 1, "0.pcie_lanes": 8}
    write_config(folder / "fake.conf", config | more)
    return {"LD_LIBRARY_PATH": str(folder), "FAKE_NVML_CONFIG": str(folder / "fake.conf")}


def clean(environment: dict[str, str]) -> dict[str, str]:
    """This environment without what would change a sweep, and with what is given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIPROF_", "CUDA_"))}
    return kept | environment


def command(out: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "profiler", "sweep", *ENGINE, *arguments, "--out", str(out)]


def sweep(out: Path, *arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(out, *arguments),
        env=clean(environment),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
