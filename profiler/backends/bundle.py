"""Raw answers of this machine in one archive, for somebody else to see what aiprof saw."""

from __future__ import annotations

import ctypes
import gzip
import io
import json
import platform
import tarfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from profiler.backends.base import Json, Unavailable
from profiler.backends.cuda_gpus import text
from profiler.backends.scrub import SCRUBBED, Scrubber
from profiler.backends.tree import Tree
from profiler.errors import UsageError
from profiler.sensors.nvml import Nvml

_MAX_FILE_BYTES = 1 << 20
_CPU = "/sys/devices/system/cpu"
_PATTERNS = (
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/self/cgroup",
    "/proc/sys/kernel/osrelease",
    "/proc/sys/kernel/arch",
    "/proc/driver/nvidia/version",
    "/etc/os-release",
    "/opt/rocm/.info/version",
    f"{_CPU}/online",
    f"{_CPU}/smt/*",
    f"{_CPU}/intel_pstate/*",
    f"{_CPU}/cpufreq/boost",
    f"{_CPU}/cpu[0-9]*/topology/physical_package_id",
    f"{_CPU}/cpu[0-9]*/topology/thread_siblings_list",
    f"{_CPU}/cpu0/cache/index*/*",
    f"{_CPU}/cpu0/cpufreq/*",
    "/sys/devices/system/node/node[0-9]*/cpulist",
    "/sys/devices/system/node/node[0-9]*/meminfo",
    "/sys/devices/system/clocksource/clocksource0/*_clocksource",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/fs/cgroup/cpu.max",
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/cpuset.cpus.effective",
    "/sys/fs/cgroup/cpu/cpu.cfs_*_us",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    "/sys/class/powercap/*/name",
    "/sys/class/powercap/*/max_energy_range_uj",
    "/sys/class/powercap/*/energy_uj",
    "/sys/class/hwmon/hwmon*/name",
    "/sys/class/dmi/id/sys_vendor",
    "/sys/class/dmi/id/product_name",
    "/sys/class/dmi/id/bios_version",
    "/sys/class/drm/card*/device/vendor",
    "/sys/class/drm/card*/device/device",
    "/sys/class/drm/card*/device/revision",
    "/sys/class/drm/card*/device/uevent",
    "/sys/class/drm/card*/device/product_name",
    "/sys/class/drm/card*/device/unique_id",
    "/sys/class/drm/card*/device/mem_info_*",
    "/sys/class/drm/card*/device/current_*",
    "/sys/class/drm/card*/device/hwmon/hwmon*/name",
    "/sys/class/drm/card*/device/hwmon/hwmon*/*_input",
    "/sys/class/drm/card*/device/hwmon/hwmon*/power1_*",
    "/sys/class/kfd/kfd/topology/nodes/*/properties",
    "/sys/module/amdgpu/version",
    "/sys/module/nvidia/version",
)
_NVML_SYSTEM = ("nvmlSystemGetDriverVersion", "nvmlSystemGetNVMLVersion", "nvmlSystemGetCudaDriverVersion_v2")
# Not the serial number: it is of no use here and identifies the board.
_NVML_DEVICE: tuple[tuple[Any, ...], ...] = (
    ("nvmlDeviceGetName",),
    ("nvmlDeviceGetUUID",),
    ("nvmlDeviceGetPciInfo",),
    ("nvmlDeviceGetMemoryInfo",),
    ("nvmlDeviceGetMemoryInfo", 0x02000028),  # nvmlMemory_v2
    ("nvmlDeviceGetCudaComputeCapability",),
    ("nvmlDeviceGetArchitecture",),
    ("nvmlDeviceGetMigMode",),
    ("nvmlDeviceGetMaxMigDeviceCount",),
    ("nvmlDeviceGetEccMode",),
    ("nvmlDeviceGetPersistenceMode",),
    ("nvmlDeviceGetPowerManagementLimit",),
    ("nvmlDeviceGetPowerManagementDefaultLimit",),
    ("nvmlDeviceGetPowerUsage",),
    ("nvmlDeviceGetTotalEnergyConsumption",),
    ("nvmlDeviceGetClockInfo", 1),
    ("nvmlDeviceGetMaxClockInfo", 1),
    ("nvmlDeviceGetTemperature", 0),
    ("nvmlDeviceGetCurrentClocksEventReasons",),
    ("nvmlDeviceGetMaxPcieLinkGeneration",),
    ("nvmlDeviceGetCurrPcieLinkWidth",),
    ("nvmlDeviceGetFieldValues", [(83, 0), (185, 0), (186, 0), (186, 1), (191, 0), (191, 1)]),
)
_PACKAGES = ("aiprof", "nvidia-ml-py", "amdsmi", "torch", "vllm", "psutil", "rich", "numpy")


def write_bundle(
    path: Path, tree: Tree, secrets: Mapping[str, str], devices: Mapping[str, Json]
) -> dict[str, int]:
    """Write a ``.tar.gz`` of raw probe dumps.

    Args:
        path: file to write; an existing one is replaced.
        tree: the machine.
        secrets: what to take out, see :func:`profiler.backends.scrub.find_secrets`.
        devices: what ``aiprof devices --json`` shows.

    Returns:
        Name -> size in bytes of everything in it.

    Raises:
        UsageError: the file cannot be written.
    """
    scrubber = Scrubber(secrets)
    contents = {
        name: scrubber.scrub(content).encode()
        for name, content in (
            ("devices.json", json.dumps(devices, indent=2)),
            ("versions.json", json.dumps(_versions(), indent=2)),
            ("nvml.json", json.dumps(nvml_answers(Nvml()), indent=2)),
            ("mounts.txt", _mounts(tree)),
            *_files(tree),
        )
    }
    about = {"scrubbed": list(SCRUBBED), "files": sorted(contents)}
    contents = {"about.json": json.dumps(about, indent=2).encode(), **contents}
    try:
        path.write_bytes(_archive(contents))
    except OSError as error:
        raise UsageError(
            f"--bundle {path}: cannot be written ({error.strerror}); name another file"
        ) from error
    return {name: len(content) for name, content in contents.items()}


def _files(tree: Tree) -> Iterator[tuple[str, str]]:
    for name in dict.fromkeys(name for pattern in _PATTERNS for name in tree.glob(pattern)):
        if not tree.path(name).is_dir():
            content = tree.text(name)
            shown = f"unreadable: {tree.why(name)}" if content is None else content[:_MAX_FILE_BYTES]
            yield f"files{name}", shown + "\n"


def _mounts(tree: Tree) -> str:
    """Return the mounts that decide about limits and sensors; others show people's paths."""
    lines = (tree.text("/proc/self/mountinfo") or "").splitlines()
    return "\n".join(line for line in lines if " - cgroup" in line or "/powercap" in line) + "\n"


def _versions() -> dict[str, Json]:
    versions: dict[str, Json] = {"python": platform.python_version(), "machine": platform.machine()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def nvml_answers(nvml: Nvml) -> dict[str, Json]:
    """Return what NVML answers to every call that aiprof makes, refusals included."""
    answers: dict[str, Json] = {call: _plain(nvml.ask(call)) for call in _NVML_SYSTEM}
    count = nvml.ask("nvmlDeviceGetCount")
    answers["nvmlDeviceGetCount"] = _plain(count)
    for index in range(0 if isinstance(count, Unavailable) else count):
        handle = nvml.ask("nvmlDeviceGetHandleByIndex", index)
        if isinstance(handle, Unavailable):
            answers[f"gpu {index}"] = _plain(handle)
            continue
        answers[f"gpu {index}"] = {
            " ".join(str(part) for part in call): _plain(nvml.ask(call[0], handle, *call[1:]))
            for call in _NVML_DEVICE
        }
    return answers


def _plain(answer: Any) -> Json:
    """Return an answer of ``pynvml`` as JSON values."""
    if isinstance(answer, Unavailable):
        return {"refused": answer.code, "text": answer.text}
    if isinstance(answer, ctypes.Array):
        return [_plain(item) for item in answer]
    if isinstance(answer, ctypes.Structure):
        return {str(field[0]): _plain(getattr(answer, field[0])) for field in answer._fields_}
    if isinstance(answer, ctypes.Union):
        return int.from_bytes(bytes(answer), "little")
    if isinstance(answer, (list, tuple)):
        return [_plain(item) for item in answer]
    return text(answer) if isinstance(answer, (bytes, int, float, str)) else str(answer)


def _archive(contents: Mapping[str, bytes]) -> bytes:
    """Return a ``.tar.gz`` that says nothing about who made it and when."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as archive,
    ):
        for name, content in contents.items():
            member = tarfile.TarInfo(f"aiprof-bundle/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
