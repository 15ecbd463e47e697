"""How NVIDIA GPUs are linked: NVLink to each other or to switches, else through PCI Express."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from profiler.backends.base import Unavailable
from profiler.backends.cuda_gpus import Gpu, answer_or_none, text
from profiler.backends.identity import normal_pci
from profiler.backends.links import CPU, SWITCH, Link, counted
from profiler.sensors.nvml import Nvml

_MAX_LINKS = 36  # NVML_NVLINK_MAX_LINKS
_FIELD_SPEED = 90  # NVML_FI_DEV_NVLINK_SPEED_MBPS_COMMON: of one link, in one direction
_TO_CPU, _TO_SWITCH = 1, 2  # nvmlIntNvLinkDeviceType_t
# nvmlNvlinkVersion_t
_VERSIONS = {1: "1", 2: "2", 3: "2.2", 4: "3", 5: "3.1", 6: "4", 7: "5", 8: "6"}
# nvmlGpuTopologyLevel_t
_PATHS = {10: "same switch", 20: "several switches", 30: "host bridge", 40: "same CPU", 50: "between CPUs"}


def gpu_links(nvml: Nvml, gpu: Gpu, gpus: Sequence[Gpu]) -> list[Link] | Unavailable:
    """Return the active NVLinks of a GPU, and its PCIe paths to GPUs that no NVLink reaches.

    A MIG instance has no links: peers cannot be addressed from inside it.
    """
    if gpu.parent_uuid:
        return Unavailable("mig_instance", "a MIG instance reaches no other GPU")
    links = counted(_nvlinks(nvml, gpu, gpus))
    reached = {link.peer for link in links}
    # Behind a switch every GPU with links to it is reached.
    others = [] if SWITCH in reached else [other for other in gpus if other.key not in {gpu.key, *reached}]
    for other in others:
        level = answer_or_none(nvml, "nvmlDeviceGetTopologyCommonAncestor", gpu.handle, other.handle)
        if level in _PATHS and not other.parent_uuid:
            links.append(Link("pcie", other.key, path=_PATHS[level]))
    return links


def _nvlinks(nvml: Nvml, gpu: Gpu, gpus: Sequence[Gpu]) -> Iterator[Link]:
    by_address = {other.pci_address: other.key for other in gpus}
    active = [
        number
        for number in range(_MAX_LINKS)
        if answer_or_none(nvml, "nvmlDeviceGetNvLinkState", gpu.handle, number) == 1
    ]
    speed = _speed_bytes_per_s(nvml, gpu) if active else None
    for number in active:
        kind = answer_or_none(nvml, "nvmlDeviceGetNvLinkRemoteDeviceType", gpu.handle, number)
        version = answer_or_none(nvml, "nvmlDeviceGetNvLinkVersion", gpu.handle, number)
        peer = {_TO_CPU: CPU, _TO_SWITCH: SWITCH}.get(kind)
        if peer is None:
            info = answer_or_none(nvml, "nvmlDeviceGetNvLinkRemotePciInfo", gpu.handle, number)
            address = normal_pci(text(getattr(info, "busId", "")) or "")
            peer = by_address.get(address, address) or "unknown"
        yield Link("nvlink", peer, generation=_VERSIONS.get(version), bandwidth_bytes_per_s=speed)


def _speed_bytes_per_s(nvml: Nvml, gpu: Gpu) -> float | None:
    values = nvml.ask("nvmlDeviceGetFieldValues", gpu.handle, [(_FIELD_SPEED, 0)])
    if isinstance(values, Unavailable) or values[0].nvmlReturn != 0 or not values[0].value.uiVal:
        return None
    return float(values[0].value.uiVal) * 1e6
