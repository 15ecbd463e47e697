from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import machines
import pytest

from profiler.backends.base import Unavailable
from profiler.backends.tree import Tree
from profiler.sensors import rapl_sensors
from profiler.sensors.base import SensorInfo
from profiler.sensors.perf import PerfPower
from profiler.sensors.rapl_sensors import RaplSensors

PERF = "/sys/bus/event_source/devices/power"


def probed(root: Path) -> dict[str, SensorInfo]:
    return {info.key: info for info in RaplSensors(str(root)).probe()}


def code(info: SensorInfo) -> str:
    assert info.unavailable is not None
    return info.unavailable.code


def test_each_counter_once_and_what_overlaps(tmp_path: Path) -> None:
    sensors = probed(machines.intel_server(tmp_path))
    usable = {key: info.scope for key, info in sensors.items() if info.unavailable is None}
    assert usable == {
        "rapl:psys/energy": "platform",
        "rapl:package-0/energy": "package",
        "rapl:package-0/dram": "dram",
        "rapl:package-1/energy": "package",
    }
    packages = ("rapl:package-0/energy", "rapl:package-1/energy")
    assert set(packages) <= set(sensors["rapl:psys/energy"].overlaps)
    assert all(sensors[key].overlaps == ("rapl:psys/energy",) for key in packages)
    twin = sensors["rapl:package-0/energy@intel-rapl-mmio:0"]
    assert code(twin) == "mirrored_of"
    assert twin.shares_with == ("rapl:package-0/energy",)


def test_units_and_wraps(tmp_path: Path) -> None:
    info = probed(machines.intel_server(tmp_path))["rapl:package-0/energy"]
    assert (info.scale, info.unit, info.wraps_at) == (1e-6, "J", 262_143_328_850)
    assert info.simulated
    assert info.device == "cpu-package-0"


def test_the_plain_zone_is_read_and_not_its_mmio_twin(tmp_path: Path) -> None:
    source = RaplSensors(str(machines.intel_server(tmp_path)))
    read = source.open(["rapl:package-0/energy"])["rapl:package-0/energy"]
    assert not isinstance(read, Unavailable)
    assert read() == 5_000_000


def test_mirrored_dies_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rapl_sensors, "_MIRROR_PAUSE_S", 0.0)
    sensors = probed(machines.amd_server(tmp_path))
    mirror = sensors["rapl:package-0-die-1/energy"]
    assert code(mirror) == "mirrored_of"
    assert mirror.shares_with == ("rapl:package-0-die-0/energy",)
    assert sensors["rapl:package-0-die-0/energy"].unavailable is None


def test_dies_with_counters_of_their_own_both_count(tmp_path: Path) -> None:
    root = machines.amd_server(tmp_path)
    (root / "sys/class/powercap/intel-rapl:1/energy_uj").write_text("90000000\n")
    assert all(info.unavailable is None for info in probed(root).values())


def test_a_range_that_cannot_be_read_means_no_known_wrap(tmp_path: Path) -> None:
    root = machines.write(tmp_path, machines.zone("intel-rapl:0", "package-0", 9_000_000, largest=None))
    assert probed(root)["rapl:package-0/energy"].wraps_at is None


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder that anybody may enter; root may give up its rights in it and gets them back afterwards."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    user = os.geteuid()
    try:
        yield folder
    finally:
        os.seteuid(user)
        shutil.rmtree(folder)


def test_counters_that_only_root_may_read(as_nobody: Path) -> None:
    root = machines.intel_server(as_nobody)
    for path in root.glob("sys/class/powercap/*/energy_uj"):
        path.chmod(0o400 if os.geteuid() == 0 else 0)
    if os.geteuid() == 0:
        os.seteuid(65534)
    info = probed(root)["rapl:package-0/energy"]
    assert code(info) == "permission"
    assert info.unavailable is not None
    assert "chmod" in info.unavailable.remedy


@pytest.mark.parametrize("content", ["garbage\n", ""])
def test_a_counter_that_shows_no_number(tmp_path: Path, content: str) -> None:
    root = machines.intel_server(tmp_path)
    (root / "sys/class/powercap/intel-rapl:1/energy_uj").write_text(content)
    assert code(probed(root)["rapl:package-0/energy"]) == "unreadable"


def test_an_input_output_error_is_a_reason(tmp_path: Path) -> None:
    root = machines.intel_server(tmp_path)
    path = root / "sys/class/powercap/intel-rapl:1/energy_uj"
    path.unlink()
    path.mkdir()  # reading a folder fails with an error that is neither "missing" nor "denied"
    assert code(probed(root)["rapl:package-0/energy"]) == "unreadable"


def test_reasons_for_having_none(tmp_path: Path) -> None:
    assert code(probed(machines.virtual_machine(tmp_path / "vm"))["rapl:cpu/energy"]) == "virtualised"
    arm = probed(machines.graviton(tmp_path / "arm"))["rapl:cpu/energy"]
    assert code(arm) == "not_supported_by_device"
    masked = machines.write(
        tmp_path / "container",
        {"/proc/self/mountinfo": "50 49 0:80 / /sys/devices/virtual/powercap ro - tmpfs tmpfs ro"},
    )
    assert code(probed(masked)["rapl:cpu/energy"]) == "masked_in_container"
    hidden = machines.virtual_machine(tmp_path / "dangling")
    target = "../../devices/virtual/powercap/intel-rapl/intel-rapl:0"
    machines.link(hidden, "/sys/class/powercap/intel-rapl:0", target)
    assert code(probed(hidden)["rapl:cpu/energy"]) == "masked_in_container"
    metal = machines.intel_server(tmp_path / "metal")
    shutil.rmtree(metal / "sys/class/powercap")
    assert code(probed(metal)["rapl:cpu/energy"]) == "driver_not_loaded"
    psys = machines.write(tmp_path / "psys", machines.zone("intel-rapl:0", "psys", 1))
    assert code(probed(psys)["rapl:cpu/energy"]) == "not_supported_by_device"


def test_a_guest_that_is_shown_a_counter_reads_it_and_says_what_it_may_be(tmp_path: Path) -> None:
    root = machines.write(
        machines.virtual_machine(tmp_path), machines.zone("intel-rapl:0", "package-0", 4_000_000)
    )
    info = probed(root)["rapl:package-0/energy"]
    assert info.unavailable is None
    assert "hypervisor" in info.note
    assert probed(machines.intel_server(tmp_path / "metal"))["rapl:package-0/energy"].note == ""
    # Zones of a guest among which is no package are the hypervisor's doing, too.
    bare = machines.write(machines.virtual_machine(tmp_path / "x"), machines.zone("intel-rapl:0", "psys", 1))
    assert code(probed(bare)["rapl:cpu/energy"]) == "virtualised"


def test_mmio_counts_where_nothing_else_does(tmp_path: Path) -> None:
    root = machines.write(tmp_path, machines.zone("intel-rapl-mmio:0", "package-0", 4_000_000))
    assert probed(root)["rapl:package-0/energy"].unavailable is None


def test_perf_is_described_by_its_files(tmp_path: Path) -> None:
    files: dict[str, object] = {
        f"{PERF}/type": 9,
        f"{PERF}/cpumask": "0,28",
        f"{PERF}/events/energy-pkg": "event=0x02",
        f"{PERF}/events/energy-pkg.scale": "2.3283064365386962890625e-10",
        f"{PERF}/events/energy-ram": "event=0x03",
        f"{PERF}/events/energy-ram.scale": "1.52587890625e-5",
        "/sys/devices/system/cpu/cpu28/topology/physical_package_id": 1,
    }
    sensors = PerfPower(Tree(machines.write(tmp_path, files))).probe()
    assert [(info.device, info.scope) for info in sensors] == [
        ("cpu-package-0", "package"),
        ("cpu-package-1", "package"),
        ("cpu-package-0", "dram"),
        ("cpu-package-1", "dram"),
    ]
    assert sensors[0].scale == pytest.approx(2.0**-32)
    # Only the real machine's counters can be opened; in a made-up tree they say so.
    assert {code(info) for info in sensors} == {"not_read"}
    assert PerfPower(Tree(tmp_path / "empty")).probe() == []


def test_perf_stands_in_where_powercap_is_closed(tmp_path: Path) -> None:
    files: dict[str, object] = {
        f"{PERF}/type": 9,
        f"{PERF}/cpumask": "0",
        f"{PERF}/events/energy-pkg": "event=0x02",
        f"{PERF}/events/energy-pkg.scale": "2.3e-10",
    }
    root = machines.write(machines.virtual_machine(tmp_path), files)
    assert "rapl:perf-energy-pkg/cpu0" in probed(root)
    open_tree = machines.write(machines.intel_server(tmp_path / "open"), files)
    assert "rapl:perf-energy-pkg/cpu0" not in probed(open_tree)
