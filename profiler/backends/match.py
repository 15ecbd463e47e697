"""Which of an engine's devices is the one that a backend found.

An engine counts what its runtime leaves visible, in the runtime's own order; a backend knows UUIDs and PCI
addresses. Numbers are never compared: ``cuda:0`` of an engine and ``--device cuda:0`` may be two GPUs. The
one exception is Ascend, whose PyTorch tells nothing else; there the position within
``ASCEND_RT_VISIBLE_DEVICES`` counts, and that the model went where it should is checked by the memory that
loading takes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from profiler.backends.base import Device
from profiler.backends.identity import normal_pci, trusted_uuid

# What PyTorch calls the devices of a backend; ROCm's PyTorch calls its GPUs "cuda", too.
TORCH_KINDS = {"cpu": "cpu", "cuda": "cuda", "rocm": "cuda", "ascend": "npu"}
# Loading must take at least this part of the bytes that it is said to take, and is judged only beyond this.
_LEAST_GROWTH = 0.5
_LEAST_JUDGED_BYTES = 256 << 20


@dataclass(frozen=True)
class EngineDevice:
    """A device of an engine that was recognised.

    Attributes:
        name: what the engine calls it, ``cuda:1``.
        by: what it was recognised by.
    """

    name: str
    by: Literal["kind", "uuid", "pci_address", "position"]


def find_engine_device(device: Device, entries: Sequence[Mapping[str, Any]]) -> EngineDevice | str:
    """Return the engine's device that is ``device``, or why none can be said to be.

    Args:
        device: as its backend found it.
        entries: ``devices`` of the worker's answer to ``hello``.
    """
    kind = TORCH_KINDS.get(device.backend)
    if kind == "cpu":
        return EngineDevice("cpu", "kind")
    others = [entry for entry in entries if _kind(entry) != "cpu"]
    candidates = [entry for entry in others if kind is None or _kind(entry) == kind]
    listed = ", ".join(str(entry["device"]) for entry in entries)
    if not candidates:
        return f"has only {listed}"
    uuids = [entry.get("uuid") for entry in candidates]
    trusted = [trusted_uuid(uuid, uuids)[0] for uuid in uuids]
    own = {_bare(uuid) for uuid in (device.uuid, *_partition_uuids(device)) if uuid}
    same = [entry for entry, uuid in zip(candidates, trusted, strict=True) if uuid and _bare(uuid) in own]
    if same:
        return _only(device, same, "uuid")
    address = normal_pci(device.pci_address or "")
    at_address = [
        (entry, uuid)
        for entry, uuid in zip(candidates, trusted, strict=True)
        if address is not None and normal_pci(entry.get("pci_address") or "") == address
    ]
    if at_address and device.details.get("mig_parent_uuid"):
        return f"sees {listed}, but not this MIG instance; set CUDA_VISIBLE_DEVICES={device.uuid}"
    for entry, uuid in at_address:
        if uuid and device.uuid:
            return f"sees {entry['device']} at {address}, but as {uuid}, which is another part of that GPU"
    if at_address:
        return _only(device, [entry for entry, _ in at_address], "pci_address")
    return _by_position(device, candidates) or f"has only {listed}"


def misplaced(device: Device, before_free: int, after_free: int, loaded_bytes: int) -> str | None:
    """Return why the model cannot have been loaded onto ``device``, or None.

    Judged only where the engine's device was taken by its position; a UUID or an address needs no proof.

    Args:
        device: where it should be.
        before_free: bytes free on it before loading.
        after_free: bytes free on it afterwards.
        loaded_bytes: weights and cache as the engine reports them.
    """
    by_position = isinstance(device.details.get("engine_position"), int)
    if not by_position or loaded_bytes < _LEAST_JUDGED_BYTES:
        return None
    grown = before_free - after_free
    if grown >= _LEAST_GROWTH * loaded_bytes:
        return None
    return (
        f"loading {loaded_bytes} bytes took only {grown} bytes of the memory of {device.name} "
        f"({device.key}): the engine runs on another device; check what the *_VISIBLE_DEVICES variables "
        "leave visible"
    )


def _only(
    device: Device, entries: Sequence[Mapping[str, Any]], by: Literal["uuid", "pci_address"]
) -> EngineDevice | str:
    if len(entries) == 1:
        return EngineDevice(str(entries[0]["device"]), by)
    names = ", ".join(str(entry["device"]) for entry in entries)
    variable = "ROCR_VISIBLE_DEVICES" if device.backend == "rocm" else "CUDA_VISIBLE_DEVICES"
    return f"sees {names} where this is one device; it is split: leave one part visible with {variable}"


def _by_position(device: Device, candidates: Sequence[Mapping[str, Any]]) -> EngineDevice | str | None:
    """Take the device at the same place, if nothing else can be known and both sides see equally many."""
    place, count = device.details.get("engine_position"), device.details.get("engine_devices")
    if not isinstance(place, int) or not isinstance(count, int):
        return None
    if any(trusted_uuid(entry.get("uuid"), ())[0] or entry.get("pci_address") for entry in candidates):
        return None
    if len(candidates) != count:
        return f"sees {len(candidates)} such devices where aiprof sees {count}: which is which is not known"
    return EngineDevice(str(candidates[place]["device"]), "position")


def _partition_uuids(device: Device) -> list[str]:
    known = device.details.get("partition_uuids")
    return [str(uuid) for uuid in known] if isinstance(known, list) else []


def _kind(entry: Mapping[str, Any]) -> str:
    return str(entry["device"]).partition(":")[0]


def _bare(uuid: str) -> str:
    """Return the UUID without the vendor's prefix, which PyTorch leaves out."""
    return re.sub(r"^(gpu|mig)-", "", uuid.lower())
