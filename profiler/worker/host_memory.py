"""Memory of this process and of the box it may use, from ``/proc`` and the control groups (Linux).

Everything is None where the system cannot say.
"""

from __future__ import annotations

import os
from typing import Any

from .control_groups import read_number, read_text, with_parents

# Of each version of control groups: limit, usage, and the field of memory.stat with unused page cache.
_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def status_bytes(field: str, path: str = "/proc/self/status") -> int | None:
    """Return a ``kB`` field such as ``VmRSS`` or ``VmHWM`` (or of ``/proc/meminfo``) in bytes."""
    try:
        with open(path) as file:
            for line in file:
                name, _, value = line.partition(":")
                if name == field:
                    return int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def reset_peak() -> bool:
    """Start ``VmHWM`` of this process again at its present size; False where the kernel refuses."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # Documentation/filesystems/proc.rst: resets the peak resident set size
    except OSError:
        return False
    return True


def available_bytes(proc: str = "/proc", cgroup: str = "/sys/fs/cgroup") -> tuple[int | None, str]:
    """Return what this process can still allocate without swapping, and where the number comes from.

    The smaller of ``MemAvailable`` and what every control group above this process leaves.
    """
    smallest, source = status_bytes("MemAvailable", os.path.join(proc, "meminfo")), "MemAvailable"
    for version, folder in with_parents("memory", proc, cgroup):
        limit_file, usage_file, cache = _FILES[version]
        limit = read_number(os.path.join(folder, limit_file))
        usage = read_number(os.path.join(folder, usage_file))
        if limit is None or usage is None:
            continue
        # Page cache that nobody uses is counted as usage, and is given up before anything fails.
        reclaimable = _stat(os.path.join(folder, "memory.stat"), cache)
        left = max(0, limit - max(0, usage - reclaimable))
        if smallest is None or left < smallest:
            smallest, source = left, "control group limit"
    return smallest, source


def of_this_process(proc: str = "/proc", cgroup: str = "/sys/fs/cgroup") -> dict[str, Any]:
    """Return what this process holds and held at most, as an engine answers ``memory``.

    The peak is that of its control group where the group is its own: that counts child processes and the
    page cache of its files, too. Any other group has the memory of strangers in it, and then the peak
    resident set of this process alone is taken (``VmHWM``, proc_pid_status(5)).
    """
    status = os.path.join(proc, "self", "status")
    peak_rss = status_bytes("VmHWM", status)
    group = _own_group_peak(proc, cgroup)
    peak, source = (peak_rss, "VmHWM") if group is None else group
    return {
        "process_rss_bytes": status_bytes("VmRSS", status),
        "peak_rss_bytes": peak_rss,
        "peak_process_bytes": peak,
        "peak_process_source": None if peak is None else source,
    }


def _own_group_peak(proc: str, cgroup: str) -> tuple[int, str] | None:
    """Return (peak, file) of the control group of this process, or None where others are in it."""
    for version, folder in with_parents("memory", proc, cgroup):
        name = "memory.peak" if version == 2 else "memory.max_usage_in_bytes"
        peak = read_number(os.path.join(folder, name))
        # Only the innermost group can be its own: parents hold whoever started it.
        if peak is not None and _holds_only_us(folder):
            return peak, f"{name} of its own control group"
        return None
    return None


def _holds_only_us(folder: str) -> bool:
    """Whether every process of a group and of the groups in it belongs to our process group."""
    own, seen = os.getpgrp(), False
    for path, _, files in os.walk(folder):
        if "cgroup.procs" not in files:
            return False
        for number in (read_text(os.path.join(path, "cgroup.procs")) or "").split():
            try:
                # 0 is how the kernel shows processes outside of the container; to getpgid it is ourselves.
                if number == "0" or os.getpgid(int(number)) != own:
                    return False
            except ProcessLookupError:  # it has ended meanwhile
                continue
            except (OSError, ValueError):
                return False
            seen = True
    return seen


def _stat(path: str, field: str) -> int:
    for line in (read_text(path) or "").splitlines():
        name, _, value = line.partition(" ")
        if name == field and value.isdigit():
            return int(value)
    return 0
