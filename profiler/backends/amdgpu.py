"""AMD GPUs as the kernel driver ``amdgpu`` shows them in ``/sys`` and ``/sys/class/kfd``.

File names and units: ``Documentation/gpu/amdgpu`` of Linux (memory in bytes, hwmon in uW, mdegC, Hz)
and ``kfd_topology.c`` for the compute nodes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from profiler.backends.base import Json
from profiler.backends.identity import normal_pci
from profiler.backends.links import CPU, Link, counted
from profiler.backends.pcie import pcie_facts
from profiler.backends.tree import Tree, parse_fields, whole_number

_VENDOR = "0x1002"
_KFD = "/sys/class/kfd/kfd/topology/nodes"
_LINK_TYPES = {"2": "pcie", "11": "xgmi"}


@dataclass(frozen=True)
class Card:
    """One AMD GPU with a loaded driver.

    Attributes:
        path: its directory, ``/sys/class/drm/cardN/device``.
        pci_address: ``0000:c1:00.0``.
        uuid: ``GPU-`` + 16 hex digits as HIP spells it, or None where the chip has no number.
    """

    path: str
    pci_address: str
    uuid: str | None


@dataclass(frozen=True)
class Node:
    """One compute node of the kernel driver; a partitioned GPU has several.

    Attributes:
        pci_address: of the GPU.
        target: LLVM's name of its instruction set, ``gfx942``.
        number: the node's number in the driver's topology, or None where that is not shown.
        uuid: ``GPU-`` + 16 hex digits; newer drivers give each partition its own.
    """

    pci_address: str
    target: str | None
    number: int | None = None
    uuid: str | None = None


def find_cards(tree: Tree) -> list[Card]:
    """Return the AMD GPUs in order of their PCI address."""
    cards: dict[str, Card] = {}
    for path in tree.glob("/sys/class/drm/card*/device"):
        if not re.search(r"/card\d+/", path) or tree.text(f"{path}/vendor") != _VENDOR:
            continue
        address = normal_pci(parse_fields(tree.text(f"{path}/uevent") or "", "=").get("PCI_SLOT_NAME", ""))
        if address is None:
            continue
        number = (tree.text(f"{path}/unique_id") or "").lower().removeprefix("0x")
        uuid = f"GPU-{number.rjust(16, '0')}" if re.fullmatch(r"[0-9a-f]{1,16}", number) else None
        cards.setdefault(address, Card(path, address, uuid))
    return [cards[address] for address in sorted(cards)]


def find_nodes(tree: Tree) -> list[Node]:
    """Return the compute nodes in the driver's order, which is that of ROCR_VISIBLE_DEVICES."""
    nodes = []
    for path in tree.glob(f"{_KFD}/*"):
        fields = {
            key: number
            for key, value in parse_fields(tree.text(f"{path}/properties") or "", " ").items()
            if (number := whole_number(value)) is not None
        }
        if not fields.get("simd_count") or "location_id" not in fields:
            continue  # a CPU, or a GPU that the container may not use
        domain, location = fields.get("domain", 0), fields["location_id"]
        bus, device, function = location >> 8 & 0xFF, location >> 3 & 0x1F, location & 7
        address = f"{domain:04x}:{bus:02x}:{device:02x}.{function}"
        unique = fields.get("unique_id", 0)
        uuid = f"GPU-{unique:016x}" if unique else None
        number = whole_number(path.rpartition("/")[2])
        nodes.append(Node(address, _target(fields.get("gfx_target_version", 0)), number, uuid))
    return nodes


def compute_numbers(tree: Tree, card: Card) -> list[int]:
    """Return the ids (``gpu_id``) by which the compute driver knows a GPU; a partitioned one has several."""
    numbers = [
        tree.integer(f"{_KFD}/{node.number}/gpu_id")
        for node in find_nodes(tree)
        if node.pci_address == card.pci_address and node.number is not None
    ]
    return [number for number in numbers if number]


def find_links(tree: Tree, node: Node, nodes: Sequence[Node]) -> list[Link]:
    """Return the links of a compute node to other nodes, xGMI and PCIe.

    ``io_links`` of ``kfd_topology.c``: type 11 is xGMI and 2 PCI Express, bandwidth in MB/s in one direction
    (0 where the driver does not know it); node numbers that are no GPU's are CPUs.
    """
    by_number = {other.number: other.pci_address for other in nodes}
    links = []
    for folder in ("io_links", "p2p_links"):
        for path in tree.glob(f"{_KFD}/{node.number}/{folder}/*"):
            fields = parse_fields(tree.text(f"{path}/properties") or "", " ")
            kind = _LINK_TYPES.get(fields.get("type", ""))
            peer = whole_number(fields.get("node_to"))
            if kind is None or peer is None:
                continue
            rate = whole_number(fields.get("max_bandwidth"))
            bandwidth = rate * 1e6 if rate else None
            address = by_number.get(peer, CPU)
            if address != node.pci_address:
                links.append(Link(kind, address, bandwidth_bytes_per_s=bandwidth))
    return counted(links)


def _target(version: int) -> str | None:
    """90402 is gfx942, 110000 is gfx1100: decimal major, then minor and stepping as hex digits."""
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}" if version else None


def marketing_name(tree: Tree, card: Card) -> str:
    """Return the product's name from the board, else from libdrm's or the PCI ID list."""
    product = tree.text(f"{card.path}/product_name")
    if product:
        return product
    device = (tree.text(f"{card.path}/device") or "").removeprefix("0x").lower()
    revision = tree.text(f"{card.path}/revision") or ""
    for folder in ("/usr/share/libdrm", "/opt/amdgpu/share/libdrm"):
        for line in (tree.text(f"{folder}/amdgpu.ids") or "").splitlines():
            fields = [field.strip() for field in line.split(",", 2)]
            if len(fields) == 3 and (fields[0].lower(), _bare(fields[1])) == (device, _bare(revision)):
                return fields[2]
    return _pci_name(tree, device) or f"AMD GPU [1002:{device or '?'}]"


def _bare(number: str) -> str:
    """``0x0A`` and ``a`` are the same revision."""
    return number.lower().removeprefix("0x").lstrip("0")


def _pci_name(tree: Tree, device: str) -> str | None:
    for folder in ("/usr/share/misc", "/usr/share/hwdata"):
        of_amd = False
        for line in (tree.text(f"{folder}/pci.ids") or "").splitlines():
            if line[:4].strip() and not line.startswith(("#", "\t")):
                of_amd = line.lower().startswith("1002 ")
            elif of_amd and line.startswith(f"\t{device} "):
                return "AMD " + line.split(None, 1)[1].strip()
    return None


def sensor_file(tree: Tree, card: Card, *names: str) -> str | None:
    """Return the first of the hwmon files that holds a number, or None."""
    for folder in tree.glob(f"{card.path}/hwmon/hwmon*"):
        for name in names:
            if tree.integer(f"{folder}/{name}") is not None:
                return f"{folder}/{name}"
    return None


def memory_bytes(tree: Tree, card: Card) -> tuple[int, int] | None:
    """Return (total, used) of the GPU's own memory, or None when the driver does not say."""
    total = tree.integer(f"{card.path}/mem_info_vram_total")
    used = tree.integer(f"{card.path}/mem_info_vram_used")
    return (total, used) if total and used is not None and used <= total else None


def card_facts(tree: Tree, card: Card) -> tuple[dict[str, Json], dict[str, Json]]:
    """Return the facts of a GPU, and for each fact that is None the reason."""
    power_cap = sensor_file(tree, card, "power1_cap")
    microwatts = tree.integer(power_cap) if power_cap else None
    facts: dict[str, Json] = {
        "power_limit_w": microwatts * 1e-6 if microwatts else None,
        "gtt_total_bytes": tree.integer(f"{card.path}/mem_info_gtt_total"),
        "compute_partition": tree.text(f"{card.path}/current_compute_partition"),
        "memory_partition": tree.text(f"{card.path}/current_memory_partition"),
        "vbios_version": tree.text(f"{card.path}/vbios_version"),
        "pci_id": f"1002:{(tree.text(f'{card.path}/device') or '?').removeprefix('0x')}",
    }
    files = {
        "gtt_total_bytes": "mem_info_gtt_total",
        "compute_partition": "current_compute_partition",
        "memory_partition": "current_memory_partition",
        "vbios_version": "vbios_version",
    }
    unknown: dict[str, Json] = {
        key: tree.why(f"{card.path}/{name}") for key, name in files.items() if facts[key] is None
    }
    if facts["power_limit_w"] is None:
        unknown["power_limit_w"] = f"there is no power1_cap in {card.path}/hwmon"
    on_bus, missing = pcie_facts(tree, card.path)
    return {**facts, **on_bus}, {**unknown, **missing}
