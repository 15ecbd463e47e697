"""What the kernel says about the box at one moment, for comparing two moments.

One look costs a few small files below ``/proc`` and ``/sys`` (some milliseconds at most; see
``docs/method.md``), so it is made before and after the trials of a start and never inside one.
Formats: ``proc_stat(5)``, ``proc_pid_stat(5)``, ``Documentation/admin-guide/pm/cpufreq.rst``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from profiler.backends.cgroup import Throttling, read_throttling
from profiler.backends.tree import Tree, parse_cpu_list, parse_fields, whole_number

_CPUS = "/sys/devices/system/cpu"
_CLOCK_SOURCE = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
# Fields of /proc/PID/stat after the name, counted from the state (field 3 of the manual).
_PARENT, _MAJOR_FAULTS, _OWN_TIMES = 1, 9, slice(11, 15)


@dataclass(frozen=True)
class CpuTicks:
    """Time of the CPUs that the worker may use, in clock ticks, summed over them.

    Attributes:
        cpus: how many they are.
        busy: running anything, interrupts included.
        idle: running nothing, waiting for disks included.
        stolen: wanting to run while the hypervisor ran something else.
    """

    cpus: int
    busy: int
    idle: int
    stolen: int


@dataclass(frozen=True)
class BoxState:
    """A look at the box; what cannot be read here is None.

    Attributes:
        stamp_ns: CLOCK_MONOTONIC.
        suspended_ns: time that the machine has slept since boot.
        cpu: of the worker's CPUs.
        our_ticks: processor time of the conductor and all processes below it.
        throttling: by a CPU quota on the worker's control groups.
        swapped_pages: pages moved to or from swap since boot, on the whole machine.
        major_faults: times that the worker had to wait for a page from disk.
        clock_limits: what bounds the CPU's clock: ``name=value``.
        clock_source: what the kernel reads the time from.
        traced: ``worker`` and ``profiler`` if a debugger is attached to them.
    """

    stamp_ns: int
    suspended_ns: int | None
    cpu: CpuTicks | None
    our_ticks: int | None
    throttling: Throttling | None
    swapped_pages: int | None
    major_faults: int | None
    clock_limits: frozenset[str] | None
    clock_source: str | None
    traced: frozenset[str] | None


def read_box_state(tree: Tree, worker_pid: int, conductor_pid: int) -> BoxState:
    """Look at the box now.

    Args:
        tree: the file system with ``/proc`` and ``/sys``.
        worker_pid: the process that is measured.
        conductor_pid: this process; everything below it is not foreign.
    """
    return BoxState(
        stamp_ns=time.monotonic_ns(),
        suspended_ns=_suspended_ns(),
        cpu=_cpu_ticks(tree, worker_pid),
        our_ticks=_tree_ticks(tree, conductor_pid),
        throttling=read_throttling(tree, worker_pid),
        swapped_pages=_swapped_pages(tree),
        major_faults=_major_faults(tree, worker_pid),
        clock_limits=_clock_limits(tree),
        clock_source=tree.text(_CLOCK_SOURCE),
        traced=_traced(tree, {"worker": worker_pid, "profiler": conductor_pid}),
    )


def _suspended_ns() -> int | None:
    """CLOCK_BOOTTIME counts sleep and CLOCK_MONOTONIC does not."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return None if clock is None else time.clock_gettime_ns(clock) - time.monotonic_ns()


def _cpu_ticks(tree: Tree, worker_pid: int) -> CpuTicks | None:
    status = parse_fields(tree.text(f"/proc/{worker_pid}/status") or "")
    allowed = {f"cpu{number}" for number in parse_cpu_list(status.get("Cpus_allowed_list", ""))}
    cpus = busy = idle = stolen = 0
    for line in (tree.text("/proc/stat") or "").splitlines():
        name, *fields = line.split() or [""]
        times = [number for field in fields[:8] if (number := whole_number(field)) is not None]
        if name not in allowed or len(times) < 8:
            continue
        user, nice, system, resting, waiting, interrupt, soft, steal = times
        cpus += 1
        busy += user + nice + system + interrupt + soft
        idle += resting + waiting
        stolen += steal
    # Sandboxes that make up /proc write zeros.
    return CpuTicks(cpus, busy, idle, stolen) if busy + idle else None


def _stat(tree: Tree, pid: int) -> list[int] | None:
    """Return the fields of a process after its name, which may itself hold blanks and brackets.

    What is no unsigned number, such as the state, is 0.
    """
    _, found, rest = (tree.text(f"/proc/{pid}/stat") or "").rpartition(")")
    fields = [whole_number(field) or 0 for field in rest.split()]
    return fields if found and len(fields) > _OWN_TIMES.stop else None


def _tree_ticks(tree: Tree, root: int) -> int | None:
    """Return the processor time of a process and all below it, those that ended included."""
    if _stat(tree, root) is None:
        return None
    total = 0
    for pid in _descendants(tree, root):
        fields = _stat(tree, pid)
        total += sum(fields[_OWN_TIMES]) if fields else 0
    return total


def _descendants(tree: Tree, root: int) -> list[int]:
    if tree.exists(f"/proc/{root}/task/{root}/children"):

        def children(pid: int) -> Iterable[int]:
            for name in tree.glob(f"/proc/{pid}/task/*/children"):
                for child in (tree.text(name) or "").split():
                    number = whole_number(child)
                    yield from () if number is None else (number,)

        return _reached(root, children)
    # Kernels without CONFIG_PROC_CHILDREN: look at every process for its parent.
    below: dict[int, list[int]] = {}
    for pid in _numbers(tree):
        fields = _stat(tree, pid)
        if fields is not None:
            below.setdefault(fields[_PARENT], []).append(pid)
    return _reached(root, lambda pid: below.get(pid, ()))


def _reached(root: int, children: Callable[[int], Iterable[int]]) -> list[int]:
    """Return a process and all below it, each once, even if the files make a circle of them."""
    found, new = {root}, [root]
    while new:
        children_of_one = set(children(new.pop())) - found
        found |= children_of_one
        new += children_of_one
    return sorted(found)


def _numbers(tree: Tree) -> Iterable[int]:
    try:
        names = [whole_number(path.name) for path in tree.path("/proc").iterdir()]
        return [number for number in names if number is not None]
    except OSError:
        return []


def _swapped_pages(tree: Tree) -> int | None:
    counters = parse_fields(tree.text("/proc/vmstat") or "", " ")
    swapped_in, swapped_out = (whole_number(counters.get(name)) for name in ("pswpin", "pswpout"))
    return None if swapped_in is None or swapped_out is None else swapped_in + swapped_out


def _major_faults(tree: Tree, pid: int) -> int | None:
    fields = _stat(tree, pid)
    return None if fields is None else fields[_MAJOR_FAULTS]


def _clock_limits(tree: Tree) -> frozenset[str] | None:
    """Return the settings that bound the CPU's clock, each distinct value once."""
    found: set[str] = set()
    for name in ("scaling_max_freq", "scaling_min_freq", "scaling_governor"):
        for path in tree.glob(f"{_CPUS}/cpufreq/policy*/{name}"):
            value = tree.text(path)
            found |= {f"{name}={value}"} if value else set()
    for name in ("cpufreq/boost", "intel_pstate/no_turbo", "intel_pstate/max_perf_pct"):
        value = tree.text(f"{_CPUS}/{name}")
        found |= {f"{name}={value}"} if value else set()
    return frozenset(found) or None


def _traced(tree: Tree, processes: dict[str, int]) -> frozenset[str] | None:
    tracers = {
        name: parse_fields(tree.text(f"/proc/{pid}/status") or "").get("TracerPid")
        for name, pid in processes.items()
    }
    if all(tracer is None for tracer in tracers.values()):
        return None
    return frozenset(name for name, tracer in tracers.items() if tracer not in (None, "0"))
