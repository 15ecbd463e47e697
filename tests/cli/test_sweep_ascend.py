"""``aiprof sweep`` over a DCMI library without an NPU: energy, states as flags, and where the model went."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fakes.power import compile_fake, write_config

from profiler.results.read import Run, read_run

SECOND_CHIP = "0000:c2:00.0"
WATTS = 250.0
ENGINE = ("--engine", "fake", "--engine-option", "real_time=true", "--engine-option", "read_bandwidth=2e11")
ONE = ("--scenario", "decode-128", "--concurrency", "1", "--budget", "10s", "--no-fidelity")


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A card of two chips in a container, of which the second one is visible: hot, sick and shared."""
    folder = tmp_path_factory.mktemp("dcmi")
    if compile_fake("fake_dcmi.c", folder / "libdcmi.so") is None:
        pytest.skip("the fake library needs a C compiler (cc or gcc)")
    config: dict[str, object] = {"t0": repr(time.monotonic()), "cards": 1, "chips": 2, "physical_offset": 8}
    config |= {"0.profile": "0:70", "1.profile": f"0:{WATTS}", "1.update_ms": 20}
    config |= {"1.clock_mhz": 1200, "1.health": 2, "1.processes": 1, "1.temperature": 96, "1.used_mib": 4000}
    write_config(folder / "fake.conf", config)
    return {
        "LD_LIBRARY_PATH": str(folder),
        "FAKE_DCMI_CONFIG": str(folder / "fake.conf"),
        "ASCEND_RT_VISIBLE_DEVICES": "1",
    }


def sweep(out: Path, *arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIPROF_", "ASCEND_"))}
    return subprocess.run(
        [sys.executable, "-m", "profiler", "sweep", *ENGINE, *arguments, "--out", str(out)],
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def run(card: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One case of a model so small that its place is not judged by memory, which a fake does not fill."""
    folder = tmp_path_factory.mktemp("sweep")
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 512,
        "intermediate_size": 1536, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 4,
        "vocab_size": 32000, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": False, "hidden_act": "silu",
    }  # fmt: skip
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(json.dumps(config))
    arguments = ("--device", "ascend", "--model", str(folder / "model"), *ONE)
    done = sweep(folder / "run", *arguments, environment=card)
    assert done.returncode == 0, done.stderr
    return read_run(folder / "run")


def test_energy_of_the_visible_chip_from_its_power(run: Run) -> None:
    (case,) = run.cases
    assert case.spec.device_key == SECOND_CHIP
    assert case.simulated
    trials = [item for item in case.energies if (item.phase, item.covers) == ("trials", "device")]
    for item in trials:
        assert item.sensors == (f"dcmi:{SECOND_CHIP}/power",)
        if item.joules is None or item.bound_j is None:  # a busy machine starves the sampler
            assert item.reason is not None
            assert item.reason.code == "window_too_short"
            continue
        assert abs(item.joules - WATTS * item.active_s) <= item.bound_j
    per_token = case.measurements["energy_per_output_token_j"]
    assert (per_token.value is None) == (per_token.reason is not None)
    assert per_token.value is None or per_token.value > 0


def test_states_of_the_chip_become_flags(run: Run) -> None:
    (case,) = run.cases
    flags = {flag.code: flag for flag in case.flags}
    assert {"device_alarm", "clock_below_rated", "foreign_process", "simulated"} <= set(flags)
    assert all(flags[code].hint for code in ("device_alarm", "clock_below_rated", "foreign_process"))
    if case.measurements["energy_j"].value is not None:
        assert "may read low" in flags["sensor_caveat"].text
    assert case.measurements["max_sampled_device_bytes"].value == 4000 << 20
    reasons = {sensor.key: sensor.unavailable for sensor in run.record.sensors}
    for quantity in ("throttle_reasons", "power_limit"):
        why = reasons[f"dcmi:{SECOND_CHIP}/{quantity}"]
        assert why is not None
        assert why.code == "not_supported_by_device"


def test_a_model_that_takes_no_memory_of_the_chip_fails_its_case(
    card: dict[str, str], tmp_path: Path
) -> None:
    """torch_npu names neither UUID nor address: where the model went is seen by the memory it takes."""
    done = sweep(tmp_path / "run", "--device", "ascend", *ONE, environment=card)
    assert done.returncode == 4  # it was the only case
    (case,) = read_run(tmp_path / "run").cases
    assert case.failure is not None
    assert (case.failure.kind, case.failure.stage) == ("device", "load")
    assert SECOND_CHIP in case.failure.message
    assert "the engine runs on another device" in case.failure.message
