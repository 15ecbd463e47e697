"""What a short look at the sensors says, and how `aiprof devices` shows it over the fakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import machines
import numpy as np
import pytest
from fakes.power import FAKES, write_config
from simulated_reads import COUNTER, Meter, random_profile

from profiler.backends.base import Device, Unavailable
from profiler.sensors.base import SensorInfo
from profiler.sensors.box import BoxSensors
from profiler.sensors.survey import judge, sensors_of, survey
from profiler.sensors.ticks import Series, series

SEED = 20261123
POWER = replace(COUNTER, key="test:device/power", kind="power_instant", unit="W", scale=0.1, poll_hz=20.0)
AVERAGE = replace(POWER, key="test:device/average", kind="power_average", average_window_s=1.0)
CLOCK = replace(COUNTER, key="test:device/clock", kind="clock", unit="Hz", scale=1e6, poll_hz=2.0)
UUIDS = [f"GPU-{digit * 8}-1111-2222-3333-444444444444" for digit in "ab"]


def reads() -> dict[str, Series]:
    rng = np.random.default_rng(SEED)
    profile = random_profile(rng, "steady", 4.0)
    power = Meter(tick_s=0.05, poll_s=0.05, noise_w=2.0).power(rng, profile, 3.5)
    return {
        COUNTER.key: Meter().counter(rng, profile, 3.5),
        POWER.key: power,
        AVERAGE.key: power,
        CLOCK.key: series([(10**9, 10**9 + 20_000, 1755, 0), (2 * 10**9, 2 * 10**9 + 30_000, 1980, 0)]),
    }


def test_sensors_are_told_what_they_are_worth() -> None:
    counter, power, average, clock = judge([COUNTER, POWER, AVERAGE, CLOCK], reads())
    assert counter.check is not None
    assert counter.check.counter_to_power == pytest.approx(1.0, abs=0.03)
    bound = counter.check.relative_bound_1s
    assert bound is not None
    words = counter.accuracy()
    assert words is not None
    assert words.startswith(f"energy of a 1 s phase: ±{bound:.1%}")
    assert counter.now == counter.check.power_mean_w
    assert power.now == power.latest
    assert average.accuracy() == "averages over 1 s: good for phases of 5 s and more"
    assert clock.call_s == pytest.approx(30e-6)
    assert (clock.latest, clock.accuracy()) == (1.98e9, None)


def test_a_counter_that_stands_still_is_no_accuracy() -> None:
    still = series([(at * 10**7, at * 10**7 + 1000, 5, 0) for at in range(100)])
    [one] = judge([COUNTER], {COUNTER.key: still})
    assert "no new value during this look" in str(one.accuracy())
    assert one.now is None


def test_nothing_is_waited_for_where_nothing_can_be_read() -> None:
    missing = replace(COUNTER, unavailable=Unavailable("permission", "only root may"))
    [one] = survey(BoxSensors((missing,), {}), seconds=1e9)
    assert one.unavailable == missing.unavailable
    assert (one.latest, one.call_s, one.check, one.accuracy()) == (None, None, None, None)


def test_sensors_belong_to_their_device() -> None:
    package = SensorInfo("rapl:package-0/energy", "rapl", "cpu-package-0", "energy_counter", "package", "J",
                         unavailable=Unavailable("permission", "only root may"))  # fmt: skip
    counter, power, cpu = judge([COUNTER, POWER, package], reads())
    gpu = Device("GPU-1", "cuda", 0, "A GPU", None, uuid=COUNTER.device)
    assert sensors_of(gpu, [counter, power, cpu]) == [counter, power]
    assert sensors_of(Device("cpu-1", "cpu", 0, "A CPU", None), [counter, power, cpu]) == [cpu]


@pytest.fixture
def aiprof(libraries: Path, tmp_path: Path) -> Any:
    """``aiprof(config, *arguments)``: the command over two fake GPUs and a tree with an AMD GPU and RAPL."""
    root = tmp_path / "root"
    machines.write(root, machines.zone("intel-rapl:0", "package-0", 5_000_000))
    config = tmp_path / "fake.conf"

    def run(
        values: dict[str, object], *arguments: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        base: dict[str, object] = {"t0": repr(time.monotonic()), "gpus": 2}
        for at, uuid in enumerate(UUIDS):
            base |= {
                f"{at}.uuid": uuid,
                f"{at}.pci": f"00000000:{0x17 + at:02X}:00.0",
                f"{at}.profile": "0:300",
            }
        write_config(config, {**base, **values})
        return subprocess.run(
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
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_doctor_over_the_fakes(aiprof: Any) -> None:
    done = aiprof({"1.gain": 1.6, "0.error.field185": 3}, "devices", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    cuda = next(one for one in document["backends"] if one["backend"] == "cuda")
    first, second = ({one["key"]: one for one in gpu["sensors"]} for gpu in cuda["devices"])
    energy = first[f"nvml:{UUIDS[0]}/energy"]
    assert energy["check"]["unavailable"] is None
    assert energy["check"]["power_mean_w"] == pytest.approx(300, rel=0.1)
    assert energy["accuracy"].startswith("energy of a 1 s phase: ")
    assert first[f"nvml:{UUIDS[0]}/power_average"]["unavailable"]["code"] == "not_supported_by_device"
    assert "sensor_disagrees" in second[f"nvml:{UUIDS[1]}/energy"]["check"]["flags"]
    sources = {one["source"]: one["unavailable"] for one in document["other_sensors"]}
    assert sources["redfish"]["code"] == "not_configured"


@pytest.mark.parametrize("columns", ["80", "60"])
def test_the_doctor_fits_the_terminal(aiprof: Any, columns: str) -> None:
    done = aiprof({"1.gain": 1.6, "1.nvlinks": 18}, "devices", COLUMNS=columns)
    assert done.returncode == 0, done.stderr
    assert max(len(line.rstrip()) for line in done.stdout.splitlines()) <= int(columns)
    text = " ".join(done.stdout.split())
    for words in (
        "SIMULATED",
        "energy of a 1 s phase:",
        "agrees with its power reading",
        "counter and power differ by a factor of 1.6",
        "averages over 1 s: good for phases of 5 s and more",
        "NVLink 4 to a switch",
        "AIPROF_POWER_COMMAND",
    ):
        assert words in text, words
