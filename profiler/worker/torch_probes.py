"""The probes of the torch engine by kind; see docs/architecture.md for the requests."""

from __future__ import annotations

from typing import Any, Dict

from . import bandwidth, collectives, copies, matrix_rate, torch_devices
from .protocol import EngineError

KINDS = (
    "read_bandwidth",
    "copy_bandwidth",
    "matrix_flops",
    "sustained_matrix_flops",
    "host_to_device",
    "device_to_host",
    "device_to_device",
    *collectives.KINDS,
)


def measure(device: Any, request: Dict[str, Any]) -> Dict[str, Any]:
    """Measure what the request's ``kind`` names.

    Args:
        device: a ``torch.device``.
        request: of the op ``probe``.

    Returns:
        ``bytes_per_s`` or ``flops_per_s`` (one value per repeat) and ``method``.

    Raises:
        EngineError: ``unsupported``, ``bad_request``, ``device``, ``out_of_memory``.
    """
    kind = request["kind"]
    if kind == "read_bandwidth":
        return bandwidth.read_bandwidth(device, _count(request, "bytes"), _count(request, "repeats"))
    if kind == "copy_bandwidth":
        return copies.copy_bandwidth(device, _count(request, "bytes"), _count(request, "repeats"))
    if kind == "matrix_flops":
        return matrix_rate.matrix_flops(device, request["format"], _count(request, "repeats"))
    if kind == "sustained_matrix_flops":
        return matrix_rate.sustained_matrix_flops(device, request["format"], float(request["seconds"]))
    if kind in ("host_to_device", "device_to_host"):
        sizes = _count(request, "bytes"), _count(request, "repeats")
        return copies.host_link(device, *sizes, to_device=kind == "host_to_device")
    if kind == "device_to_device":
        peer = torch_devices.require(request["peer"])
        return copies.peer_link(device, peer, _count(request, "bytes"), _count(request, "repeats"))
    if kind in collectives.KINDS:
        return collectives.collective(device, request)
    raise EngineError("unsupported", f"the torch engine has no probe {kind!r}, only {', '.join(KINDS)}")


def _count(request: Dict[str, Any], field: str) -> int:
    value = request.get(field)
    if type(value) is not int or value < 1:
        raise EngineError("bad_request", f"{field} must be a whole number above 0, not {value!r}")
    return value
