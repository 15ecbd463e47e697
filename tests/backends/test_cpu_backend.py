from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machines
import pytest

from profiler.backends.base import Device, DeviceMemory, Unavailable
from profiler.backends.cpu import CpuBackend


def device_of(root: Path) -> Device:
    [device] = CpuBackend(root).report().devices
    return device


def details_of(root: Path) -> dict[str, Any]:
    return dict(device_of(root).details)


def able(root: Path) -> dict[str, Any]:
    backend = CpuBackend(root)
    return {one.name: one for one in backend.capabilities(backend.report().devices[0])}


def test_intel_server(tmp_path: Path) -> None:
    device = device_of(machines.intel_server(tmp_path))
    details: dict[str, Any] = dict(device.details)
    assert device.name == "Intel(R) Xeon(R) Platinum 8480+"
    assert device.memory_total_bytes == 263192560 * 1024
    assert [details[key] for key in ("sockets", "physical_cores", "logical_cpus", "usable_cpus")] == [
        2,
        4,
        8,
        8,
    ]
    assert (details["smt"], details["threads_per_core"]) == ("on", 2.0)
    assert all(
        details["isa"][name] for name in ("amx_tile", "amx_bf16", "amx_int8", "avx512_bf16", "avx_vnni")
    )
    assert details["caches"][-1] == {
        "level": 3,
        "type": "Unified",
        "size_bytes": 107520 << 10,
        "instances": 2,
    }
    assert {cache["instances"] for cache in details["caches"][:-1]} == {4}
    assert [node["cpus"] for node in details["numa_nodes"]] == ["0-1,4-5", "2-3,6-7", ""]
    assert details["numa_nodes"][2]["memory_bytes"] == 128 * 2**30
    assert details["frequency"] == {
        "driver": "intel_pstate",
        "governors": ["performance", "powersave"],
        "min_hz": 800_000_000,
        "max_hz": 3_800_000_000,
        "boost": True,
    }
    assert details["virtualisation"]["virtual"] is False
    assert details["virtualisation"]["machine"] == "Dell Inc. PowerEdge R760"
    assert details["huge_pages"] == {"transparent": "madvise", "size_bytes": 2**21, "total": 16, "free": 4}
    assert details["limits"]["cgroup_version"] == 2
    assert details["host_memory"]["swap_total_bytes"] == 8 * 2**30
    assert details["kernel"] == "6.8.0-45-generic"
    assert details["unknown"] == {}


def test_amd_server(tmp_path: Path) -> None:
    details = details_of(machines.amd_server(tmp_path))
    assert (details["vendor"], details["sockets"], details["physical_cores"]) == ("AuthenticAMD", 1, 4)
    assert details["isa"]["avx512_bf16"]
    assert not details["isa"]["amx_tile"]
    assert details["frequency"]["boost"] is False
    assert details["caches"][1]["size_bytes"] == 64 * 2**20


def test_graviton(tmp_path: Path) -> None:
    device = device_of(machines.graviton(tmp_path))
    details: dict[str, Any] = dict(device.details)
    assert device.name == "Arm Neoverse V1"
    assert details["isa"]["sve"]
    assert details["isa"]["i8mm"]
    assert not details["isa"]["sve2"]
    assert details["virtualisation"]["hypervisor"] == "Amazon EC2 (Nitro)"
    assert details["virtualisation"]["virtual"] is True


def test_unknown_arm_core_keeps_its_numbers(tmp_path: Path) -> None:
    root = machines.graviton(tmp_path)
    cpuinfo = machines.processors(1, {"Features": "fp asimd", "CPU implementer": "0x99", "CPU part": "0x123"})
    assert device_of(machines.write(root, {"/proc/cpuinfo": cpuinfo})).name == "aarch64 CPU 0x99/0x123"


def test_an_instruction_set_counts_only_if_every_cpu_has_it(tmp_path: Path) -> None:
    root = machines.intel_server(tmp_path)
    small = machines.processors(1, {"model name": "E-core", "flags": "sse2 avx2 avx_vnni"})
    cpuinfo = (root / "proc/cpuinfo").read_text() + "\n" + small
    isa = details_of(machines.write(root, {"/proc/cpuinfo": cpuinfo}))["isa"]
    assert [name for name, present in isa.items() if present] == ["avx2", "avx_vnni"]


def test_virtual_machine_says_why_it_does_not_know(tmp_path: Path) -> None:
    details = details_of(machines.virtual_machine(tmp_path))
    assert (details["virtualisation"]["virtual"], details["virtualisation"]["hypervisor"]) == (True, "KVM")
    assert details["sockets"] is None
    assert "packages" in details["unknown"]["sockets"]
    assert "virtual machine" in details["unknown"]["frequency"]
    assert details["unknown"]["caches"]


@pytest.mark.parametrize(
    ("files", "hypervisor"),
    [
        (
            {
                "/sys/class/dmi/id/sys_vendor": "Microsoft Corporation",
                "/sys/class/dmi/id/product_name": "Virtual Machine",
            },
            "Hyper-V",
        ),
        ({"/sys/class/dmi/id/sys_vendor": "VMware, Inc."}, "VMware"),
        ({"/sys/class/dmi/id/product_name": "Google Compute Engine"}, "KVM"),
        ({"/sys/hypervisor/type": "xen"}, "Xen"),
        (
            {
                "/proc/sys/kernel/osrelease": "5.15.167-microsoft-standard-WSL2",
                "/sys/devices/system/clocksource/clocksource0/available_clocksource": "tsc",
            },
            "Hyper-V (WSL)",
        ),
    ],
)
def test_names_the_hypervisor(tmp_path: Path, files: dict[str, object], hypervisor: str) -> None:
    root = machines.write(machines.virtual_machine(tmp_path), files)
    assert details_of(root)["virtualisation"]["hypervisor"] == hypervisor


def test_bare_metal_in_a_cloud_is_no_virtual_machine(tmp_path: Path) -> None:
    root = machines.write(machines.graviton(tmp_path), {"/sys/class/dmi/id/product_name": "c7g.metal"})
    assert details_of(root)["virtualisation"]["virtual"] is False


CONTAINER = {
    "/proc/self/cgroup": "0::/",
    "/proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n"
    "901 900 0:50 / / rw - overlay overlay rw,lowerdir=/l",
    "/proc/self/status": "Cpus_allowed_list:\t2-3",
    "/sys/fs/cgroup/cpu.max": "150000 100000",
    "/sys/fs/cgroup/cpuset.cpus.effective": "2-3",
    "/sys/fs/cgroup/memory.max": 16 * 2**30,
    "/sys/fs/cgroup/memory.current": 6 * 2**30,
    "/sys/fs/cgroup/memory.stat": f"inactive_file {2 * 2**30}",
    "/.dockerenv": "",
}


def test_in_a_container_the_smaller_limit_counts(tmp_path: Path) -> None:
    root = machines.write(machines.intel_server(tmp_path), CONTAINER)
    backend = CpuBackend(root)
    device = device_of(root)
    details: dict[str, Any] = dict(device.details)
    assert device.memory_total_bytes == 16 * 2**30
    assert backend.memory(device) == DeviceMemory(16 * 2**30, 12 * 2**30, "cgroup memory limit")
    assert details["limits"]["cpu_quota_cpus"] == 1.5
    assert (details["usable_cpus"], details["affinity"]) == (2, "2-3")
    assert details["logical_cpus"] == 8
    assert details["virtualisation"]["container"] == "docker"


def test_a_virtual_machine_made_from_an_image_is_no_container(tmp_path: Path) -> None:
    mounts = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw"
    root = machines.write(
        machines.virtual_machine(tmp_path), {"/.dockerenv": "", "/proc/self/mountinfo": mounts}
    )
    assert details_of(root)["virtualisation"]["container"] is None


def test_kubernetes_shows_in_what_it_mounts(tmp_path: Path) -> None:
    mounts = "9 8 8:1 /var/lib/kubelet/pods/x/etc-hosts /etc/hosts rw - ext4 /dev/sda rw"
    root = machines.write(machines.intel_server(tmp_path), {"/proc/self/mountinfo": mounts})
    assert details_of(root)["virtualisation"]["container"] == "kubernetes"


def test_memory_that_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    root = machines.intel_server(tmp_path)
    (root / "proc/meminfo").unlink()
    device = device_of(root)
    assert device.memory_total_bytes is None
    assert dict(device.details)["unknown"]["memory_total_bytes"]  # type: ignore[index, call-overload]
    assert isinstance(CpuBackend(root).memory(device), Unavailable)


def test_without_proc_there_is_no_device(tmp_path: Path) -> None:
    report = CpuBackend(tmp_path).report()
    assert report.devices == ()
    assert report.unavailable is not None
    assert report.unavailable.code == "no_procfs"


def digest(text: str) -> str:
    return "cpu-" + hashlib.sha256(text.encode()).hexdigest()[:12]


def test_the_key_comes_from_the_machine_id_then_the_firmware_then_the_model(tmp_path: Path) -> None:
    root = machines.intel_server(tmp_path)
    assert device_of(root).key == digest(machines.MACHINE_ID)
    machines.write(root, {"/etc/machine-id": "uninitialized"})
    fallback = device_of(root).key
    assert fallback == digest("Intel(R) Xeon(R) Platinum 8480+ 4 8")
    machines.write(root, {"/sys/class/dmi/id/product_uuid": "4C4C4544-0042-3510-8052-B4C04F4D3433"})
    assert device_of(root).key == digest("4c4c4544-0042-3510-8052-b4c04f4d3433")
    machines.write(root, {"/sys/class/dmi/id/product_uuid": "00000000-0000-0000-0000-000000000000"})
    assert device_of(root).key == fallback


def test_the_report_is_json_and_names_nobody(tmp_path: Path) -> None:
    report = CpuBackend(machines.intel_server(tmp_path)).report()
    text = json.dumps([dict(report.devices[0].details), dict(report.facts)], allow_nan=False)
    for secret in ("node17", machines.MACHINE_ID, str(tmp_path)):
        assert secret not in text


def test_capabilities_of_a_server(tmp_path: Path) -> None:
    found = able(machines.intel_server(tmp_path))
    sources = {name: one.source for name, one in found.items()}
    assert sources == {
        "memory": "/proc/meminfo",
        "energy": "rapl:package-0+package-1",
        "power": "rapl:package-0+package-1 over time",
        "clocks": "cpufreq",
        "temperature": "hwmon:coretemp",
        "throttling": "thermal_throttle",
    }


def test_what_sensors_show_comes_from_where_the_sensors_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work is done on this machine, whose memory it takes; only sensors can be those of another tree."""
    monkeypatch.setenv("AIPROF_SYSFS_ROOT", str(machines.intel_server(tmp_path)))
    backend = CpuBackend()
    [device] = backend.report().devices
    found = {one.name: one for one in backend.capabilities(device)}
    assert found["energy"].source == "rapl:package-0+package-1"
    assert found["power"].source == "rapl:package-0+package-1 over time"
    assert found["clocks"].source == "cpufreq"
    monkeypatch.setenv("AIPROF_SYSFS_ROOT", "/")
    [same] = CpuBackend().report().devices
    assert (same.key, same.name) == (device.key, device.name)
    memory = backend.memory(device)
    assert isinstance(memory, DeviceMemory)
    assert memory.total_bytes == device.memory_total_bytes


def test_one_unreadable_package_leaves_no_sum(tmp_path: Path) -> None:
    root = machines.intel_server(tmp_path)
    (root / "sys/class/powercap/intel-rapl:2/energy_uj").write_text("garbage\n")
    found = able(root)
    for name in ("energy", "power"):
        assert found[name].unavailable.code == "unreadable"


def test_the_capability_names_the_dies_that_count(tmp_path: Path) -> None:
    assert able(machines.amd_server(tmp_path))["energy"].source == "rapl:package-0-die-0"


@pytest.mark.parametrize("machine", [machines.virtual_machine, machines.graviton])
def test_what_cannot_be_measured_has_a_reason(tmp_path: Path, machine: Callable[[Path], Path]) -> None:
    found = able(machine(tmp_path))
    assert found["memory"].source
    for name in ("energy", "power", "clocks", "temperature", "throttling"):
        assert found[name].source is None
        assert found[name].unavailable.text


def test_this_machine_has_a_cpu() -> None:
    backend = CpuBackend()
    [device] = backend.report().devices
    memory = backend.memory(device)
    assert isinstance(memory, DeviceMemory)
    assert 0 < memory.free_bytes <= memory.total_bytes == device.memory_total_bytes
    assert dict(device.details)["usable_cpus"]
