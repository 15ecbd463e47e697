"""What the kernel says of a device's place on the PCI bus: link, NUMA node and virtual functions.

Files: ``Documentation/ABI/testing/sysfs-bus-pci`` of Linux.
"""

from __future__ import annotations

import re

from profiler.backends.base import Json
from profiler.backends.tree import Tree

# Transfer rate per lane in GT/s -> generation of PCI Express.
_GENERATIONS = {2.5: 1, 5.0: 2, 8.0: 3, 16.0: 4, 32.0: 5, 64.0: 6}
_FILES = {
    "pcie_generation": "current_link_speed",
    "pcie_generation_max": "max_link_speed",
    "pcie_lanes": "current_link_width",
    "pcie_lanes_max": "max_link_width",
    "numa_node": "numa_node",
}


def pcie_facts(tree: Tree, folder: str) -> tuple[dict[str, Json], dict[str, Json]]:
    """Return the facts of a PCI device, and for each fact that is None the reason.

    An idle device may have slowed its link down: ``pcie_generation`` is that of the moment,
    ``pcie_generation_max`` what device and slot can do.

    Args:
        tree: the machine.
        folder: the device's directory, ``/sys/bus/pci/devices/0000:c1:00.0``.
    """
    facts: dict[str, Json] = {}
    for key, name in _FILES.items():
        path = f"{folder}/{name}"
        if "generation" in key:
            facts[key] = generation(tree.text(path))
        else:
            number = tree.integer(path)
            # The kernel writes 0 or 255 lanes where there is no link, and node -1 where there are no nodes.
            least = 0 if key == "numa_node" else 1
            facts[key] = number if number is not None and least <= number < 255 else None
    unknown: dict[str, Json] = {
        key: tree.why(f"{folder}/{name}") for key, name in _FILES.items() if facts[key] is None
    }
    facts["sriov"] = sriov(tree, folder)
    return facts, unknown


def sriov(tree: Tree, folder: str) -> str | None:
    """Return ``virtual function`` or ``split into N virtual functions``, or None for a whole device."""
    if tree.exists(f"{folder}/physfn"):
        return "virtual function"
    count = tree.integer(f"{folder}/sriov_numvfs")
    return f"split into {count} virtual functions" if count else None


def generation(speed: str | None) -> int | None:
    """Return the generation that ``32.0 GT/s PCIe`` stands for, or None."""
    match = re.match(r"(\d+(?:\.\d+)?) GT/s", speed or "")
    return _GENERATIONS.get(float(match[1])) if match else None
