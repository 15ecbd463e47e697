"""Rates of something that can be repeated on a device: how often to do it, and how long that took."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List

from . import torch_devices

Way = Callable[[], Any]


def passes_for(work: Way, device: Any, seconds: float) -> int:
    """Return how often to do ``work`` so that a reading takes about ``seconds``; also warms it up."""
    elapsed_s(work, 1, device)
    return max(1, round(seconds / max(elapsed_s(work, 1, device), 1e-9)))


def elapsed_s(work: Way, passes: int, device: Any) -> float:
    """Return the seconds that ``passes`` of ``work`` take until the device has done them all."""
    torch_devices.synchronize(device)
    start = time.perf_counter_ns()
    for _ in range(passes):
        work()
    torch_devices.synchronize(device)
    return (time.perf_counter_ns() - start) / 1e9


def fastest_rates(
    ways: Dict[str, Way], amounts: Dict[str, float], device: Any, repeats: int, seconds: float
) -> List[float]:
    """Do the same in several ways in turn, again and again.

    Args:
        ways: what to do, by name.
        amounts: bytes or operations of one pass of each.
        device: what to wait for.
        repeats: values wanted.
        seconds: length of one reading.

    Returns:
        One rate per repeat: that of the fastest way in it.
    """
    passes = {name: passes_for(way, device, seconds) for name, way in ways.items()}
    return [
        max(
            amounts[name] * passes[name] / max(elapsed_s(way, passes[name], device), 1e-9)
            for name, way in ways.items()
        )
        for _ in range(repeats)
    ]
