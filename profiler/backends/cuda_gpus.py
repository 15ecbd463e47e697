"""What NVML says about the GPUs of a box: which there are, and the facts of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from profiler.backends.base import Json, Unavailable
from profiler.backends.identity import normal_pci, trusted_uuid
from profiler.sensors.nvml import Nvml

CLOCK_SM, CLOCK_MEMORY = 1, 2  # nvmlClockType_t


@dataclass(frozen=True)
class Gpu:
    """A GPU, or a MIG instance of one.

    Attributes:
        handle: NVML's.
        index: NVML's number of the GPU (of the parent for an instance).
        key: trusted UUID or PCI address.
        uuid: trusted UUID or None.
        pci_address: of the GPU or parent.
        names: UUIDs that ``CUDA_VISIBLE_DEVICES`` may call it by.
        parent_uuid: set for a MIG instance only.
        note: why the UUID is not trusted, or None.
    """

    handle: Any
    index: int
    key: str
    uuid: str | None
    pci_address: str | None
    names: tuple[str, ...]
    parent_uuid: str | None
    note: str | None


@dataclass(frozen=True)
class _Seen:
    """A GPU or instance before its UUID has been compared with the others."""

    handle: Any
    index: int
    uuid: str | None
    pci_address: str | None
    names: tuple[str, ...]
    parent_uuid: str | None = None


# nvmlGpuVirtualizationMode_t
_VIRTUALISATION = {
    0: "none",
    1: "passed through to this virtual machine",
    2: "vGPU",
    3: "host of vGPUs",
    4: "host of vSGAs",
}
# key in details -> (NVML call, further arguments, what to make of the answer)
_FACTS: dict[str, tuple[str, tuple[int, ...], Callable[[Any], Json]]] = {
    "compute_capability": ("nvmlDeviceGetCudaComputeCapability", (), lambda pair: f"{pair[0]}.{pair[1]}"),
    "power_limit_w": ("nvmlDeviceGetPowerManagementLimit", (), lambda milliwatts: milliwatts * 1e-3),
    "power_limit_default_w": (
        "nvmlDeviceGetPowerManagementDefaultLimit",
        (),
        lambda milliwatts: milliwatts * 1e-3,
    ),
    "mig_enabled": ("nvmlDeviceGetMigMode", (), lambda modes: bool(modes[0])),
    "ecc_enabled": ("nvmlDeviceGetEccMode", (), lambda modes: bool(modes[0])),
    "virtualisation": (
        "nvmlDeviceGetVirtualizationMode",
        (),
        lambda mode: _VIRTUALISATION.get(mode, f"mode {mode}"),
    ),
    "pcie_generation": ("nvmlDeviceGetCurrPcieLinkGeneration", (), int),
    "pcie_generation_max": ("nvmlDeviceGetMaxPcieLinkGeneration", (), int),
    "pcie_lanes_max": ("nvmlDeviceGetMaxPcieLinkWidth", (), int),
    "pcie_lanes": ("nvmlDeviceGetCurrPcieLinkWidth", (), int),
    "max_sm_clock_hz": ("nvmlDeviceGetMaxClockInfo", (CLOCK_SM,), lambda megahertz: megahertz * 10**6),
    "max_memory_clock_hz": (
        "nvmlDeviceGetMaxClockInfo",
        (CLOCK_MEMORY,),
        lambda megahertz: megahertz * 10**6,
    ),
}


def enumerate_gpus(nvml: Nvml) -> tuple[list[Gpu], list[dict[str, Json]]]:
    """Return all GPUs and MIG instances, and those that are there but cannot be used, with the reason.

    A GPU in MIG mode is replaced by its instances. Order is NVML's, by PCI address.
    """
    seen: list[_Seen] = []
    unusable: list[dict[str, Json]] = []

    def refuse(index: int, reason: Unavailable) -> None:
        unusable.append(
            {"nvml_index": index, "code": reason.code, "reason": reason.text, "remedy": reason.remedy}
        )

    count = nvml.ask("nvmlDeviceGetCount")
    for index in range(0 if isinstance(count, Unavailable) else count):
        found = _look(nvml, index)
        if isinstance(found, Unavailable):
            refuse(index, found)
        else:
            seen.extend(found)
    gpus = []
    for one in seen:
        uuid, note = trusted_uuid(one.uuid, [other.uuid for other in seen])
        # Instances share their parent's address, so only a UUID can tell them apart.
        key = uuid or (None if one.parent_uuid else one.pci_address)
        if key is None:
            refuse(
                one.index, Unavailable("no_identity", "the GPU has neither a usable UUID nor a PCI address")
            )
            continue
        gpus.append(Gpu(one.handle, one.index, key, uuid, one.pci_address, one.names, one.parent_uuid, note))
    return gpus, unusable


def _look(nvml: Nvml, index: int) -> list[_Seen] | Unavailable:
    handle = nvml.ask("nvmlDeviceGetHandleByIndex", index)
    if isinstance(handle, Unavailable):
        return handle
    name = nvml.ask("nvmlDeviceGetName", handle)
    if isinstance(name, Unavailable):
        return name
    uuid = answer_or_none(nvml, "nvmlDeviceGetUUID", handle)
    info = answer_or_none(nvml, "nvmlDeviceGetPciInfo", handle)
    whole = _Seen(
        handle, index, uuid, normal_pci(text(getattr(info, "busId", "")) or ""), (uuid,) if uuid else ()
    )
    mode = answer_or_none(nvml, "nvmlDeviceGetMigMode", handle)
    if not mode or not mode[0]:
        return [whole]
    return list(_instances(nvml, whole)) or Unavailable(
        "no_mig_instance",
        "MIG is on but the GPU has no instances",
        "create them with nvidia-smi mig -cgi, or turn MIG off with nvidia-smi -mig 0",
    )


def _instances(nvml: Nvml, whole: _Seen) -> Iterator[_Seen]:
    for number in range(answer_or_none(nvml, "nvmlDeviceGetMaxMigDeviceCount", whole.handle) or 0):
        handle = answer_or_none(nvml, "nvmlDeviceGetMigDeviceHandleByIndex", whole.handle, number)
        uuid = answer_or_none(nvml, "nvmlDeviceGetUUID", handle) if handle is not None else None
        if uuid is None:
            continue
        gpu_instance = answer_or_none(nvml, "nvmlDeviceGetGpuInstanceId", handle)
        compute_instance = answer_or_none(nvml, "nvmlDeviceGetComputeInstanceId", handle)
        # Drivers before R470 name an instance by its GPU and two numbers.
        old_name = f"MIG-{whole.uuid}/{gpu_instance}/{compute_instance}"
        parent = whole.uuid or whole.pci_address or "unknown"
        yield _Seen(handle, whole.index, uuid, whole.pci_address, (uuid, old_name), parent)


def gpu_facts(nvml: Nvml, gpu: Gpu) -> tuple[dict[str, Json], dict[str, Json]]:
    """Return the facts of a GPU, and for each fact that is None the reason."""
    facts: dict[str, Json] = {"nvml_index": gpu.index, "mig_parent_uuid": gpu.parent_uuid}
    unknown: dict[str, Json] = {}
    for key, (call, arguments, convert) in _FACTS.items():
        answer = nvml.ask(call, gpu.handle, *arguments)
        facts[key] = None if isinstance(answer, Unavailable) else convert(answer)
        if isinstance(answer, Unavailable):
            unknown[key] = str(answer)
    for version in (1, 2):
        key = f"memory_v{version}_bytes"
        memory = gpu_memory(nvml, gpu, version)
        facts[key] = None if isinstance(memory, Unavailable) else {**memory}
        if isinstance(memory, Unavailable):
            unknown[key] = str(memory)
    return facts, unknown


def gpu_memory(nvml: Nvml, gpu: Gpu, version: int) -> dict[str, int] | Unavailable:
    """Return the memory fields of one version of NVML's call as they are, in bytes.

    The versions are kept apart because their ``used`` differs: version 1 counts memory that the driver
    reserves for itself as used, version 2 reports it as ``reserved``.
    """
    arguments = (nvml.constant("nvmlMemory_v2"),) if version == 2 else ()
    answer = nvml.ask("nvmlDeviceGetMemoryInfo", gpu.handle, *arguments)
    if isinstance(answer, Unavailable):
        return answer
    fields = ("total", "free", "used", "reserved") if version == 2 else ("total", "free", "used")
    memory = {field: int(getattr(answer, field)) for field in fields}
    if memory["total"] == 0 or memory["free"] > memory["total"]:
        return Unavailable("implausible", f"NVML reports {memory['free']} of {memory['total']} bytes free")
    return memory


def answer_or_none(nvml: Nvml, call: str, *arguments: Any) -> Any:
    """Return the answer of an NVML call where the reason for a refusal does not matter."""
    answer = nvml.ask(call, *arguments)
    return None if isinstance(answer, Unavailable) else answer


def text(value: Any) -> str | None:
    """Return a string of ``pynvml``, whose older versions return bytes."""
    return value.decode() if isinstance(value, bytes) else value
