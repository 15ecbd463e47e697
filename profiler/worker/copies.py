"""How fast memory is copied: within a device, between it and the host, and between two devices."""

from __future__ import annotations

from typing import Any, Dict

import torch

from . import bandwidth, timed, torch_devices
from .protocol import EngineError

COPY_METHOD = (
    "bytes read plus bytes written; fastest of: copy; copy of four parts alternating every 64 KiB (float32)"
)
LINK_METHOD = "bytes moved by one copy after the other, host memory pinned"
LINK_METHOD_PAGEABLE = "bytes moved by one copy after the other, host memory pageable"
PEER_METHOD = "bytes moved by one copy after the other between two devices of one process"
_READING_S = 0.05


def copy_bandwidth(device: Any, minimum_bytes: int, repeats: int) -> Dict[str, Any]:
    """Copy a buffer on ``device`` into another one.

    A processor that reads a line before it overwrites it moves half as much again; that is not counted,
    as nobody asked for it.

    Args:
        device: a ``torch.device``.
        minimum_bytes: of each of both buffers; larger where the caches ask for it.
        repeats: values wanted.

    Returns:
        ``bytes_per_s`` (one per repeat, the fastest way), ``method``, ``buffer_bytes``.

    Raises:
        EngineError: ``out_of_memory`` when both buffers would take more than half of what is free.
    """
    size = bandwidth.buffer_bytes(device, minimum_bytes)
    _require_free(device, 2 * size)
    source = torch.ones(size // 4, dtype=torch.float32, device=device)
    target = torch.zeros_like(source)
    parts = source.view(4, -1, bandwidth.BLOCK).transpose(0, 1), target.view(4, -1, bandwidth.BLOCK)
    ways = {
        "copy": lambda: target.copy_(source),
        "four_parts": lambda: parts[1].transpose(0, 1).copy_(parts[0]),
    }
    rates = timed.fastest_rates(ways, dict.fromkeys(ways, 2.0 * size), device, repeats, _READING_S)
    return {"bytes_per_s": rates, "method": COPY_METHOD, "buffer_bytes": size}


def host_link(device: Any, size: int, repeats: int, to_device: bool) -> Dict[str, Any]:
    """Copy ``size`` bytes between the host's memory and ``device``.

    Raises:
        EngineError: ``unsupported`` for a CPU, whose memory is the host's; ``out_of_memory``.
    """
    if device.type == "cpu":
        raise EngineError("unsupported", "a CPU has no link to the host: its memory is the host's")
    _require_free(device, size)
    host = torch.ones(size // 4, dtype=torch.float32)
    try:
        host, method = host.pin_memory(), LINK_METHOD
    except (RuntimeError, NotImplementedError):  # not every device's runtime can pin
        method = LINK_METHOD_PAGEABLE
    own = torch.ones(size // 4, dtype=torch.float32, device=device)
    target, source = (own, host) if to_device else (host, own)
    ways = {"copy": lambda: target.copy_(source, non_blocking=True)}
    rates = timed.fastest_rates(ways, {"copy": float(size)}, device, repeats, _READING_S)
    return {"bytes_per_s": rates, "method": method, "buffer_bytes": size}


def peer_link(device: Any, peer: Any, size: int, repeats: int) -> Dict[str, Any]:
    """Copy ``size`` bytes from ``device`` to ``peer``, directly where the driver allows it.

    Raises:
        EngineError: ``out_of_memory``.
    """
    _require_free(device, size)
    _require_free(peer, size)
    source = torch.ones(size // 4, dtype=torch.float32, device=device)
    target = torch.zeros(size // 4, dtype=torch.float32, device=peer)

    def copy() -> None:
        target.copy_(source)
        torch_devices.synchronize(peer)

    rates = timed.fastest_rates({"copy": copy}, {"copy": float(size)}, device, repeats, _READING_S)
    return {"bytes_per_s": rates, "method": PEER_METHOD, "buffer_bytes": size}


def _require_free(device: Any, size: int) -> None:
    _, free, source = torch_devices.memory_bytes(device)
    if free is not None and size > free // 2:
        raise EngineError(
            "out_of_memory", f"the probe would take {size} of {free} free bytes on {device} ({source})"
        )
