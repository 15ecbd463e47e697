"""What a short look at the sensors says, and how `aiprof devices` shows it over the fakes."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fakes.power import TWO_GPUS
from rich.console import Console
from simulated_reads import COUNTER, Meter, random_profile

from profiler.backends.base import Capability, CapabilityName, Device, Unavailable
from profiler.cli.devices_sensors import print_sensors
from profiler.sensors.base import SensorInfo
from profiler.sensors.box import BoxSensors
from profiler.sensors.survey import judge, sensors_of, survey
from profiler.sensors.ticks import Series, series

SEED = 20261123
POWER = replace(COUNTER, key="test:device/power", kind="power_instant", unit="W", scale=0.1, poll_hz=20.0)
AVERAGE = replace(POWER, key="test:device/average", kind="power_average", average_window_s=1.0)
LIMIT = replace(POWER, key="test:device/limit", kind="power_limit")
CLOCK = replace(COUNTER, key="test:device/clock", kind="clock", unit="Hz", scale=1e6, poll_hz=2.0)


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


def test_a_power_limit_is_no_power() -> None:
    steady = series([(at * 10**7, at * 10**7 + 1000, 7000, 0) for at in range(300)])
    [limit] = judge([LIMIT], {LIMIT.key: steady})
    assert (limit.latest, limit.check, limit.accuracy()) == (700.0, None, None)


def test_averages_over_a_second_are_not_promised_for_a_second_however_long_the_look() -> None:
    steady = series([(at * 5 * 10**7, at * 5 * 10**7 + 1000, 1000 + at % 3, 0) for at in range(400)])
    [average] = judge([AVERAGE], {AVERAGE.key: steady})
    assert average.check is not None
    assert average.check.power_mean_w == pytest.approx(100.1, abs=0.1)
    assert average.accuracy() == "averages over 1 s: good for phases of 5 s and more"


def test_a_counter_that_stands_still_is_no_accuracy() -> None:
    still = series([(at * 10**7, at * 10**7 + 1000, 5, 0) for at in range(100)])
    [one] = judge([COUNTER], {COUNTER.key: still})
    assert "no new value during this look" in str(one.accuracy())
    assert one.now is None


def test_a_look_that_is_too_short_for_a_slow_meter_asks_for_a_longer_one() -> None:
    rows = [(at * 10**9, at * 10**9 + 20_000_000, 400, 0) for at in range(2)]
    wall = replace(POWER, key="redfish:1/power", scope="wall", poll_hz=1.0)
    [one] = judge([wall], {wall.key: series(rows)})
    assert one.accuracy() == "how accurate it is takes a longer look: --check"


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


def test_the_doctor_over_the_fakes(aiprof: Any) -> None:
    process = aiprof({"1.gain": 1.6, "0.error.field185": 3}, "devices", "--json")
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    document = json.loads(stdout)
    cuda = next(one for one in document["backends"] if one["backend"] == "cuda")
    first, second = ({one["key"]: one for one in gpu["sensors"]} for gpu in cuda["devices"])
    energy = first[f"nvml:{TWO_GPUS[0]}/energy"]
    assert energy["accuracy"]
    # A machine that is too busy to sample for a second and a half gives a reason instead.
    if energy["check"]["unavailable"] is None:
        assert energy["check"]["power_mean_w"] == pytest.approx(300, rel=0.1)
    assert first[f"nvml:{TWO_GPUS[0]}/power_average"]["unavailable"]["code"] == "not_supported_by_device"
    assert second[f"nvml:{TWO_GPUS[1]}/temperature"]["latest"] == 41
    sources = {one["source"]: one["unavailable"] for one in document["other_sensors"]}
    assert sources["redfish"]["code"] == "not_configured"


@pytest.mark.parametrize("columns", [80, 60])
def test_sensors_are_shown_on_narrow_terminals(columns: int) -> None:
    tenfold = replace(POWER, key="test:device/tenfold", scale=1.0, max_power_w=10_000.0)
    surveyed = [
        *judge([COUNTER, POWER, AVERAGE, CLOCK], reads()),
        *judge([replace(COUNTER, key="test:device/wrong"), tenfold], {
            "test:device/wrong": reads()[COUNTER.key], tenfold.key: reads()[POWER.key],
        }),
    ]  # fmt: skip
    nothing = Unavailable("no_sensor", "there is no such sensor", "buy one")
    names: tuple[CapabilityName, ...] = ("energy", "power", "clocks", "temperature", "throttling")
    capabilities = [Capability(name, None, nothing) for name in names]
    console = Console(width=columns, record=True, file=io.StringIO())
    print_sensors(console, capabilities, surveyed, 12)
    shown = console.export_text()
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= columns
    text = " ".join(shown.split())
    for words in (
        "new every 100 ms",
        "energy of a 1 s phase: ±",
        "agrees with its power reading",
        "counter and power differ by a factor of 0.1",
        "averages over 1 s: good for phases of 5 s and more",
        "1.98 GHz now, a read takes 30.0 µs",
        "no there is no such sensor. To do: buy one",
        "as for temperature",
    ):
        assert words in text, (words, text)


def test_nothing_is_denied_that_is_read(aiprof: Any) -> None:
    """The packages of the tree are readable, so the machine's lack of them is no answer."""
    process = aiprof({}, "devices", COLUMNS="160")
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    _, _, cpu = stdout.partition("cpu:0")
    rows = {line.split()[0]: line.split()[1] for line in cpu.splitlines() if len(line.split()) > 1}
    assert "SENSORS SIMULATED" in cpu.splitlines()[0]
    assert rows["power"] == "yes"
    assert "rapl:package-0 over time" in cpu
    assert "virtual machines are not given" not in cpu


def test_states_that_no_capability_names_are_shown_with_their_values(aiprof: Any) -> None:
    process = aiprof({"0.throttle": 0x24, "1.pcie_lanes": 8}, "devices", COLUMNS="160")
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert "power and thermal now" in stdout
    assert "none now" in stdout
    assert "pcie lanes 8 of 16" in stdout


@pytest.mark.parametrize("columns", ["80", "60"])
def test_the_doctor_fits_the_terminal(aiprof: Any, columns: str) -> None:
    process = aiprof({"1.gain": 1.6, "1.nvlinks": 18}, "devices", COLUMNS=columns)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert max(len(line.rstrip()) for line in stdout.splitlines()) <= int(columns)
    text = " ".join(stdout.split())
    for words in ("SIMULATED", "NVLink 4 to a switch", "41 °C now", "AIPROF_POWER_COMMAND"):
        assert words in text, words
