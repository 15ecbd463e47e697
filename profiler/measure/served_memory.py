"""What a server that was started here holds: its processes, the devices and the box."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from profiler.backends.base import Backend, Device, Unavailable
from profiler.backends.cpu import CpuBackend
from profiler.backends.tree import parse_fields
from profiler.measure.memory import of_each, of_fullest
from profiler.measure.sensing import Sensing
from profiler.results.schema import MemoryReadings

NO_PEAK = "a server does not tell the peak of its allocator"


class ServedMemory:
    """The memory of one start: :meth:`sample` before the load and after it, then :meth:`readings`.

    Args:
        backend: of the devices.
        devices: all that the server takes; the sampler's reads of the first count.
    """

    def __init__(self, backend: Backend, devices: Sequence[Device]) -> None:
        self._backend = backend
        self._devices = devices
        self._used: dict[str, list[int]] = {device.key: [] for device in devices}
        self._host: list[int] = []
        self._began_ns = time.monotonic_ns()

    def sample(self) -> None:
        """Read what is in use of the devices and of the box."""
        for device in self._devices:
            memory = self._backend.memory(device)
            if not isinstance(memory, Unavailable):
                self._used[device.key].append(memory.total_bytes - memory.free_bytes)
        host = CpuBackend().host_memory()
        if not isinstance(host, Unavailable):
            self._host.append(host.total_bytes - host.free_bytes)

    def readings(
        self,
        how: Mapping[str, Any],
        processes: Sequence[psutil.Process],
        cache_tokens: int | None,
        sensing: Sensing,
    ) -> MemoryReadings:
        """Return everything that is known, for the record.

        Args:
            how: the worker's answer to ``server``: bytes of the weights and of the cache of a token.
            processes: of the server, still alive.
            cache_tokens: that the server says it has room for, or None.
            sensing: whose sampler polled the memory of the device meanwhile.
        """
        free = [self._backend.memory(device) for device in self._devices]
        known = [one.free_bytes for one in free if not isinstance(one, Unavailable)]
        fills = how.get("fills_memory") is True
        polled = sensing.memory_in_use(self._devices[0], self._began_ns)
        return MemoryReadings(
            weights_bytes=how["weights_bytes"],
            kv_cache_bytes=(cache_tokens or 0) * how["kv_token_bytes"],
            kv_cache_tokens=cache_tokens,
            peak_engine_bytes=None,
            no_peak_reason=NO_PEAK,
            peak_process_bytes=_added(processes, "peak"),
            peak_process_source="VmHWM of each, added up; what they share counts in each",
            process_rss_bytes=_added(processes, "rss"),
            device_free_bytes=min(known, default=None),
            kv_capacity_tokens=cache_tokens if fills else None,
            device_used_bytes=of_fullest(self._used),
            per_device_used_bytes=of_each(self._used),
            host_used_bytes=tuple(self._host),
            polled_device_bytes=None if polled is None else polled.most_bytes,
            polled_device_reads=0 if polled is None else polled.reads,
            polled_device_sensor=None if polled is None else polled.sensor,
        )


def largest(processes: Sequence[psutil.Process]) -> int:
    """Return the process that holds most memory: the one that computes."""
    sizes = {process.pid: _bytes_of(process, "rss") or 0 for process in processes}
    return max(sizes, key=lambda pid: sizes[pid], default=os.getpid())


def _added(processes: Sequence[psutil.Process], what: str) -> int | None:
    found = [size for process in processes if (size := _bytes_of(process, what)) is not None]
    return sum(found) if found else None


def _bytes_of(process: psutil.Process, what: str) -> int | None:
    """Return a process's resident set, or its peak (``VmHWM``, which psutil has on Windows only)."""
    try:
        if what == "rss":
            return int(process.memory_info().rss)
        status = parse_fields(Path(f"/proc/{process.pid}/status").read_text())
        return int(status["VmHWM"].split()[0]) * 1024
    except (psutil.Error, OSError, ValueError, LookupError):
        return None  # it has just ended
