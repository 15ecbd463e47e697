"""``aiprof sweep`` with sensors: a library without a GPU, a tree without a kernel, and no sensor at all.

The fake engine really takes its time here, so that sensors can follow it. Energies are held against the
power that the fakes were told to have, within the bound that each record states.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import machines
import psutil
import pytest
from energy_runs import UUID, WATTS, clean, command, gpu_environment, sweep
from fakes.power import PowercapTree, Profile

from profiler.results.read import Run, read_run
from profiler.results.schema import CaseRecord

ONE = ("--scenario", "decode-128", "--concurrency", "1", "--budget", "10s")
FIGURES = (
    "energy_j",
    "power_mean_w",
    "power_max_1s_w",
    "energy_per_output_token_j",
    "prefill_energy_per_token_j",
    "decode_energy_per_token_j",
    "idle_power_w",
)


def records_of(case: CaseRecord, phase: str, covers: str = "device") -> Any:
    (found,) = [item for item in case.energies if (item.phase, item.covers) == (phase, covers)]
    return found


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return gpu_environment(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="module")
def gpu_run(gpu: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("sweep") / "run"
    arguments = ("--device", "cuda", "--scenario", "decode-128", "--scenario", "prefill-512")
    done = sweep(out, *arguments, "--concurrency", "1", "--budget", "24s", environment=gpu)
    assert done.returncode == 0, done.stderr
    return read_run(out)


def test_every_phase_has_an_energy_within_its_own_bound(gpu_run: Run) -> None:
    assert len(gpu_run.cases) == 2
    for case in gpu_run.cases:
        for name in FIGURES:
            if name == "decode_energy_per_token_j" and case.spec.output_tokens == 1:
                continue
            measurement = case.measurements[name]
            if name == "power_max_1s_w" and "less than the second" in (measurement.reason or ""):
                continue  # few and slow requests on a busy machine
            assert measurement.value is not None, (name, measurement.reason)
        for item in case.energies:
            # The GPU takes 300 W whatever happens: pauses taken out or not, net of them nothing is left.
            if item.joules is not None and item.bound_j is not None:
                assert abs(item.joules - WATTS * item.active_s) <= item.bound_j + 1e-6, item
            assert item.simulated
    chat = gpu_run.cases[0]
    per_token = chat.measurements["energy_per_output_token_j"]
    trials = records_of(chat, "trials")
    assert per_token.value == pytest.approx(trials.joules / trials.tokens)


def test_states_of_the_device_become_flags(gpu_run: Run) -> None:
    for case in gpu_run.cases:
        codes = {flag.code for flag in case.flags}
        assert {"simulated", "throttled_thermal", "foreign_process", "link_degraded"} <= codes
        assert all(flag.hint for flag in case.flags)


def test_a_counter_that_its_power_sensor_contradicts_is_flagged_on_the_case(tmp_path: Path) -> None:
    environment = gpu_environment(tmp_path, **{"0.gain": 1.8})
    assert sweep(tmp_path / "run", "--device", "cuda", *ONE, environment=environment).returncode == 0
    (case,) = read_run(tmp_path / "run").cases
    found = {flag.code: flag for flag in case.flags}
    if records_of(case, "trials").joules is None:
        return  # a busy machine starved the sampler, which is said elsewhere
    assert "1.8" in found["sensor_disagrees"].text
    assert found["sensor_disagrees"].hint


def test_memory_is_polled_and_stands_beside_its_prediction(gpu_run: Run) -> None:
    in_use = 8126464 + 956301312  # what the fake says is allocated, and what it reserves
    for case in gpu_run.cases:
        found = case.measurements["max_sampled_device_bytes"]
        assert found.value == in_use
        assert f"by the sampler (nvml:{UUID}/memory_used)" in found.method
        (start,) = case.starts
        assert start.memory is not None
        assert start.memory.polled_device_reads > 0
        assert start.memory.counted_free_bytes == 85520809984 - in_use
        assert case.predicted is not None
        assert case.predicted.kv_capacity_tokens is not None
        capacity = case.measurements["kv_capacity_tokens"]
        assert capacity.method.endswith(f"free by made up, {start.memory.device_source}")
        assert "memory_disagrees" not in {flag.code for flag in case.flags}


def test_the_record_lists_sensors_and_the_idle_box(gpu_run: Run) -> None:
    record = gpu_run.record
    assert record.simulated
    sensors = {sensor.key: sensor for sensor in record.sensors}
    counter = sensors[f"nvml:{UUID}/energy"]
    assert counter.sampled
    assert counter.call_median_s is not None
    sources = {sensor.source for sensor in record.sensors}
    assert sources >= {"nvml", "amdsmi", "rapl", "dcmi", "redfish", "command"}
    for sensor in record.sensors:
        if sensor.unavailable is not None:
            assert sensor.unavailable.text
            assert not sensor.sampled
    own = next(baseline for baseline in record.baselines if baseline.device_key == UUID)
    assert own.power_w.value == pytest.approx(WATTS, rel=0.2)


def test_reads_of_sensors_are_kept_beside_the_stamps(gpu_run: Run) -> None:
    import pandas

    case = gpu_run.cases[0]
    assert case.sensor_samples is not None
    frame = pandas.read_parquet(gpu_run.path / case.sensor_samples.file)
    assert list(frame.columns) == ["sensor", "t_ns", "call_ns", "value", "failure"]
    counter = frame[frame.sensor == f"nvml:{UUID}/energy"]
    assert counter.value.is_monotonic_increasing
    joules = counter.value.iloc[-1] - counter.value.iloc[0]
    seconds = (counter.t_ns.iloc[-1] - counter.t_ns.iloc[0]) * 1e-9
    assert joules / seconds == pytest.approx(WATTS, rel=0.05)
    phases = {phase.phase: phase for phase in case.phases}
    assert {"load", "idle", "warm-up", "trials", "prefill"} <= set(phases)
    assert phases["idle"].end_s <= phases["warm-up"].begin_s <= phases["trials"].begin_s
    assert counter.t_ns.iloc[-1] * 1e-9 >= phases["prefill"].end_s


def test_made_up_time_has_no_energy(gpu: dict[str, str], tmp_path: Path) -> None:
    arguments = ("--device", "cuda", *ONE, "--engine-option", "real_time=false")
    assert sweep(tmp_path / "run", *arguments, environment=gpu).returncode == 0
    (case,) = read_run(tmp_path / "run").cases
    reason = case.measurements["energy_j"].reason
    assert reason is not None
    assert "real_time=true" in reason
    assert case.phases == ()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[dict[str, str], PowercapTree]]:
    """Two packages of 100 W and memory of 20 W, as files that somebody keeps up to date."""
    root = tmp_path / "root"
    zones: dict[str, tuple[Profile, int, int]] = {}
    for folder, name, watts in (
        ("intel-rapl:0", "package-0", 100.0),
        ("intel-rapl:1", "package-1", 100.0),
        ("intel-rapl:0:0", "dram", 20.0),
    ):
        machines.write(root, machines.zone(folder, name, 0))
        zones[folder] = (Profile([(0.0, watts)]), 5_000_000 * (len(zones) + 1), 262143328850)
    tree = PowercapTree(root, zones, time.monotonic())
    yield {"AIPROF_SYSFS_ROOT": str(root)}, tree
    tree.stop()


def test_a_cpu_with_a_powercap_tree(server: tuple[dict[str, str], PowercapTree], tmp_path: Path) -> None:
    environment, tree = server
    done = sweep(tmp_path / "run", "--device", "cpu", *ONE, environment=environment)
    assert done.returncode == 0, done.stderr
    run = read_run(tmp_path / "run")
    (case,) = run.cases
    assert run.record.simulated
    assert case.simulated
    assert "simulated" in {flag.code for flag in case.flags}
    # On a busy machine the tree itself is late; it is the sum of two packages, and memory is not in it.
    late = 0.3 + tree.longest_pause_s
    power = case.measurements["power_mean_w"]
    assert power.value == pytest.approx(200.0, rel=late)
    assert power.scope == "package"
    assert {item.covers for item in case.energies} == {"device", "cpu-package-0", "cpu-package-1", "dram"}
    for name in FIGURES:
        assert case.measurements[name].value is not None, (name, case.measurements[name].reason)
    package = records_of(case, "trials", "cpu-package-0")
    assert package.joules / package.active_s == pytest.approx(100.0, rel=late)


def test_without_any_sensor_the_sweep_says_what_would_help(tmp_path: Path) -> None:
    machines.write(tmp_path / "root", {"/proc/sys/kernel/arch": "x86_64"})
    root = {"AIPROF_SYSFS_ROOT": str(tmp_path / "root")}
    done = sweep(tmp_path / "run", "--device", "cpu", *ONE, environment=root)
    assert done.returncode == 0, done.stderr
    run = read_run(tmp_path / "run")
    (case,) = run.cases
    for name in FIGURES:
        measurement = case.measurements[name]
        assert measurement.value is None
        assert measurement.reason is not None
        assert "modprobe intel_rapl_msr" in measurement.reason
    assert "modprobe" in " ".join(done.stdout.split())
    reasons = {sensor.source: sensor.unavailable for sensor in run.record.sensors}
    assert reasons["rapl"] is not None
    assert reasons["rapl"].code == "driver_not_loaded"
    assert case.sensor_samples is None
    assert run.record.baselines == ()


def test_a_sampler_that_is_killed_is_started_again_and_nothing_becomes_zero(
    gpu: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arguments = command(out, *ONE, "--device", "cuda")
    with subprocess.Popen(
        arguments, env=clean(gpu), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        killed = False
        deadline = time.monotonic() + 120
        while not killed and process.poll() is None and time.monotonic() < deadline:
            # run.json stands when the first case begins.
            for child in psutil.Process(process.pid).children() if (out / "run.json").exists() else ():
                try:
                    if "sampler_process" in " ".join(child.cmdline()):
                        child.send_signal(signal.SIGKILL)
                        killed = True
                except psutil.NoSuchProcess:
                    continue
            time.sleep(0.02)
        process.communicate(timeout=200)
    assert killed
    assert process.returncode == 0
    (case,) = read_run(out).cases
    assert "sampler_restarted" in {flag.code for flag in case.flags}
    for item in case.energies:
        assert item.joules is None or item.joules > 0
    document = json.loads((out / "cases.jsonl").read_text())
    assert all(energy["joules"] != 0 for energy in document["energies"])
