"""How many threads to compute with on the CPU."""

from __future__ import annotations

import os

from .control_groups import read_text, with_parents


def default_threads() -> int:
    """Return one thread per physical core, as far as the CPU quota pays for whole ones.

    Threads beyond the quota would use it up before its period ends, and then all of them stand still
    for the rest of it: nothing is gained in the mean, and steps take turns at being fast and slow.
    """
    quota, cores = cpu_quota(), physical_cores()
    return cores if quota is None else max(1, min(cores, int(quota)))


def physical_cores(root: str = "/sys/devices/system/cpu") -> int:
    """Return the physical cores in this process's affinity mask.

    Two hardware threads of one core share its units and its caches: a matrix product gains nothing
    from the second, and loses where both wait for each other. Where the kernel does not tell
    siblings, every CPU counts.
    """
    try:
        cpus = sorted(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
    cores = set()
    for cpu in cpus:
        siblings = read_text(f"{root}/cpu{cpu}/topology/thread_siblings_list")
        if siblings is None:
            return len(cpus)
        cores.add(siblings.strip())
    return len(cores)


def one_cpu_per_core(root: str = "/sys/devices/system/cpu") -> list[int]:
    """Return the CPUs in this process's affinity mask, of each physical core the first."""
    try:
        cpus = sorted(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return list(range(os.cpu_count() or 1))
    cores: dict[str, int] = {}
    for cpu in cpus:
        siblings = read_text(f"{root}/cpu{cpu}/topology/thread_siblings_list")
        cores.setdefault(str(cpu) if siblings is None else siblings.strip(), cpu)
    return sorted(cores.values())


def cpu_quota(proc: str = "/proc", cgroup: str = "/sys/fs/cgroup") -> float | None:
    """Return the CPU time per wall time that this process may use, in CPUs; None without a limit.

    The smallest of its control groups and their parents. Files: Linux,
    Documentation/admin-guide/cgroup-v2.rst (``cpu.max``) and scheduler/sched-bwc.rst (version 1).
    """
    quotas = []
    for version, folder in with_parents("cpu", proc, cgroup):
        names = ("cpu.max",) if version == 2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        words = " ".join(read_text(os.path.join(folder, name)) or "" for name in names).split()
        if len(words) == 2 and all(word.isdigit() and int(word) for word in words):  # not max, not -1
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)
