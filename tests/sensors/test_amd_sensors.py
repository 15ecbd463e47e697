"""AMD sensors over the files of amdgpu and a libamd_smi.so that does not know any GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import machines
import pytest
from fakes.power import Profile

from profiler.sensors.amd_sensors import _socket_power

BURSTS = Profile([(0.0, 140.0), (0.9, 650.0), (1.6, 300.0)])
STEADY = Profile([(0.0, 400.0)])
WINDOW = (0.3, 1.9)
NOT_SUPPORTED, NO_PERMISSION = 2, 10
BUSES = ("c1", "c6", "c8", "ca", "cb")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five GPUs; the last is split, and its second partition has the same bus."""
    folder = tmp_path_factory.mktemp("amd")
    for at, bus in enumerate(BUSES):
        power = "power1_input" if at == 1 else "power1_average"
        machines.amd_gpu(folder, at, f"0000:{bus}:00.0", f"{at + 1:016x}", power)
    machines.amd_gpu(folder, 9, "0000:cb:00.1", None)
    (folder / "sys/class/drm/card2/device/hwmon/hwmon2/power1_average").write_text("0\n")
    (folder / "sys/class/drm/card3/device/hwmon/hwmon3/power1_average").unlink()
    return folder


def key(at: int, quantity: str = "energy") -> str:
    return f"amdsmi:GPU-{at + 1:016x}/{quantity}"


@pytest.fixture(scope="module")
def answers(sensor_run: Any, root: Path) -> dict[str, Any]:
    config: dict[str, object] = {"gpus": 5}
    # The library lists GPUs in another order than the bus.
    for device, at in enumerate((1, 0, 3, 2, 4)):
        config[f"{device}.pci"] = f"0000:{BUSES[at]}:00.0"
        config[f"{device}.profile"] = str(BURSTS if at == 0 else STEADY)
        config[f"{device}.update_ms"] = 50
        if at == 1:
            config[f"{device}.back_at"], config[f"{device}.back_j"] = 1.4, 213
        if at == 2:
            config[f"{device}.error.amdsmi_get_energy_count"] = NOT_SUPPORTED
        if at == 3:
            config[f"{device}.error.amdsmi_get_energy_count"] = NO_PERMISSION
            config[f"{device}.no_current"] = 1
    found: dict[str, Any] = sensor_run(
        "amdsmi", config, options={"root": str(root)},
        keys=[key(0), key(1), key(4), key(3, "socket_power")], seconds=2.2, windows=[WINDOW],
    )  # fmt: skip
    return found


@pytest.fixture(scope="module")
def infos(answers: dict[str, Any]) -> dict[str, Any]:
    return {info["key"]: info for info in answers["infos"]}


def test_gpus_are_matched_by_address_and_counted_in_the_true_unit(answers: dict[str, Any]) -> None:
    """The library's own resolution of 15.3 uJ would be 0.27 % too much, the crossed GPU far off."""
    for at, profile in ((0, BURSTS), (4, STEADY)):
        (energy,) = answers["energy"][key(at)]
        assert abs(energy["joules"] - profile.joules(*WINDOW)) <= energy["bound_j"]
    # Steady power leaves nothing between ticks to guess, so that 0.27 % would show.
    (steady,) = answers["energy"][key(4)]
    assert steady["joules"] == pytest.approx(STEADY.joules(*WINDOW), rel=0.001)


def test_a_counter_that_goes_back_is_no_energy(answers: dict[str, Any]) -> None:
    (energy,) = answers["energy"][key(1)]
    assert energy["reason"]["code"] == "counter_backwards"
    assert energy["joules"] is None


def test_refusals_of_the_library(infos: dict[str, Any]) -> None:
    assert infos[key(2)]["unavailable"]["code"] == "not_supported_by_device"
    assert infos[key(3)]["unavailable"]["code"] == "permission"


def test_only_one_of_the_two_power_files_is_there(infos: dict[str, Any]) -> None:
    assert infos[key(0, "power_average")]["unavailable"] is None
    assert infos[key(0, "power_instant")]["unavailable"]["code"] == "not_supported_by_device"
    assert infos[key(1, "power_instant")]["unavailable"] is None
    assert infos[key(0, "power_average")]["max_power_w"] == 750


def test_a_die_that_shows_nothing_is_not_at_0_watts(infos: dict[str, Any]) -> None:
    assert infos[key(2, "power_average")]["unavailable"]["code"] == "partition_secondary"


def test_power_through_the_library_where_no_file_shows_it(answers: dict[str, Any]) -> None:
    """Current power is N/A on this GPU, so the other one is taken."""
    (energy,) = answers["energy"][key(3, "socket_power")]
    assert energy["joules"] == pytest.approx(STEADY.joules(*WINDOW), abs=energy["bound_j"])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"current_socket_power": 310, "average_socket_power": "N/A"}, 310),  # MI300X
        ({"current_socket_power": "N/A", "average_socket_power": 290}, 290),  # MI210
        ({"current_socket_power": 0xFFFF, "average_socket_power": 290}, 290),
        ({"current_socket_power": 310}, 310),
        ({"current_socket_power": "N/A", "average_socket_power": 0xFFFFFFFF}, None),
        ({}, None),
    ],
)
def test_whichever_power_the_chip_has_is_taken(answer: dict[str, object], expected: int | None) -> None:
    found = _socket_power(lambda: answer)
    assert (found if isinstance(found, int) else None) == expected


def test_partitions_share_the_energy_of_their_gpu(infos: dict[str, Any]) -> None:
    (second,) = [info for info in infos.values() if info["device"] == "0000:cb:00.1"]
    assert second["unavailable"]["code"] == "partition_secondary"
    assert second["shares_with"] == [key(4)]


def test_everything_is_marked(infos: dict[str, Any]) -> None:
    assert all(info["simulated"] for info in infos.values())


def test_without_the_package_files_remain(sensor_run: Any, root: Path, libraries: Path) -> None:
    found = sensor_run(
        "amdsmi",
        {},
        options={"root": str(root)},
        environment={"FAKE_AMDSMI_LIBRARY": str(libraries / "missing.so")},
    )["infos"]
    infos = {info["key"]: info for info in found}
    assert infos[key(0)]["unavailable"]["code"] == "library_mismatch"
    assert infos[key(0, "power_average")]["unavailable"] is None
    assert infos[key(0, "power_average")]["poll_hz"] > 2


def test_no_gpu_at_all(sensor_run: Any, tmp_path: Path) -> None:
    (info,) = sensor_run("amdsmi", {}, options={"root": str(tmp_path)})["infos"]
    assert info["unavailable"]["code"] == "no_device"
