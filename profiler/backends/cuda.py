"""NVIDIA GPUs, through NVML."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from profiler.backends.base import (
    BackendReport,
    Capability,
    CapabilityName,
    Device,
    DeviceMemory,
    Json,
    Unavailable,
)
from profiler.backends.cpu import CpuBackend
from profiler.backends.cuda_gpus import (
    CLOCK_SM,
    Gpu,
    answer_or_none,
    enumerate_gpus,
    gpu_facts,
    gpu_memory,
    text,
)
from profiler.backends.cuda_links import gpu_links
from profiler.backends.links import as_json
from profiler.backends.pcie import sriov
from profiler.backends.tree import Tree
from profiler.backends.visible import Visible, cuda_visible
from profiler.sensors.nvml import Nvml

_TEMPERATURE_GPU = 0  # nvmlTemperatureSensors_t
_SHARED = " (the system's: NVML shows no memory of this GPU)"
_MIG_SENSOR = Unavailable(
    "mig_instance",
    "a MIG instance has no energy or power sensor of its own; the GPU's covers all instances",
    "measure with MIG off",
)


class CudaBackend:
    """The backend ``cuda``.

    Args:
        root: where ``/sys`` is, to see NVIDIA GPUs on the bus that have no driver.
        environment: where ``CUDA_VISIBLE_DEVICES`` is read from; default ``os.environ``.
    """

    name = "cuda"
    verified = "never run on real hardware"

    def __init__(self, root: Path = Path("/"), environment: Mapping[str, str] | None = None) -> None:
        self._tree = Tree(root)
        self._environment = os.environ if environment is None else environment
        self._nvml = Nvml()
        self._gpus: dict[str, Gpu] = {}

    def report(self) -> BackendReport:
        """Discover the GPUs that CUDA programs started from here will see."""
        failure = self._nvml.open()
        if failure is not None:
            return BackendReport(self.name, (), self._with_bus_hint(failure), self.verified)
        gpus, unusable = enumerate_gpus(self._nvml)
        self._gpus = {gpu.key: gpu for gpu in gpus}
        visible, candidates = self._visible(gpus)
        devices = tuple(
            self._describe(candidates[position], ordinal, gpus)
            for ordinal, position in enumerate(visible.order)
        )
        facts: dict[str, Json] = {
            **self._versions(),
            "unusable_gpus": [*unusable],
            "notes": [*([visible.note] if visible.note else []), *self._order_notes(devices)],
        }
        unavailable = None if devices else self._why_none(gpus, unusable, visible)
        return BackendReport(self.name, devices, unavailable, self.verified, facts)

    def memory(self, device: Device) -> DeviceMemory | Unavailable:
        """Read total and free memory, from the second version of the call where the driver has it."""
        gpu = self._find(device)
        return gpu if isinstance(gpu, Unavailable) else self._memory(gpu)

    def capabilities(self, device: Device) -> tuple[Capability, ...]:
        """Try each kind of reading once."""
        gpu = self._find(device)
        if isinstance(gpu, Unavailable):
            return tuple(Capability(name, None, gpu) for name in get_args(CapabilityName))
        ask, handle = self._nvml.ask, gpu.handle
        memory = self._memory(gpu)
        energy = _MIG_SENSOR if gpu.parent_uuid else self._nvml.energy_counter(handle)()
        power = _MIG_SENSOR if gpu.parent_uuid else ask("nvmlDeviceGetPowerUsage", handle)
        throttling = ask("nvmlDeviceGetCurrentClocksEventReasons", handle)
        if isinstance(throttling, Unavailable):  # the name of the same call before R535
            throttling = ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle)

        def capability(name: CapabilityName, answer: Any, source: str) -> Capability:
            refused = isinstance(answer, Unavailable)
            return Capability(name, None if refused else source, answer if refused else None)

        memory_source = "" if isinstance(memory, Unavailable) else memory.source
        clock = ask("nvmlDeviceGetClockInfo", handle, CLOCK_SM)
        return (
            capability("memory", memory, memory_source),
            capability("energy", energy, f"nvml:total_energy ({self._nvml.energy_scope(handle)})"),
            capability("power", power, "nvml:power_usage"),
            capability("clocks", clock, "nvml:clock_info"),
            capability(
                "temperature", ask("nvmlDeviceGetTemperature", handle, _TEMPERATURE_GPU), "nvml:temperature"
            ),
            capability("throttling", throttling, "nvml:clocks_event_reasons"),
        )

    def _find(self, device: Device) -> Gpu | Unavailable:
        if device.key not in self._gpus:
            failure = self._nvml.open()
            if failure is not None:
                return failure
            self._gpus = {gpu.key: gpu for gpu in enumerate_gpus(self._nvml)[0]}
        return self._gpus.get(device.key) or Unavailable("lost", f"the GPU {device.key} is not there")

    def _memory(self, gpu: Gpu) -> DeviceMemory | Unavailable:
        refusal: Unavailable | None = None
        for version in (2, 1):
            memory = gpu_memory(self._nvml, gpu, version)
            if not isinstance(memory, Unavailable):
                return DeviceMemory(memory["total"], memory["free"], f"nvml:memory_v{version}")
            refusal = memory
        assert refusal is not None
        if refusal.code != "not_supported_by_device" or gpu.parent_uuid:
            return refusal
        # NVML reports none for GPUs that share the system's memory (GB10, Thor): that one is theirs.
        system = CpuBackend(self._tree.root).host_memory()
        if isinstance(system, Unavailable):
            return refusal
        return replace(system, source=f"{system.source}{_SHARED}")

    def _visible(self, gpus: Sequence[Gpu]) -> tuple[Visible, list[Gpu]]:
        value = self._environment.get("CUDA_VISIBLE_DEVICES")
        candidates = list(gpus)
        if value is not None and not value.strip().startswith(("GPU-", "MIG-")):
            # Numbers count GPUs; a GPU in MIG mode then stands for its first instance.
            candidates = list({gpu.index: gpu for gpu in reversed(gpus)}.values())[::-1]
        return cuda_visible(value, [gpu.names for gpu in candidates]), candidates

    def _describe(self, gpu: Gpu, ordinal: int, gpus: Sequence[Gpu]) -> Device:
        facts, unknown = gpu_facts(self._nvml, gpu)
        links = gpu_links(self._nvml, gpu, gpus)
        facts["links"] = None if isinstance(links, Unavailable) else as_json(links)
        if isinstance(links, Unavailable):
            unknown["links"] = str(links)
        if gpu.pci_address:
            facts["sriov"] = sriov(self._tree, f"/sys/bus/pci/devices/{gpu.pci_address}")
        memory = self._memory(gpu)
        notes: list[Json] = [gpu.note] if gpu.note else []
        total_bytes = None
        if isinstance(memory, Unavailable):
            unknown["memory_total_bytes"] = str(memory)
        else:
            total_bytes = memory.total_bytes
            notes += [f"memory is {memory.source}"] if memory.source.endswith(_SHARED) else []
        return Device(
            key=gpu.key,
            backend=self.name,
            ordinal=ordinal,
            name=text(answer_or_none(self._nvml, "nvmlDeviceGetName", gpu.handle)) or "NVIDIA GPU",
            memory_total_bytes=total_bytes,
            uuid=gpu.uuid,
            pci_address=gpu.pci_address,
            simulated=self._nvml.simulated,
            details={**facts, "notes": notes, "unknown": unknown},
        )

    def _versions(self) -> dict[str, Json]:
        unknown: dict[str, Json] = {}
        versions: dict[str, Json] = {}
        for key, call in (
            ("driver_version", "nvmlSystemGetDriverVersion"),
            ("nvml_version", "nvmlSystemGetNVMLVersion"),
            ("cuda_driver_version", "nvmlSystemGetCudaDriverVersion_v2"),
        ):
            answer = self._nvml.ask(call)
            versions[key] = None if isinstance(answer, Unavailable) else text(answer)
            if isinstance(answer, Unavailable):
                unknown[key] = str(answer)
        number = versions["cuda_driver_version"]
        if isinstance(number, int):
            versions["cuda_driver_version"] = f"{number // 1000}.{number % 1000 // 10}"
        return {**versions, "unknown": unknown}

    def _order_notes(self, devices: tuple[Device, ...]) -> list[str]:
        by_bus = self._environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
        if by_bus or len({device.name for device in devices}) < 2:
            return []
        return [
            "GPUs of different kinds: CUDA numbers them fastest first unless CUDA_DEVICE_ORDER=PCI_BUS_ID "
            "is set, so numbers in CUDA_VISIBLE_DEVICES may mean other GPUs than here; use UUIDs"
        ]

    def _why_none(
        self, gpus: Sequence[Gpu], unusable: Sequence[Mapping[str, Json]], visible: Visible
    ) -> Unavailable:
        if gpus:
            return Unavailable("hidden", visible.note or "all GPUs are hidden", "unset CUDA_VISIBLE_DEVICES")
        if unusable:
            first = unusable[0]
            text_ = f"GPU {first['nvml_index']}: {first['reason']}"
            return Unavailable(str(first["code"]), text_, str(first["remedy"]))
        count = self._nvml.ask("nvmlDeviceGetCount")
        if isinstance(count, Unavailable):
            return count
        return Unavailable("no_device", "the NVIDIA driver is loaded but finds no GPU", "see dmesg")

    def _with_bus_hint(self, failure: Unavailable) -> Unavailable:
        """Say so when there is an NVIDIA GPU on the bus that only lacks its driver."""
        for path in self._tree.glob("/sys/bus/pci/devices/*"):
            is_display = (self._tree.text(f"{path}/class") or "").startswith("0x03")
            if is_display and self._tree.text(f"{path}/vendor") == "0x10de":
                address = path.rpartition("/")[2]
                return replace(failure, text=f"{failure.text}, though an NVIDIA GPU is at {address}")
        return failure
