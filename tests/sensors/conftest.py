"""Fake vendor libraries, compiled once per session, and a way to sample them in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import machines
import pytest
from fakes.power import FAKES, T0_S, TWO_GPUS, compile_fake, write_config

Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the fake libraries under the names that the real ones have."""
    folder = tmp_path_factory.mktemp("libraries")
    for source, name, flags in (
        ("fake_nvml.c", "libnvidia-ml.so.1", ()),
        ("fake_amd_smi.c", "libamd_smi.so", ()),
        ("fake_dcmi.c", "libdcmi.so", ()),
        ("fake_dcmi.c", "libdcmi_v2_only.so", ("-DWITHOUT_V1",)),
        ("fake_nvml.c", "old/libnvidia-ml.so.1", ("-DOLD_DRIVER",)),
    ):
        if compile_fake(source, folder / name, *flags) is None:
            pytest.skip("the fake libraries need a C compiler (cc or gcc)")
    (folder / "amdsmi.py").write_text((FAKES / "fake_amdsmi.py").read_text())
    return folder


@pytest.fixture(scope="session")
def sensor_run(libraries: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """``sensor_run(source, config, seconds=…, windows=…)``: what a source found, and energies of windows."""

    def run(
        source: str,
        config: Mapping[str, object],
        *,
        options: Mapping[str, object] | None = None,
        keys: Sequence[str] | None = None,
        seconds: float = 0.0,
        windows: Sequence[tuple[float, float]] = (),
        changes: Sequence[tuple[float, Mapping[str, object]]] = (),
        environment: Mapping[str, str] | None = None,
        zones: Mapping[str, object] | None = None,
    ) -> dict[str, Any]:
        path = tmp_path_factory.mktemp("run") / "fake.conf"
        base = {"t0": T0_S, **config}
        write_config(path, base)
        clock = path.with_name("clock")
        clock.write_bytes(bytes(8))
        task = {
            "source": source,
            "options": options or {},
            "keys": keys,
            "seconds": seconds,
            "windows": windows,
            "config": str(path),
            "clock": str(clock),
            "zones": zones,
            "changes": [(at, {**base, **values}) for at, values in changes],
        }
        done = subprocess.run(
            [sys.executable, str(FAKES / "sensor_run.py")],
            input=json.dumps(task),
            env={
                **{
                    key: value
                    for key, value in os.environ.items()
                    if not key.startswith(("CUDA_", "AIPROF_"))
                },
                "LD_LIBRARY_PATH": str(libraries),
                "FAKE_CLOCK": str(clock),
                "FAKE_NVML_CONFIG": str(path),
                "FAKE_AMDSMI_CONFIG": str(path),
                "FAKE_AMDSMI_LIBRARY": str(libraries / "libamd_smi.so"),
                "FAKE_DCMI_CONFIG": str(path),
                "PYTHONPATH": os.pathsep.join([str(FAKES.parent.parent), str(FAKES.parent), str(libraries)]),
                **(environment or {}),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answers: dict[str, Any] = json.loads(done.stdout)
        return answers

    return run


@pytest.fixture
def aiprof(libraries: Path, tmp_path: Path) -> Any:
    """``aiprof(config, *arguments)``: the command, started over two fake GPUs and a powercap tree."""
    root = tmp_path / "root"
    machines.write(root, machines.zone("intel-rapl:0", "package-0", 5_000_000))
    config = tmp_path / "fake.conf"

    def run(values: dict[str, object], *arguments: str, **environment: str) -> Any:
        base: dict[str, object] = {"t0": repr(time.monotonic()), "gpus": 2}
        for at, uuid in enumerate(TWO_GPUS):
            base |= {
                f"{at}.uuid": uuid,
                f"{at}.pci": f"00000000:{0x17 + at:02X}:00.0",
                f"{at}.profile": "0:300",
            }
        write_config(config, {**base, **values})
        return subprocess.Popen(
            [sys.executable, "-m", "profiler", *arguments],
            env={
                **{
                    key: value
                    for key, value in os.environ.items()
                    if not key.startswith(("CUDA_", "AIPROF_"))
                },
                "LD_LIBRARY_PATH": str(libraries),
                "FAKE_NVML_CONFIG": str(config),
                "FAKE_DCMI_CONFIG": str(config),
                "AIPROF_SYSFS_ROOT": str(root),
                "PYTHONPATH": str(FAKES.parent.parent),
                "NO_COLOR": "1",
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run
