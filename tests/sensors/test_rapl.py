from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import machines
import pytest

from profiler.backends.base import EnergyReading, Unavailable
from profiler.backends.tree import Tree
from profiler.sensors.rapl import Rapl


def reading(root: Path) -> EnergyReading:
    answer = Rapl(Tree(root)).read()
    assert isinstance(answer, EnergyReading)
    return answer


def refusal(root: Path) -> Unavailable:
    answer = Rapl(Tree(root)).read()
    assert isinstance(answer, Unavailable)
    return answer


def set_counter(root: Path, folder: str, microjoules: int) -> None:
    (root / f"sys/class/powercap/{folder}/energy_uj").write_text(f"{microjoules}\n")


def test_sums_packages_and_nothing_else(tmp_path: Path) -> None:
    answer = reading(machines.intel_server(tmp_path))
    assert answer.joules == pytest.approx(12.5)
    assert answer.source == "rapl:package-0+package-1"
    assert answer.scope == "package"
    assert [part.wraps_at_joules for part in answer.parts] == [pytest.approx(262143.32885)] * 2


def test_one_package_carries_its_wrap(tmp_path: Path) -> None:
    answer = reading(machines.write(tmp_path, machines.zone("intel-rapl:0", "package-0", 1_000_000)))
    assert answer.source == "rapl:package-0"
    assert answer.wraps_at_joules == pytest.approx(262143.32885)


def test_mirrored_dies_are_counted_once(tmp_path: Path) -> None:
    answer = reading(machines.amd_server(tmp_path))
    assert answer.source == "rapl:package-0-die-0"
    assert answer.joules == pytest.approx(68.0)


def test_dies_with_counters_of_their_own_are_summed(tmp_path: Path) -> None:
    root = machines.amd_server(tmp_path)
    set_counter(root, "intel-rapl:1", 90_000_000)
    assert reading(root).joules == pytest.approx(158.0)


def test_mmio_is_used_only_where_nothing_else_is(tmp_path: Path) -> None:
    root = machines.write(tmp_path, machines.zone("intel-rapl-mmio:0", "package-0", 4_000_000))
    assert reading(root).joules == pytest.approx(4.0)


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
    answer = refusal(root)
    assert answer.code == "permission"
    assert "package-0" in answer.text
    assert "chmod" in answer.remedy


def test_one_unreadable_package_makes_the_sum_unavailable(tmp_path: Path) -> None:
    root = machines.intel_server(tmp_path)
    (root / "sys/class/powercap/intel-rapl:2/energy_uj").write_text("garbage\n")
    assert refusal(root).code == "unreadable"


def test_a_zone_that_vanishes_is_noticed(tmp_path: Path) -> None:
    root = machines.intel_server(tmp_path)
    rapl = Rapl(Tree(root))
    assert isinstance(rapl.read(), EnergyReading)
    (root / "sys/class/powercap/intel-rapl:2/energy_uj").unlink()
    answer = rapl.read()
    assert isinstance(answer, Unavailable)
    assert answer.code == "unreadable"


def test_hidden_by_the_container_runtime(tmp_path: Path) -> None:
    root = machines.virtual_machine(tmp_path)
    machines.link(
        root, "/sys/class/powercap/intel-rapl:0", "../../devices/virtual/powercap/intel-rapl/intel-rapl:0"
    )
    assert refusal(root).code == "masked_in_container"


def test_hidden_by_a_mount(tmp_path: Path) -> None:
    mounts = "50 49 0:80 / /sys/devices/virtual/powercap ro - tmpfs tmpfs ro"
    assert refusal(machines.write(tmp_path, {"/proc/self/mountinfo": mounts})).code == "masked_in_container"


def test_reasons_for_having_none(tmp_path: Path) -> None:
    assert refusal(machines.virtual_machine(tmp_path / "vm")).code == "virtualised"
    assert refusal(machines.graviton(tmp_path / "arm")).code == "not_supported_by_device"
    metal = machines.intel_server(tmp_path / "metal")
    shutil.rmtree(metal / "sys/class/powercap")
    assert refusal(metal).code == "driver_not_loaded"
    psys = machines.write(tmp_path / "psys", machines.zone("intel-rapl:0", "psys", 1))
    assert refusal(psys).code == "not_supported_by_device"
