from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import machines
import pytest

from profiler.backends.base import BackendReport, Capability, Device, DeviceMemory, Unavailable
from profiler.backends.rocm import RocmBackend

FAKE = Path(__file__).parent.parent / "fakes" / "fake_amdsmi.py"


def report(root: Path, **environment: str) -> BackendReport:
    return RocmBackend(root, environment).report()


def reason(found: BackendReport) -> Unavailable:
    assert found.devices == ()
    assert found.unavailable is not None
    return found.unavailable


@pytest.fixture
def two_gpus(tmp_path: Path) -> Path:
    """Two GPUs whose order in the compute topology is not that of their PCI addresses."""
    machines.amd_gpu(tmp_path, 1, "0000:c1:00.0", "a1b2c3d4e5f60718", node=2)
    machines.amd_gpu(tmp_path, 2, "0000:c6:00.0", "a1b2c3d4e5f60719", power="power1_input", node=1)
    machines.write(
        tmp_path, {"/sys/class/kfd/kfd/topology/nodes/0/properties": "cpu_cores_count 64\nsimd_count 0"}
    )
    return tmp_path


def test_describes_a_gpu(two_gpus: Path) -> None:
    machines.write(
        two_gpus,
        {
            "/sys/class/drm/card1/device/product_name": "AMD Instinct MI300X OAM",
            "/sys/class/drm/card1/device/current_compute_partition": "SPX",
            "/sys/module/amdgpu/version": "6.12.12",
            "/opt/rocm/.info/version": "7.0.2",
            "/sys/class/drm/card1-DP-1/status": "disconnected",
            "/sys/class/drm/card0/device/vendor": "0x1a03",
        },
    )
    found = report(two_gpus)
    device = found.devices[1]
    details: dict[str, Any] = dict(device.details)
    assert device.name == "AMD Instinct MI300X OAM"
    assert device.key == device.uuid == "GPU-a1b2c3d4e5f60718"
    assert device.pci_address == "0000:c1:00.0"
    assert device.memory_total_bytes == 206158430208
    assert details["power_limit_w"] == 750.0
    assert details["compute_partition"] == "SPX"
    assert details["target"] == "gfx942"
    assert "vbios_version" in details["unknown"]
    assert all(details[key] is None for key in details["unknown"])
    assert (found.facts["driver_version"], found.facts["rocm_version"]) == ("6.12.12", "7.0.2")
    backend = RocmBackend(two_gpus, {})
    assert backend.memory(device) == DeviceMemory(
        206158430208, 206158430208 - 297000960, "sysfs:mem_info_vram"
    )


def test_the_order_is_that_of_the_compute_topology(two_gpus: Path) -> None:
    found = report(two_gpus)
    assert [(one.ordinal, one.pci_address) for one in found.devices] == [
        (0, "0000:c6:00.0"),
        (1, "0000:c1:00.0"),
    ]


def test_the_kernel_without_a_driver_version_says_so(two_gpus: Path) -> None:
    facts: dict[str, Any] = dict(report(two_gpus).facts)
    assert facts["driver_version"] is None
    assert facts["unknown"]["driver_version"]


def test_visible_devices_are_applied_in_turn(two_gpus: Path) -> None:
    both = {"ROCR_VISIBLE_DEVICES": "1,0", "HIP_VISIBLE_DEVICES": "0"}
    assert [one.pci_address for one in report(two_gpus, **both).devices] == ["0000:c1:00.0"]
    by_uuid = report(two_gpus, ROCR_VISIBLE_DEVICES="GPU-a1b2c3d4e5f60719")
    assert [one.pci_address for one in by_uuid.devices] == ["0000:c6:00.0"]
    hidden = reason(report(two_gpus, ROCR_VISIBLE_DEVICES=""))
    assert hidden.code == "hidden"
    assert "ROCR_VISIBLE_DEVICES" in hidden.text


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"/usr/share/libdrm/amdgpu.ids": "1.0.0\n744C, C8, AMD Radeon RX\n74A1, 00, AMD Instinct MI300X"},
            "AMD Instinct MI300X",
        ),
        (
            {"/usr/share/misc/pci.ids": "1002  AMD\n\t74a1  Aqua Vanjaram [Instinct MI300X]\n10de  NVIDIA"},
            "AMD Aqua Vanjaram [Instinct MI300X]",
        ),
        (
            {"/usr/share/misc/pci.ids": "1001  Other\n\t74a1  Wrong\n1002  AMD\n\t0001  Wrong too"},
            "AMD GPU [1002:74a1]",
        ),
    ],
)
def test_the_name_is_looked_up_where_the_board_has_none(
    two_gpus: Path, files: dict[str, object], expected: str
) -> None:
    assert report(machines.write(two_gpus, files)).devices[0].name == expected


@pytest.mark.parametrize("number", ["0", "0000000000000000", None])
def test_a_gpu_without_a_number_is_known_by_its_address(tmp_path: Path, number: str | None) -> None:
    machines.amd_gpu(tmp_path, 0, "0000:03:00.0", number)
    [device] = report(tmp_path).devices
    assert (device.key, device.uuid) == ("0000:03:00.0", None)
    assert dict(device.details)["notes"]


def test_repeated_numbers_are_not_trusted(tmp_path: Path) -> None:
    for card, pci in enumerate(("0000:03:00.0", "0000:04:00.0")):
        machines.amd_gpu(tmp_path, card, pci, "00000000000000aa")
    assert [device.key for device in report(tmp_path).devices] == ["0000:03:00.0", "0000:04:00.0"]


def test_a_partitioned_gpu_is_one_device(tmp_path: Path) -> None:
    machines.amd_gpu(tmp_path, 0, "0000:03:00.0", "aa", node=1)
    machines.amd_gpu(tmp_path, 0, "0000:03:00.0", "aa", node=2)
    [device] = report(tmp_path).devices
    assert device.uuid == "GPU-00000000000000aa"
    assert "2 partitions" in str(dict(device.details)["notes"])


def test_reasons_for_having_none(tmp_path: Path) -> None:
    assert reason(report(tmp_path)).code == "no_device"
    pci = "/sys/bus/pci/devices/0000:c1:00.0"
    machines.write(tmp_path, {f"{pci}/class": "0x120000", f"{pci}/vendor": "0x1002"})
    assert reason(report(tmp_path)).code == "driver_not_loaded"
    machines.amd_gpu(tmp_path, 1, "0000:c1:00.0", "aa")
    (tmp_path / "dev/kfd").unlink()
    missing = reason(report(tmp_path))
    assert missing.code == "no_device_node"
    assert "--device /dev/kfd" in missing.remedy


def test_a_user_outside_the_groups(two_gpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_args, **_more: False)
    refused = reason(report(two_gpus))
    assert refused.code == "permission"
    assert "render" in refused.remedy


def test_a_gpu_that_is_gone(two_gpus: Path) -> None:
    backend = RocmBackend(two_gpus, {})
    device = backend.report().devices[0]
    shutil.rmtree(two_gpus / "sys/class/drm/card2")
    answer = backend.memory(device)
    assert isinstance(answer, Unavailable)
    assert answer.code == "lost"
    assert {one.unavailable.code for one in backend.capabilities(device) if one.unavailable} == {"lost"}
    assert all(one.unavailable for one in backend.capabilities(device))


def test_power_comes_from_whichever_file_there_is(two_gpus: Path, no_amdsmi: None) -> None:
    backend = RocmBackend(two_gpus, {})
    sources = []
    for device in backend.report().devices:
        found = {one.name: one for one in backend.capabilities(device)}
        sources.append(found["power"].source)
        assert found["energy"].source is None
        assert found["throttling"].unavailable is not None
    assert sources == ["hwmon:power1_input", "hwmon:power1_average"]


Install = Callable[[str], Path]


@pytest.fixture
def no_amdsmi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "amdsmi", None)


@pytest.fixture
def install(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a package ``amdsmi`` onto ``sys.path``: the fake with a counter, or one with other source."""
    folder = tmp_path_factory.mktemp("site")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "amdsmi", raising=False)

    def put(counter: str, source: str | None = None) -> Path:
        (folder / "amdsmi.py").write_text(FAKE.read_text() if source is None else source)
        (folder / "counter.txt").write_text(counter)
        return folder / "counter.txt"

    yield put
    sys.modules.pop("amdsmi", None)


def gpu(backend: RocmBackend, address: str) -> Device:
    return next(device for device in backend.report().devices if device.pci_address == address)


def energy(backend: RocmBackend, address: str = "0000:c1:00.0") -> Capability:
    return next(one for one in backend.capabilities(gpu(backend, address)) if one.name == "energy")


def test_the_counter_of_the_right_gpu_is_tried(two_gpus: Path, install: Install) -> None:
    install(str(10 * 65536))
    backend = RocmBackend(two_gpus, {})
    for address in ("0000:c1:00.0", "0000:c6:00.0"):
        assert energy(backend, address).source == "amdsmi:energy_accumulator (socket)"


@pytest.mark.parametrize("value", ["N/A", "0", str(2**64 - 1)])
def test_no_number_is_no_energy(two_gpus: Path, install: Install, value: str) -> None:
    install(value)
    backend = RocmBackend(two_gpus, {})
    answer = energy(backend).unavailable
    assert answer is not None
    assert answer.code == "not_supported_by_device"


def test_a_virtual_machine_has_no_counter(two_gpus: Path, install: Install) -> None:
    install("refuse")
    backend = RocmBackend(two_gpus, {})
    answer = energy(backend).unavailable
    assert answer is not None
    assert answer.code == "not_supported_by_device"


def test_nothing_the_package_prints_reaches_the_results(
    two_gpus: Path, install: Install, capfd: pytest.CaptureFixture[str]
) -> None:
    install("65536")
    backend = RocmBackend(two_gpus, {})
    assert energy(backend).unavailable is None
    os.write(1, b"a result\n")
    assert capfd.readouterr().out == "a result\n"


@pytest.mark.parametrize(
    "source",
    [
        "raise KeyError('libamd_smi.so')",
        "raise AttributeError('undefined symbol: amdsmi_get_new_thing')",
        "raise SystemExit(1)",
        "def amdsmi_init(): raise OSError('driver')",
        "",
    ],
)
def test_a_broken_package_is_a_reason_not_a_crash(two_gpus: Path, install: Any, source: str) -> None:
    install("1", source)
    backend = RocmBackend(two_gpus, {})
    answer = energy(backend).unavailable
    assert answer is not None
    assert answer.code == "library_mismatch"
    assert answer.remedy


def test_without_the_package(two_gpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "amdsmi", raising=False)
    monkeypatch.setattr(sys, "path", [])
    backend = RocmBackend(two_gpus, {})
    answer = energy(backend).unavailable
    assert answer is not None
    assert answer.code == "no_library"
