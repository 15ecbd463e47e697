"""Loads on a server of this box: the device behind it is looked at with the sensors of any sweep."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes.power import compile_fake, write_config
from served_truth import aiprof, truth_server

from profiler.analysis.verify import verify_run
from profiler.results.read import read_run
from profiler.results.schema import CaseRecord

UUID = "GPU-00000001-1111-2222-3333-444444444444"
WATTS = 300.0


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A GPU that is always at 300 W, too hot, and in a slot that is too narrow."""
    folder = tmp_path_factory.mktemp("nvml")
    if compile_fake("fake_nvml.c", folder / "libnvidia-ml.so.1") is None:
        pytest.skip("the fake library needs a C compiler (cc or gcc)")
    config: dict[str, object] = {"t0": repr(time.monotonic()), "gpus": 1, "0.uuid": UUID}
    config |= {"0.profile": f"0:{WATTS}", "0.update_ms": 20, "0.throttle": 0x20, "0.pcie_lanes": 8}
    write_config(folder / "fake.conf", config)
    return {"LD_LIBRARY_PATH": str(folder), "FAKE_NVML_CONFIG": str(folder / "fake.conf")}


def run(gpu: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIPROF_", "CUDA_"))}
    return subprocess.run(
        [sys.executable, "-m", "profiler", *arguments, "--quiet"],
        env=kept | gpu,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def looked_at(case: CaseRecord) -> None:
    """Energy within its own bound, memory by the driver's counters, states as flags with a hint."""
    assert case.simulated
    flags = {flag.code: flag for flag in case.flags}
    assert {"throttled_thermal", "link_degraded"} <= set(flags)
    assert all(flags[code].hint for code in ("throttled_thermal", "link_degraded"))
    memory = case.measurements["max_sampled_device_bytes"]
    assert memory.value == 8126464 + 956301312
    assert f"nvml:{UUID}/memory_used" in memory.method
    own = [item for item in case.energies if (item.phase, item.covers) == ("trials", "device")]
    assert own
    for item in own:
        assert item.joules is not None, item.reason
        assert item.bound_j is not None
        assert abs(item.joules - WATTS * item.active_s) <= item.bound_j
    assert case.measurements["energy_per_output_token_j"].value is not None
    assert case.sensor_samples is not None


def test_a_load_on_a_server_of_this_box(gpu: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "run"
    with truth_server(ttft_ms=2, gap_ms=5) as url:
        arguments = ("load", url, "--prompt-tokens", "16", "--output-tokens", "32", "--concurrency", "1")
        done = run(gpu, *arguments, "--seconds", "6s", "--device", "cuda:0", "--out", str(path))
    assert done.returncode == 0, done.stderr
    found = read_run(path)
    (case,) = found.cases
    looked_at(case)
    (server,) = found.record.devices
    assert server.details["runs_on"] == UUID
    assert any(sensor.key == f"nvml:{UUID}/energy" and sensor.sampled for sensor in found.record.sensors)
    assert verify_run(path).findings == ()


def test_a_sweep_on_a_server_of_this_box(gpu: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "run"
    what = ("--model", "qwen2.5-0.5b", "--precision", "bf16", "--device", "cuda", "--scenario", "decode-128")
    with truth_server(ttft_ms=2, gap_ms=5) as url:
        options = ("--engine-option", f"url={url}", "--engine-option", "simulated=yes", "--no-fidelity")
        arguments = ("sweep", "--engine", "endpoint", *what, *options, "--concurrency", "1", "--budget", "6s")
        done = run(gpu, *arguments, "--out", str(path))
    assert done.returncode == 0, done.stderr
    (case,) = read_run(path).cases
    assert case.spec.device_key == UUID
    looked_at(case)
    assert verify_run(path).findings == ()


def test_a_server_elsewhere_has_no_device_here(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--prompt-tokens", "16", "--output-tokens", "4", "--concurrency", "1", "--device", "cpu")
    assert aiprof("load", "http://192.168.0.9:8000", *arguments) == 2
    assert "aiprof power --record" in capsys.readouterr().err
