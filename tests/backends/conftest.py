"""The fake NVIDIA driver library, compiled once per test session."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

FAKES = Path(__file__).parent.parent / "fakes"
Probe = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def fake_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a ``libnvidia-ml.so.1`` made from tests/fakes/fake_nvml.c."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("the fake NVIDIA library needs a C compiler (cc or gcc)")
    folder = tmp_path_factory.mktemp("nvml")
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-Wl,-soname,libnvidia-ml.so.1"]
    library = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, *flags, "-o", str(library), str(FAKES / "fake_nvml.c")], check=True)
    return folder


@pytest.fixture
def probe_cuda(fake_driver: Path, tmp_path: Path) -> Probe:
    """Run the CUDA backend over the fake driver: ``probe_cuda(config, then=..., environment=...)``."""

    def probe(
        config: Mapping[str, object],
        then: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        now = tmp_path / "nvml.conf"
        now.write_text("".join(f"{key}={value}\n" for key, value in config.items()))
        arguments = [sys.executable, str(FAKES / "cuda_probe.py"), str(tmp_path / "root")]
        if then is not None:
            later = tmp_path / "nvml.later"
            later.write_text("".join(f"{key}={value}\n" for key, value in then.items()))
            arguments.append(str(later))
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("CUDA_")}
        done = subprocess.run(
            arguments,
            env={
                **inherited,
                "LD_LIBRARY_PATH": str(fake_driver),
                "FAKE_NVML_CONFIG": str(now),
                "PYTHONPATH": str(FAKES.parent.parent),
                **(environment or {}),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answers: dict[str, Any] = json.loads(done.stdout)
        return answers

    return probe
