"""AMD GPUs, through the files of the kernel driver, and ``amdsmi`` for energy."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from profiler.backends.amdgpu import (
    Card,
    Node,
    card_facts,
    find_cards,
    find_links,
    find_nodes,
    marketing_name,
    memory_bytes,
    sensor_file,
)
from profiler.backends.base import (
    BackendReport,
    Capability,
    CapabilityName,
    Device,
    DeviceMemory,
    Json,
    Unavailable,
)
from profiler.backends.identity import trusted_uuid
from profiler.backends.links import Link, as_json
from profiler.backends.tree import Tree
from profiler.backends.visible import Visible, rocm_visible
from profiler.sensors.amd_states import throttle_status
from profiler.sensors.amdsmi import AmdSmi
from profiler.sensors.box import sensor_root

_GROUPS = "add yourself to the groups render and video, then log in again"


class RocmBackend:
    """The backend ``rocm``.

    Args:
        root: where ``/sys`` and ``/dev`` are; by default ``AIPROF_SYSFS_ROOT``, else ``/``. GPUs of any other
            root than ``/`` are simulated.
        environment: where ``ROCR_VISIBLE_DEVICES`` and the like are read from; default ``os.environ``.
    """

    name = "rocm"
    verified = "never run on real hardware"

    def __init__(self, root: Path | None = None, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment
        self._tree = Tree(root or Path(sensor_root()))
        self._amdsmi = AmdSmi()

    def report(self) -> BackendReport:
        """Discover the GPUs that ROCm programs started from here will see."""
        cards = find_cards(self._tree)
        unavailable = self._unusable(cards)
        if unavailable is not None:
            return BackendReport(self.name, (), unavailable, self.verified)
        nodes = find_nodes(self._tree) or [Node(card.pci_address, None) for card in cards]
        by_address = {card.pci_address: card for card in cards}
        nodes = [node for node in nodes if node.pci_address in by_address]
        visible = rocm_visible(
            self._environment,
            [(uuid,) if (uuid := by_address[node.pci_address].uuid) else () for node in nodes],
        )
        order = list(dict.fromkeys(nodes[position].pci_address for position in visible.order))
        devices = tuple(
            self._describe(by_address[address], ordinal, cards, nodes)
            for ordinal, address in enumerate(order)
        )
        facts: dict[str, Json] = {**self._versions(), "notes": [*self._notes(visible)]}
        unavailable = None if devices else self._why_hidden(nodes, visible)
        return BackendReport(self.name, devices, unavailable, self.verified, facts)

    def memory(self, device: Device) -> DeviceMemory | Unavailable:
        """Read the GPU's own memory; what an APU borrows from the system is not in it."""
        card = self._find(device)
        if isinstance(card, Unavailable):
            return card
        memory = memory_bytes(self._tree, card)
        if memory is None:
            why = self._tree.why(f"{card.path}/mem_info_vram_total")
            return Unavailable("unreadable", f"memory: {why}")
        total, used = memory
        return DeviceMemory(total, total - used, "sysfs:mem_info_vram")

    def capabilities(self, device: Device) -> tuple[Capability, ...]:
        """Try each kind of reading once."""
        card = self._find(device)
        if isinstance(card, Unavailable):
            return tuple(Capability(name, None, card) for name in get_args(CapabilityName))
        memory, energy = self.memory(device), self._amdsmi.energy_count(card.pci_address)
        throttling = throttle_status(self._tree, card)
        return (
            Capability("memory", "sysfs:mem_info_vram", None)
            if isinstance(memory, DeviceMemory)
            else Capability("memory", None, memory),
            Capability("energy", None, energy)
            if isinstance(energy, Unavailable)
            else Capability("energy", "amdsmi:energy_accumulator (socket)", None),
            # Most chips have one of the two; which one depends on chip and kernel.
            self._sensor("power", card, "power1_average", "power1_input"),
            self._sensor("clocks", card, "freq1_input"),
            self._sensor("temperature", card, "temp2_input", "temp1_input"),
            Capability("throttling", None, throttling)
            if isinstance(throttling, Unavailable)
            else Capability("throttling", "sysfs:gpu_metrics", None),
        )

    def _sensor(self, kind: CapabilityName, card: Card, *names: str) -> Capability:
        found = sensor_file(self._tree, card, *names)
        if found:
            return Capability(kind, f"hwmon:{found.rpartition('/')[2]}", None)
        text = f"this GPU's hwmon has no {' or '.join(names)}"
        return Capability(kind, None, Unavailable("not_supported_by_device", text))

    def _find(self, device: Device) -> Card | Unavailable:
        for card in find_cards(self._tree):
            if card.pci_address == device.pci_address:
                return card
        return Unavailable("lost", f"the GPU {device.key} is not there")

    def _describe(self, card: Card, ordinal: int, cards: Sequence[Card], nodes: Sequence[Node]) -> Device:
        uuid, note = trusted_uuid(card.uuid, [other.uuid for other in cards])
        own = [node for node in nodes if node.pci_address == card.pci_address]
        facts, unknown = card_facts(self._tree, card)
        facts["target"] = own[0].target if own else None
        if facts["target"] is None:
            unknown["target"] = "there is no /sys/class/kfd for this GPU"
        facts["partition_uuids"] = list(dict.fromkeys(node.uuid for node in own if node.uuid))
        if own and own[0].number is not None:
            facts["links"] = as_json(self._links(own[0], cards, nodes))
        else:
            facts["links"], unknown["links"] = None, unknown.get("target")
        notes = [note] if note else []
        if len(own) > 1:
            notes.append(
                f"the GPU is split into {len(own)} partitions; memory and sensors are those of the whole GPU"
            )
        memory = memory_bytes(self._tree, card)
        if memory is None:
            unknown["memory_total_bytes"] = self._tree.why(f"{card.path}/mem_info_vram_total")
        return Device(
            key=uuid or card.pci_address,
            backend=self.name,
            ordinal=ordinal,
            name=marketing_name(self._tree, card),
            memory_total_bytes=memory[0] if memory else None,
            uuid=uuid,
            pci_address=card.pci_address,
            simulated=self._tree.root != Path("/"),
            details={**facts, "notes": [*notes], "unknown": unknown},
        )

    def _links(self, node: Node, cards: Sequence[Card], nodes: Sequence[Node]) -> list[Link]:
        """Name the GPUs at the other ends as they are named everywhere else."""
        uuids = [card.uuid for card in cards]
        keys = {card.pci_address: trusted_uuid(card.uuid, uuids)[0] for card in cards}
        links = find_links(self._tree, node, nodes)
        return [replace(link, peer=keys.get(link.peer) or link.peer) for link in links]

    def _notes(self, visible: Visible) -> list[str]:
        notes = [visible.note] if visible.note else []
        if self._environment.get("GPU_DEVICE_ORDINAL"):
            notes.append(
                "GPU_DEVICE_ORDINAL is set: it hides GPUs from OpenCL, and from HIP by AMD's manual but not "
                "by its code; an engine that sees other GPUs than these is refused"
            )
        return notes

    def _versions(self) -> dict[str, Json]:
        driver = self._tree.text("/sys/module/amdgpu/version")
        rocm = self._tree.text("/opt/rocm/.info/version")
        unknown: dict[str, Json] = {}
        if driver is None:
            unknown["driver_version"] = "the amdgpu of the kernel itself has no version of its own"
        if rocm is None:
            unknown["rocm_version"] = "there is no /opt/rocm/.info/version"
        kernel = self._tree.text("/proc/sys/kernel/osrelease")
        return {"driver_version": driver, "rocm_version": rocm, "kernel": kernel, "unknown": unknown}

    def _unusable(self, cards: Sequence[Card]) -> Unavailable | None:
        """Return why no AMD GPU of this box can compute from here, or None when one can."""
        tree = self._tree
        if not cards:
            for path in tree.glob("/sys/bus/pci/devices/*"):
                kind = tree.text(f"{path}/class") or ""
                # 0x03: display controllers; 0x12: processing accelerators (Instinct).
                if kind.startswith(("0x03", "0x12")) and tree.text(f"{path}/vendor") == "0x1002":
                    text = f"the AMD GPU at {path.rpartition('/')[2]} has no driver"
                    return Unavailable("driver_not_loaded", text, "sudo modprobe amdgpu")
            return Unavailable("no_device", "no AMD GPU found (no vendor 0x1002 in /sys/class/drm)")
        if not tree.exists("/dev/kfd"):
            text = f"{len(cards)} AMD GPU(s) are there, but /dev/kfd, which computing needs, is not"
            remedy = (
                "in a container: start it with --device /dev/kfd --device /dev/dri; else sudo modprobe amdgpu"
            )
            return Unavailable("no_device_node", text, remedy)
        if not os.access(tree.path("/dev/kfd"), os.R_OK | os.W_OK, effective_ids=True):
            return Unavailable("permission", "this user may not open /dev/kfd", _GROUPS)
        return None

    def _why_hidden(self, nodes: Sequence[Node], visible: Visible) -> Unavailable:
        if not nodes:
            return Unavailable("no_device", "the kernel's compute topology (/sys/class/kfd) lists no AMD GPU")
        remedy = "unset ROCR_VISIBLE_DEVICES, HIP_VISIBLE_DEVICES and CUDA_VISIBLE_DEVICES"
        return Unavailable("hidden", visible.note or "all GPUs are hidden", remedy)
