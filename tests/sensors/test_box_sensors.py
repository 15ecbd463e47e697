"""All sources asked at once, and which sensors speak for which device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import machines
import pytest

from profiler import registry
from profiler.backends.base import Device, Unavailable
from profiler.sensors.base import Kind, Scope, SensorInfo, Unit
from profiler.sensors.box import ROOT_VARIABLE, BoxSensors, find_sensors
from profiler.sensors.cpu_sensors import CpuSensors
from profiler.sensors.meters import DEVICE, meters_for, meters_of_several, state_sensors

CPU = Device("cpu-0123456789ab", "cpu", 0, "A CPU", None)
GPU = Device("GPU-1", "cuda", 0, "A GPU", None, uuid="GPU-1", pci_address="0000:17:00.0")
NOTHING = Unavailable("permission", "only root may", "sudo")


def sensor(
    source: str,
    device: str,
    scope: Scope,
    kind: Kind = "energy_counter",
    name: str = "energy",
    unavailable: Unavailable | None = None,
) -> SensorInfo:
    key = f"{source}:{device}/{name}"
    unit: Unit = "J" if kind == "energy_counter" else "W"
    return SensorInfo(key, source, device, kind, scope, unit, unavailable=unavailable)


PACKAGES = [sensor("rapl", f"cpu-package-{at}", "package") for at in (0, 1)]
DRAM = sensor("rapl", "cpu-package-0", "dram", name="dram")
PLATFORM = sensor("rapl", "cpu-psys", "platform")
WALL = sensor("redfish", "wall", "wall", "power_instant", "power")
BOARD = sensor("nvml", "GPU-1", "board")
BOARD_POWER = sensor("nvml", "GPU-1", "board", "power_instant", "power")
OTHER = sensor("nvml", "GPU-2", "board")
EVERYTHING = [*PACKAGES, DRAM, PLATFORM, WALL, BOARD, BOARD_POWER, OTHER]


def covered(device: Device, infos: list[SensorInfo]) -> dict[str, list[str]]:
    return {meter.covers: [info.key for info in meter.sensors] for meter in meters_for(device, infos)}


def test_a_gpu_has_its_counter_and_the_box_beside_it() -> None:
    found = covered(GPU, EVERYTHING)
    assert found.pop(DEVICE) == [BOARD.key]
    assert found == {
        "cpu": [info.key for info in PACKAGES],
        "cpu-package-0": [PACKAGES[0].key],
        "cpu-package-1": [PACKAGES[1].key],
        "dram": [DRAM.key],
        "platform": [PLATFORM.key],
        "wall": [WALL.key],
    }


def test_a_cpu_is_all_of_its_packages_and_nothing_that_overlaps_them() -> None:
    found = covered(CPU, EVERYTHING)
    assert found[DEVICE] == [info.key for info in PACKAGES]
    assert "cpu" not in found
    assert covered(CPU, [PACKAGES[0], DRAM]) == {DEVICE: [PACKAGES[0].key], "dram": [DRAM.key]}


@pytest.mark.parametrize("name", ["GPU-1", "0000:17:00.0"])
def test_a_device_is_known_by_uuid_and_by_pci_address(name: str) -> None:
    assert covered(GPU, [replace(BOARD, device=name)])[DEVICE] == [BOARD.key]


def test_a_sum_without_one_of_its_parts_is_none() -> None:
    """Half of the sockets would pass for the whole CPU."""
    closed = replace(PACKAGES[1], unavailable=NOTHING)
    (own, *others) = meters_for(CPU, [PACKAGES[0], closed, DRAM])
    assert (own.sensors, own.unavailable) == ((), NOTHING)
    assert {meter.covers for meter in others} == {"cpu-package-0", "dram"}
    mirror = replace(PACKAGES[1], unavailable=Unavailable("mirrored_of", "the same counter"))
    assert meters_for(CPU, [PACKAGES[0], mirror])[0].sensors == (PACKAGES[0],)
    perf = replace(PACKAGES[0], key="rapl:perf-energy-pkg/cpu0")
    assert meters_for(CPU, [closed, perf])[0].sensors == (perf,)
    no_memory = replace(DRAM, key="rapl:package-1/dram", unavailable=NOTHING)
    assert {meter.covers for meter in meters_for(CPU, [*PACKAGES, DRAM, no_memory])} == {
        DEVICE, "cpu-package-0", "cpu-package-1",
    }  # fmt: skip


def test_power_stands_in_where_the_counter_cannot_be_read() -> None:
    refused = replace(BOARD, unavailable=NOTHING)
    assert covered(GPU, [refused, BOARD_POWER])[DEVICE] == [BOARD_POWER.key]
    (own, *others) = meters_for(GPU, [refused, *PACKAGES])
    assert (own.sensors, own.unavailable) == ((), NOTHING)
    assert [meter.covers for meter in others] == ["cpu", "cpu-package-0", "cpu-package-1"]


def test_a_meter_of_the_users_own_speaks_for_a_device_without_sensors() -> None:
    mine = sensor("command", "meter", "board", "power_instant", "power")
    assert covered(GPU, [mine])[DEVICE] == [mine.key]
    assert covered(GPU, [mine, BOARD])[DEVICE] == [BOARD.key]
    wall = sensor("command", "wall", "wall", "power_instant", "power")
    assert covered(GPU, [wall]) == {DEVICE: [], "wall": [wall.key]}


def test_one_chassis_that_shows_energy_and_power_is_one_meter() -> None:
    energy = sensor("redfish", "wall", "wall")
    assert covered(GPU, [replace(WALL, key="redfish:1/power"), replace(energy, key="redfish:1/energy")]) == {
        DEVICE: [],
        "wall": ["redfish:1/energy"],
    }


def test_a_device_without_any_sensor_says_why() -> None:
    (own,) = meters_for(GPU, [])
    assert own.unavailable is not None
    assert own.unavailable.code == "no_sensor"
    assert "AIPROF_POWER_COMMAND" in own.unavailable.remedy
    (simulated,) = meters_for(replace(GPU, backend="fake"), [BOARD])
    assert simulated.unavailable is not None
    assert simulated.unavailable.code == "simulated"
    (cpu,) = meters_for(CPU, [sensor("rapl", "cpu", "package", unavailable=NOTHING)])
    assert cpu.unavailable == NOTHING


def test_only_sensors_that_matter_to_the_sweep_are_sampled() -> None:
    found = BoxSensors(tuple(EVERYTHING), {}).of([GPU])
    assert OTHER not in found
    assert len(found) == len(EVERYTHING) - 1


class Broken:
    name = "broken"

    def probe(self) -> list[SensorInfo]:
        raise RuntimeError("no luck")


def test_a_source_that_fails_is_reported_and_the_others_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.BUILT_IN["sensors"], "broken", f"{__name__}:Broken")
    machines.write(tmp_path, machines.zone("intel-rapl:0", "package-0", 5))
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    found = find_sensors()
    broken = [info for info in found.infos if info.source == "broken"]
    assert [info.unavailable.code for info in broken if info.unavailable] == ["sensor_failed"]
    package = [info for info in found.infos if info.scope == "package" and info.source == "rapl"]
    assert [info.unavailable for info in package] == [None]
    assert found.simulated
    assert found.options["rapl"] == {"root": str(tmp_path)}


def test_the_state_of_a_cpu_comes_from_its_files(tmp_path: Path) -> None:
    source = CpuSensors(str(machines.intel_server(tmp_path)))
    infos = {info.key: info for info in source.probe()}
    # The machine describes one temperature sensor and one throttle counter for two packages.
    readable = [key for key, info in infos.items() if info.unavailable is None]
    assert readable == [
        "cpu:cpu-package-0/temperature",
        "cpu:cpu-package-0/clock",
        "cpu:cpu-package-0/throttle_count",
        "cpu:cpu-package-1/clock",
    ]
    values = {}
    for key, read in source.open(readable).items():
        assert callable(read)
        raw = read()
        assert isinstance(raw, int)
        values[key] = raw * infos[key].scale
    assert values["cpu:cpu-package-0/temperature"] == pytest.approx(41.0)
    assert values["cpu:cpu-package-1/clock"] == pytest.approx(2.9e9)
    assert values["cpu:cpu-package-0/throttle_count"] == 3
    assert [info.key for info in state_sensors(CPU, list(infos.values()))] == readable
    assert state_sensors(GPU, list(infos.values())) == []


def test_devices_are_added_up_where_each_has_a_meter_of_its_own() -> None:
    other = replace(GPU, key="GPU-2", uuid="GPU-2", pci_address=None)
    together, first, second, *box = meters_of_several([GPU, other], EVERYTHING)
    assert (together.covers, [info.key for info in together.sensors]) == (DEVICE, [BOARD.key, OTHER.key])
    assert [meter.covers for meter in (first, second)] == ["device:GPU-1", "device:GPU-2"]
    assert {meter.covers for meter in box} >= {"cpu", "wall"}
    closed = meters_of_several([GPU, other], [BOARD, replace(OTHER, unavailable=NOTHING)])
    assert closed[0].sensors == ()
    assert closed[0].unavailable is not None
    assert "GPU-2: only root may" in closed[0].unavailable.text
    assert closed[1].sensors == (BOARD,)
    mixed = meters_of_several([GPU, other], [BOARD, replace(OTHER, scope="chip")])
    assert mixed[0].unavailable is not None
    assert mixed[0].unavailable.code == "mixed_scopes"
    mine = sensor("command", "meter", "board", "power_instant", "power")
    shared = meters_of_several([GPU, other], [mine])
    assert shared[0].unavailable is not None
    assert shared[0].unavailable.code == "shared_sensor"
