"""Which devices a device is linked to, and how: NVLink, xGMI, HCCS, or only PCI Express.

Kept in ``details["links"]`` of a device: a list of links with equal peers counted together. Which of two
peers shares a link decides how fast a model that is split over both can be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace

from profiler.backends.base import Json

SWITCH = "switch"
CPU = "cpu"


@dataclass(frozen=True)
class Link:
    """Links of one kind to one peer.

    Attributes:
        kind: ``nvlink``, ``xgmi``, ``hccs``, ``sio`` or ``pcie``.
        peer: key of the device at the other end, its PCI address where it is none of ours, ``switch`` or
            ``cpu``.
        count: how many links there are.
        generation: version of the link as the driver says it, or None.
        bandwidth_bytes_per_s: of one of them in one direction as the driver says it, or None.
        path: what lies between, for ``pcie``: ``same switch``, ``several switches``, ``host bridge``,
            ``between CPUs``, or None.
    """

    kind: str
    peer: str
    count: int = 1
    generation: str | None = None
    bandwidth_bytes_per_s: float | None = None
    path: str | None = None


def counted(links: Iterable[Link]) -> list[Link]:
    """Return the links with equal ones counted together, in the order in which they first came."""
    counts: Counter[Link] = Counter()
    for link in links:
        counts[replace(link, count=1)] += link.count
    return [replace(link, count=count) for link, count in counts.items()]


def as_json(links: Iterable[Link]) -> list[Json]:
    """Return links as they are kept in a device's details."""
    return [asdict(link) for link in links]


def sentence(links: Iterable[Mapping[str, object]]) -> str:
    """Return links from a device's details in words, ``18 × NVLink 4 to a switch; PCIe to …``."""
    return "; ".join(_words(link) for link in links)


_NAMES = {"nvlink": "NVLink", "xgmi": "xGMI", "hccs": "HCCS", "sio": "SIO", "pcie": "PCIe"}


def _words(link: Mapping[str, object]) -> str:
    kind = _NAMES.get(str(link["kind"]), str(link["kind"]))
    if link["generation"]:
        kind = f"{kind} {link['generation']}"
    times = f"{link['count']} × " if link["count"] != 1 else ""
    peer = {SWITCH: "a switch", CPU: "the CPU"}.get(str(link["peer"]), str(link["peer"]))
    rate = link["bandwidth_bytes_per_s"]
    each = " each" if times else ""
    speed = f" at {rate / 1e9:.1f} GB/s{each}" if isinstance(rate, (int, float)) and rate else ""
    path = f" ({link['path']})" if link["path"] else ""
    return f"{times}{kind} to {peer}{speed}{path}"
