"""Ascend NPUs, through Huawei's DCMI library, or through ``npu-smi`` where that cannot be used."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import get_args

from profiler.backends.ascend_npus import DcmiNpus, Npu, NpuSmiNpus
from profiler.backends.base import (
    BackendReport,
    Capability,
    CapabilityName,
    Device,
    DeviceMemory,
    Json,
    Unavailable,
)
from profiler.backends.tree import Tree, parse_fields
from profiler.backends.visible import Visible, ascend_visible
from profiler.sensors.dcmi import Dcmi
from profiler.sensors.npu_smi import NpuSmi

_VENDOR = "0x19e5"
_TOOLKIT = "/usr/local/Ascend/ascend-toolkit/latest"
_NO_COUNTER = Unavailable("not_supported_by_device", "Ascend NPUs have no energy counter")


class AscendBackend:
    """The backend ``ascend``.

    Args:
        root: where ``/sys`` and ``/usr/local/Ascend`` are.
        environment: where ``ASCEND_RT_VISIBLE_DEVICES`` is read from; default ``os.environ``.
        library: path of ``libdcmi.so``; by default where Huawei's installers put it.
        npu_smi: name or path of the program to fall back on.
    """

    name = "ascend"
    verified = "never run on real hardware"

    def __init__(
        self,
        root: Path = Path("/"),
        environment: Mapping[str, str] | None = None,
        library: str | None = None,
        npu_smi: str = "npu-smi",
    ) -> None:
        self._tree = Tree(root)
        self._environment = os.environ if environment is None else environment
        self._dcmi = DcmiNpus(Dcmi(library), self._tree)
        self._npu_smi = NpuSmiNpus(NpuSmi(npu_smi))
        self._npus: dict[str, Npu] = {}

    def report(self) -> BackendReport:
        """Discover the NPUs that programs started from here will see."""
        npus = self._find_all()
        if isinstance(npus, Unavailable):
            return BackendReport(self.name, (), self._with_bus_hint(npus), self.verified)
        visible, numbered = self._visible(npus)
        devices = tuple(
            self._describe(numbered[position], ordinal, len(visible.order))
            for ordinal, position in enumerate(visible.order)
        )
        notes = [visible.note] if visible.note else []
        lost = len(npus) - len(numbered)
        if lost:
            notes.append(f"{lost} NPU(s) have no logical id, so no program can use them")
        facts: dict[str, Json] = {**self._versions(npus[0].source), "notes": [*notes]}
        unavailable = None
        if not devices:
            remedy = "unset ASCEND_RT_VISIBLE_DEVICES" if numbered else "see npu-smi info -m"
            unavailable = Unavailable("hidden", "; ".join(notes) or "all NPUs are hidden", remedy)
        return BackendReport(self.name, devices, unavailable, self.verified, facts)

    def memory(self, device: Device) -> DeviceMemory | Unavailable:
        """Read the NPU's own memory (HBM, else DDR)."""
        npu = self._find(device)
        return npu if isinstance(npu, Unavailable) else npu.source.memory(npu)

    def capabilities(self, device: Device) -> tuple[Capability, ...]:
        """Try each kind of reading once."""
        npu = self._find(device)
        if isinstance(npu, Unavailable):
            return tuple(Capability(name, None, npu) for name in get_args(CapabilityName))
        memory = npu.source.memory(npu)
        found: dict[str, str | Unavailable] = {
            "memory": memory if isinstance(memory, Unavailable) else memory.source,
            "energy": _NO_COUNTER,
            **npu.source.readings(npu),
        }
        missing = Unavailable("not_read", f"aiprof does not read it through {npu.source.name}")
        return tuple(
            Capability(name, None, answer)
            if isinstance(answer := found.get(name, missing), Unavailable)
            else Capability(name, answer, None)
            for name in get_args(CapabilityName)
        )

    def _find_all(self) -> list[Npu] | Unavailable:
        npus = self._dcmi.find()
        if isinstance(npus, Unavailable):
            other = self._npu_smi.find()
            npus = npus if isinstance(other, Unavailable) else other
        if not isinstance(npus, Unavailable):
            self._npus = {npu.key: npu for npu in npus}
        return npus

    def _find(self, device: Device) -> Npu | Unavailable:
        if device.key not in self._npus:
            found = self._find_all()
            if isinstance(found, Unavailable):
                return found
        return self._npus.get(device.key) or Unavailable("lost", f"the NPU {device.key} is not there")

    def _visible(self, npus: list[Npu]) -> tuple[Visible, list[Npu]]:
        """Return what is visible, as positions in the list of NPUs that programs can count."""
        numbered = sorted(
            (npu for npu in npus if npu.logic_id is not None), key=lambda npu: npu.logic_id or 0
        )
        logic_ids = [npu.logic_id for npu in numbered if npu.logic_id is not None]
        return ascend_visible(self._environment.get("ASCEND_RT_VISIBLE_DEVICES"), logic_ids), numbered

    def _describe(self, npu: Npu, ordinal: int, count: int) -> Device:
        facts, unknown = npu.source.facts(npu, list(self._npus.values()))
        memory = npu.source.memory(npu)
        if isinstance(memory, Unavailable):
            unknown["memory_total_bytes"] = str(memory)
        return Device(
            key=npu.key,
            backend=self.name,
            ordinal=ordinal,
            name=npu.source.product(npu),
            memory_total_bytes=None if isinstance(memory, Unavailable) else memory.total_bytes,
            pci_address=npu.pci_address,
            simulated=npu.source.simulated,
            details={
                "card": npu.card,
                "chip": npu.chip,
                "logic_id": npu.logic_id,
                "physical_id": npu.physical_id,
                # torch_npu shows neither UUID nor PCI address, so an engine's device is told by its number.
                "engine_position": ordinal,
                "engine_devices": count,
                **facts,
                "notes": [],
                "unknown": unknown,
            },
        )

    def _versions(self, source: DcmiNpus | NpuSmiNpus) -> dict[str, Json]:
        versions, unknown = source.versions()
        cann = self._cann_version()
        if cann is None:
            unknown["cann_version"] = f"there is no version in {_TOOLKIT}"
        return {**versions, "cann_version": cann, "unknown": unknown}

    def _cann_version(self) -> str | None:
        for pattern in (f"{_TOOLKIT}/*-linux/ascend_toolkit_install.info", f"{_TOOLKIT}/version.cfg"):
            for path in self._tree.glob(pattern):
                text = self._tree.text(path) or ""
                version = parse_fields(text, "=").get("version")
                found = re.search(r"\d+\.\d[\w.]*", version or text)
                if found:
                    return found[0]
        return None

    def _with_bus_hint(self, failure: Unavailable) -> Unavailable:
        """Say so when there is an Ascend NPU on the bus that only lacks its driver."""
        for path in self._tree.glob("/sys/bus/pci/devices/*"):
            # 0x12: processing accelerators.
            is_npu = (self._tree.text(f"{path}/class") or "").startswith("0x12")
            if is_npu and self._tree.text(f"{path}/vendor") == _VENDOR:
                address = path.rpartition("/")[2]
                return replace(failure, text=f"{failure.text}, though an Ascend NPU is at {address}")
        return failure
