"""The NPUs of a box as DCMI or ``npu-smi`` shows them: which there are, and the facts of each."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from profiler.backends.base import DeviceMemory, Json, Unavailable
from profiler.backends.links import Link, as_json
from profiler.backends.pcie import pcie_facts
from profiler.backends.tree import Tree
from profiler.sensors.dcmi import AiCore, Chip, ChipInfo, Dcmi, Hbm
from profiler.sensors.npu_smi import NpuSmi, NpuSmiChip

_MIB = 1 << 20
# DCMI_TOPO_TYPE_… -> (kind, what lies between); 6 is "unknown" to older drivers and SIO to newer ones.
_LINKS: dict[int, tuple[str, str | None]] = {
    1: ("pcie", "between CPUs"),
    2: ("pcie", "host bridge"),
    3: ("hccs", None),
    4: ("pcie", "several switches"),
    5: ("pcie", "same switch"),
    7: ("hccs", "through a switch"),
}
_NO_LIMIT = "neither DCMI nor npu-smi shows a power limit"


@dataclass(frozen=True)
class Npu:
    """One NPU, and where it was found; numbers and key as in :class:`profiler.sensors.dcmi.Chip`."""

    source: DcmiNpus | NpuSmiNpus
    card: int
    chip: int
    key: str
    pci_address: str | None
    logic_id: int | None
    physical_id: int | None
    name: str | None = None


class DcmiNpus:
    """NPUs through DCMI.

    Args:
        dcmi: the library.
        tree: where ``/sys`` is, for what the kernel says about their place on the bus.
    """

    name = "DCMI"

    def __init__(self, dcmi: Dcmi, tree: Tree) -> None:
        self._dcmi = dcmi
        self._tree = tree

    @property
    def simulated(self) -> bool:
        """Whether the library says of itself that no hardware stands behind it."""
        return self._dcmi.simulated

    def find(self) -> list[Npu] | Unavailable:
        """Return every NPU."""
        chips = self._dcmi.chips()
        if isinstance(chips, Unavailable):
            return chips
        return [
            Npu(self, chip.card, chip.chip, chip.key, chip.pci_address, chip.logic_id, chip.physical_id)
            for chip in chips
        ]

    def product(self, npu: Npu) -> str:
        """Return the name of the chip, such as ``Ascend 910B2``."""
        info = self._dcmi.fill("dcmi_get_device_chip_info", npu.card, npu.chip, ChipInfo)
        if isinstance(info, Unavailable):
            return "Ascend NPU"
        words = [_text(info.chip_type), _text(info.chip_name)]
        # Some drivers repeat the first word in the second.
        name = words[1] if words[1].startswith(words[0]) else " ".join(words)
        return name.strip() or "Ascend NPU"

    def memory(self, npu: Npu) -> DeviceMemory | Unavailable:
        """Read the HBM."""
        info = self._dcmi.fill("dcmi_get_device_hbm_info", npu.card, npu.chip, Hbm)
        if isinstance(info, Unavailable):
            return info
        if not info.memory_size or info.memory_usage > info.memory_size:
            text = f"DCMI reports {info.memory_usage} of {info.memory_size} MiB in use"
            return Unavailable("implausible", text)
        total, used = info.memory_size * _MIB, info.memory_usage * _MIB
        return DeviceMemory(total, total - used, "dcmi:hbm_info")

    def readings(self, npu: Npu) -> dict[str, str | Unavailable]:
        """Try power, clock and temperature; the source of each, or why there is none."""
        tried: dict[str, tuple[str, type[Any]]] = {
            "power": ("dcmi_get_device_power_info", ctypes.c_int),
            "clocks": ("dcmi_get_device_aicore_info", AiCore),
            "temperature": ("dcmi_get_device_temperature", ctypes.c_int),
        }
        found: dict[str, str | Unavailable] = {}
        for name, (call, kind) in tried.items():
            answer = self._dcmi.fill(call, npu.card, npu.chip, kind)
            source = f"dcmi:{call.removeprefix('dcmi_get_device_')}"
            found[name] = answer if isinstance(answer, Unavailable) else source
        power = found["power"]
        if not isinstance(power, Unavailable) and not self._watts(npu):
            found["power"] = Unavailable(
                "implausible", "the NPU shows 0 W, as it does with an alarm", "npu-smi info -t health"
            )
        return found

    def _watts(self, npu: Npu) -> float | None:
        answer = self._dcmi.fill("dcmi_get_device_power_info", npu.card, npu.chip, ctypes.c_int)
        return None if isinstance(answer, Unavailable) else answer.value / 10

    def facts(self, npu: Npu, others: Sequence[Npu]) -> tuple[dict[str, Json], dict[str, Json]]:
        """Return the facts of an NPU, and for each fact that is None the reason."""
        facts: dict[str, Json] = {"power_limit_w": None}
        unknown: dict[str, Json] = {"power_limit_w": _NO_LIMIT}
        info = self._dcmi.fill("dcmi_get_device_chip_info", npu.card, npu.chip, ChipInfo)
        if isinstance(info, Unavailable):
            facts |= {"chip_version": None, "ai_cores": None}
            unknown |= dict.fromkeys(("chip_version", "ai_cores"), str(info))
        else:
            name = _text(info.chip_name)
            facts |= {"chip_version": _text(info.chip_version), "ai_cores": int(info.ai_cores)}
            # A virtual NPU says which share of the chip it is: "910Bvir12_3c_32g".
            facts["vnpu"] = name[name.index("vir") :] if "vir" in name else None
        if npu.pci_address is not None:
            on_bus, missing = pcie_facts(self._tree, f"/sys/bus/pci/devices/{npu.pci_address}")
            facts |= on_bus
            unknown |= missing
        facts["links"] = as_json(self._links(npu, others))
        return facts, unknown

    def _links(self, npu: Npu, others: Sequence[Npu]) -> list[Link]:
        links = []
        for other in others:
            if other.key == npu.key:
                continue
            kind = self._dcmi.link_type(_chip(npu), _chip(other))
            if not isinstance(kind, Unavailable) and kind in _LINKS:
                name, path = _LINKS[kind]
                links.append(Link(name, other.key, path=path))
        return links

    def versions(self) -> tuple[dict[str, Json], dict[str, Json]]:
        """Return the versions of driver and library, and why one is unknown."""
        versions: dict[str, Json] = {}
        unknown: dict[str, Json] = {}
        for key, call in (
            ("driver_version", "dcmi_get_driver_version"),
            ("dcmi_version", "dcmi_get_dcmi_version"),
        ):
            answer = self._dcmi.version(call)
            versions[key] = None if isinstance(answer, Unavailable) else answer
            if isinstance(answer, Unavailable):
                unknown[key] = str(answer)
        return versions, unknown


class NpuSmiNpus:
    """NPUs through ``npu-smi``, which knows less: memory in steps of 1%, no links, no PCI address.

    Args:
        npu_smi: the program.
    """

    name = "npu-smi"
    simulated = False

    def __init__(self, npu_smi: NpuSmi) -> None:
        self._npu_smi = npu_smi
        self._chips: dict[str, NpuSmiChip] = {}

    def find(self) -> list[Npu] | Unavailable:
        """Return every NPU."""
        chips = self._npu_smi.chips()
        if isinstance(chips, Unavailable):
            return chips
        self._chips = {chip.key: chip for chip in chips}
        return [
            Npu(self, chip.card, chip.chip, chip.key, None, chip.logic_id, None, chip.name) for chip in chips
        ]

    def product(self, npu: Npu) -> str:
        """Return the name of the chip."""
        return npu.name or "Ascend NPU"

    def memory(self, npu: Npu) -> DeviceMemory | Unavailable:
        """Read the memory from its percentage in use."""
        memory = self._npu_smi.memory(self._chips[npu.key])
        if isinstance(memory, Unavailable):
            return memory
        total, used = memory
        return DeviceMemory(total, total - used, "npu-smi:usages (steps of 1%)")

    def readings(self, npu: Npu) -> dict[str, str | Unavailable]:
        """Try the power."""
        key = f"dcmi:{npu.key}/power"
        read = self._npu_smi.open([key])[key]
        answer = read if isinstance(read, Unavailable) else read()
        return {"power": answer if isinstance(answer, Unavailable) else "npu-smi:power"}

    def facts(self, npu: Npu, others: Sequence[Npu]) -> tuple[dict[str, Json], dict[str, Json]]:
        """Return the facts of an NPU, and for each fact that is None the reason."""
        unknown: dict[str, Json] = {
            "power_limit_w": _NO_LIMIT,
            "links": "npu-smi shows links in a table for people only; install libdcmi.so",
        }
        return dict.fromkeys(unknown), unknown

    def versions(self) -> tuple[dict[str, Json], dict[str, Json]]:
        """Return the version of the driver, and why it is unknown."""
        version = self._npu_smi.version()
        if isinstance(version, Unavailable):
            return {"driver_version": None}, {"driver_version": str(version)}
        return {"driver_version": version}, {}


def _chip(npu: Npu) -> Chip:
    return Chip(npu.card, npu.chip, npu.key, npu.pci_address, npu.logic_id, npu.physical_id)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace").strip()
