"""How fast this device reads its memory, with nothing but PyTorch.

One stream per thread understates a CPU's ceiling by up to a half, and which access pattern wins
differs between boxes and moments. So a buffer far larger than every cache is read in several ways in turn,
and each repeat reports the fastest of them.
"""

from __future__ import annotations

import glob
import time
from typing import Any, Callable

import torch

from . import torch_devices
from .protocol import EngineError

METHOD = "fastest of: sum; dot of two halves; sum over four parts alternating every 64 KiB (float32)"
BLOCK = 16384  # values; 64 KiB
_ALIGNMENT = 8 * BLOCK * 4
_CACHES = 4  # the buffer is at least so many times the last-level caches together
_ACCELERATOR_BYTES = 2 << 30
_SECONDS_PER_READING = 0.03


def read_bandwidth(device: Any, minimum_bytes: int, repeats: int) -> dict[str, Any]:
    """Read a buffer on ``device`` again and again.

    Args:
        device: a ``torch.device``.
        minimum_bytes: of the buffer; larger where the caches ask for it.
        repeats: values wanted; each takes about 0.1 s, more where one pass takes over 0.03 s.

    Returns:
        ``bytes_per_s`` (one per repeat), ``method``, ``variants`` (best value of each way of
        reading), ``buffer_bytes``.

    Raises:
        EngineError: ``out_of_memory`` when the buffer would take more than half of what is free.
    """
    size = buffer_bytes(device, minimum_bytes)
    _, free, source = torch_devices.memory_bytes(device)
    if free is not None and size > free // 2:
        raise EngineError(
            "out_of_memory", f"the probe would take {size} of {free} free bytes on {device} ({source})"
        )
    # Written, because memory that was only reserved is read from one cached page of zeros.
    buffer = torch.ones(size // 4, dtype=torch.float32, device=device)
    ways = _ways(buffer)
    passes = {name: _passes(read, device) for name, read in ways.items()}
    best = dict.fromkeys(ways, 0.0)
    values = []
    for _ in range(repeats):
        seconds = {name: _seconds(read, passes[name], device) for name, read in ways.items()}
        readings = {name: size * passes[name] / seconds[name] for name in ways}
        best = {name: max(best[name], value) for name, value in readings.items()}
        values.append(max(readings.values()))
    return {"bytes_per_s": values, "method": METHOD, "variants": best, "buffer_bytes": size}


def _ways(buffer: Any) -> dict[str, Callable[[], Any]]:
    half = buffer.numel() // 2
    parts = buffer.view(4, -1, BLOCK)
    return {
        "sum": buffer.sum,
        "dot": lambda: torch.dot(buffer[:half], buffer[half:]),
        "four_parts": lambda: parts.sum((0, 2)),
    }


def _passes(read: Callable[[], Any], device: Any) -> int:
    """Return how often to read so that a reading lasts long enough to be timed; also the warm-up."""
    _seconds(read, 1, device)
    return max(1, round(_SECONDS_PER_READING / _seconds(read, 1, device)))


def _seconds(read: Callable[[], Any], passes: int, device: Any) -> float:
    torch_devices.synchronize(device)
    start = time.perf_counter_ns()
    for _ in range(passes):
        read()
    torch_devices.synchronize(device)
    return (time.perf_counter_ns() - start) / 1e9


def buffer_bytes(device: Any, minimum_bytes: int) -> int:
    """Return how large a buffer must be so that caches do not answer for the memory of ``device``."""
    floor = _CACHES * last_level_cache_bytes() if device.type == "cpu" else _ACCELERATOR_BYTES
    return -(-max(minimum_bytes, floor, 1) // _ALIGNMENT) * _ALIGNMENT


def last_level_cache_bytes(root: str = "/sys/devices/system/cpu") -> int:
    """Return the bytes of all last-level caches together, 0 where the kernel does not say."""
    caches: dict[str, dict[int, int]] = {}
    for folder in glob.glob(f"{root}/cpu[0-9]*/cache/index*"):
        try:
            level, size, shared = (_read(f"{folder}/{name}") for name in ("level", "size", "shared_cpu_list"))
            if _read(f"{folder}/type") != "Instruction":
                caches.setdefault(shared, {})[int(level)] = int(size.rstrip("K")) * 1024
        except (OSError, ValueError):
            continue
    last = max((level for levels in caches.values() for level in levels), default=0)
    return sum(levels.get(last, 0) for levels in caches.values())


def _read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()
