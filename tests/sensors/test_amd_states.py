"""States of AMD GPUs over the files of amdgpu and of the compute driver."""

from __future__ import annotations

import struct
from pathlib import Path

import machines
import pytest

from profiler.backends.amdgpu import Card, find_cards
from profiler.backends.base import Unavailable
from profiler.backends.rocm import RocmBackend
from profiler.backends.tree import Tree
from profiler.sensors.amd_sensors import AmdSensors
from profiler.sensors.amd_states import processes, throttle_status, uncorrected_errors
from profiler.sensors.base import SensorInfo
from profiler.sensors.throttle import HARDWARE, POWER, THERMAL, reasons

DEVICE = "/sys/class/drm/card0/device"
PROCESSES = "/sys/class/kfd/kfd/proc"
NODE = "/sys/class/kfd/kfd/topology/nodes"
TEMP_HOTSPOT, PPT0, VRHOT1, FIT = 1 << 36, 1 << 0, 1 << 45, 1 << 57


def metrics(bits: int, format_revision: int = 1, content_revision: int = 3, size: int = 120) -> bytes:
    """``struct gpu_metrics_v1_3``: its header, what is between, and ``indep_throttle_status``."""
    between = struct.pack("<HBB", size, format_revision, content_revision).ljust(112, b"\x2a")
    return between + struct.pack("<Q", bits)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    machines.amd_gpu(tmp_path, 0, "0000:c1:00.0", "aa", node=1)
    machines.amd_gpu(tmp_path, 1, "0000:c6:00.0", "bb", node=2)
    return tmp_path


@pytest.fixture
def tree(root: Path) -> Tree:
    return Tree(root)


@pytest.fixture
def card(tree: Tree) -> Card:
    return find_cards(tree)[0]


def code(answer: object) -> str:
    assert isinstance(answer, Unavailable), answer
    assert answer.text
    return answer.code


def sensors(root: Path) -> dict[str, SensorInfo]:
    """Those of the first GPU, by quantity."""
    source = AmdSensors(str(root))
    own = [info for info in source.probe() if info.device == "GPU-00000000000000aa"]
    return {info.key.rpartition("/")[2]: info for info in own}


def test_memory_errors_under_either_name(root: Path, tree: Tree, card: Card) -> None:
    assert code(uncorrected_errors(tree, card)) == "not_supported_by_device"
    machines.write(root, {f"{DEVICE}/ras/aca_umc": "ue: 4\nce: 9\nde: 0"})
    assert uncorrected_errors(tree, card) == 4
    machines.write(root, {f"{DEVICE}/ras/umc_err_count": "ue: 2\nce: 7"})
    assert uncorrected_errors(tree, card) == 2
    machines.write(root, {f"{DEVICE}/ras/umc_err_count": "ce: 7"})
    assert code(uncorrected_errors(tree, card)) == "unreadable"


def test_processes_count_once_and_on_their_own_gpu(root: Path, tree: Tree, card: Card) -> None:
    assert code(processes(tree, card)) == "not_supported_by_device"
    (root / PROCESSES.lstrip("/")).mkdir(parents=True)
    assert code(processes(tree, card)) == "not_supported_by_device"
    machines.write(root, {f"{NODE}/1/gpu_id": 30381, f"{NODE}/2/gpu_id": 4444})
    assert processes(tree, card) == 0
    machines.write(
        root,
        {
            f"{PROCESSES}/71/vram_30381": 4096,
            f"{PROCESSES}/71/vram_4444": 4096,
            f"{PROCESSES}/72/vram_30381": 0,  # has the device open, and nothing on it
            f"{PROCESSES}/73/vram_4444": 4096,
        },
    )
    assert processes(tree, card) == 1


def test_throttling_is_read_from_the_revision_that_has_it(root: Path, tree: Tree, card: Card) -> None:
    path = root / DEVICE.lstrip("/") / "gpu_metrics"
    path.write_bytes(metrics(TEMP_HOTSPOT | PPT0))
    bits = throttle_status(tree, card)
    assert bits == TEMP_HOTSPOT | PPT0
    assert reasons("amdsmi", bits) == {THERMAL, POWER}
    path.write_bytes(metrics(0))
    assert throttle_status(tree, card) == 0


def test_other_revisions_and_torn_files_are_refused(root: Path, tree: Tree, card: Card) -> None:
    assert code(throttle_status(tree, card)) == "not_supported_by_device"
    path = root / DEVICE.lstrip("/") / "gpu_metrics"
    for content, expected in (
        (metrics(PPT0, 1, 4), "not_read"),
        (metrics(PPT0, 1, 8), "not_read"),
        (metrics(PPT0, 2, 3), "not_read"),
        (metrics(PPT0, size=96), "unreadable"),
        (metrics(PPT0)[:-1], "unreadable"),
        (b"\x78", "unreadable"),
        (metrics((1 << 64) - 1), "not_supported_by_device"),
    ):
        path.write_bytes(content)
        assert code(throttle_status(tree, card)) == expected
    path.unlink()
    path.mkdir()
    assert code(throttle_status(tree, card)) == "unreadable"


@pytest.mark.parametrize(
    ("bit", "flag"),
    [(PPT0, POWER), (1 << 7, POWER), (1 << 16, POWER), (1 << 23, POWER), (1 << 32, THERMAL),
     (VRHOT1, THERMAL), (1 << 47, THERMAL), (1 << 56, HARDWARE), (FIT, HARDWARE)],
)  # fmt: skip
def test_each_group_of_reasons_has_its_flag(bit: int, flag: str) -> None:
    assert reasons("amdsmi", bit) == {flag}


def test_all_states_are_sensors(root: Path) -> None:
    bare = sensors(root)
    assert {name for name, info in bare.items() if info.unavailable} >= {
        "throttle_reasons", "ecc_uncorrected", "processes", "pcie_lanes",
    }  # fmt: skip
    (root / DEVICE.lstrip("/") / "gpu_metrics").write_bytes(metrics(VRHOT1))
    (root / PROCESSES.lstrip("/")).mkdir(parents=True)
    machines.write(
        root,
        {
            f"{DEVICE}/ras/umc_err_count": "ue: 0\nce: 0",
            f"{DEVICE}/current_link_width": 8,
            f"{DEVICE}/max_link_width": 16,
            f"{NODE}/1/gpu_id": 30381,
        },
    )
    full = sensors(root)
    kinds = {info.kind for info in full.values() if info.unavailable is None}
    assert kinds >= {"throttle", "ecc", "processes", "link", "power_limit", "clock", "temperature", "memory"}
    assert full["pcie_lanes"].nominal == 16
    assert full["processes"].poll_hz == 0
    backend = RocmBackend(root, {})
    [device, _] = backend.report().devices
    found = {one.name: one for one in backend.capabilities(device)}
    assert found["throttling"].source == "sysfs:gpu_metrics"


@pytest.mark.parametrize("lanes", ["0", "255", "x16", ""])
def test_a_link_that_the_kernel_does_not_know(root: Path, lanes: str) -> None:
    machines.write(root, {f"{DEVICE}/current_link_width": lanes, f"{DEVICE}/max_link_width": lanes})
    info = sensors(root)["pcie_lanes"]
    assert code(info.unavailable) == "unreadable"
    assert info.nominal is None
