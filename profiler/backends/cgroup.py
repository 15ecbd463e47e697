"""What the container or the service manager allows: CPU quota, CPU set and memory, cgroup v1 and v2.

Formats: ``Documentation/admin-guide/cgroup-v2.rst`` and ``cgroup-v1/`` of the Linux kernel,
``proc_pid_mountinfo(5)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from profiler.backends.tree import Tree, parse_fields, whole_number

# v1 writes "no limit" as the largest page-aligned 63-bit number (PAGE_COUNTER_MAX).
_V1_UNLIMITED = 1 << 62


@dataclass(frozen=True)
class Limits:
    """Limits on this process; None means that there is no such limit.

    Attributes:
        cgroup_version: 2, 1 (also for the hybrid layout), or None when no cgroup file system is mounted.
        cpu_quota_cpus: CPU time per wall time that may be used, in CPUs.
        cpuset: CPUs of the control group in the kernel's list notation.
        memory_limit_bytes: most memory the group may use.
        memory_used_bytes: what the group uses now without page cache that can be dropped;
            None without a memory limit.
    """

    cgroup_version: int | None
    cpu_quota_cpus: float | None
    cpuset: str | None
    memory_limit_bytes: int | None
    memory_used_bytes: int | None


@dataclass(frozen=True)
class _Mount:
    version: int
    root: str
    point: str
    controllers: frozenset[str]


def read_limits(tree: Tree) -> Limits:
    """Return the tightest limits on this process along its control groups, parents included."""
    mounts = list(_mounts(tree))
    groups = _groups(tree)
    quota = min(_quotas(tree, mounts, groups), default=None)
    limit, used = min(_memory(tree, mounts, groups), default=(None, None), key=lambda pair: pair[0])
    return Limits(
        cgroup_version=_version(mounts),
        cpu_quota_cpus=quota,
        cpuset=_cpuset(tree, mounts, groups),
        memory_limit_bytes=limit,
        memory_used_bytes=used,
    )


@dataclass(frozen=True)
class Throttling:
    """How often and how long a CPU quota has held a process's groups back; counters since they exist.

    Attributes:
        periods: quota periods in which the groups wanted to run.
        throttled: those in which the quota was used up.
        seconds: time that they were held back, summed over CPUs.
    """

    periods: int
    throttled: int
    seconds: float


def read_throttling(tree: Tree, pid: int) -> Throttling | None:
    """Return the counters of the groups of a process, parents included; None where there are none."""
    mounts, groups = list(_mounts(tree)), _groups(tree, str(pid))
    found: list[Throttling] = []
    for version, directory in _directories(tree, mounts, groups, "cpu"):
        counters = parse_fields(tree.text(f"{directory}/cpu.stat") or "", " ")
        name, unit = ("throttled_usec", 1e6) if version == 2 else ("throttled_time", 1e9)
        values = [whole_number(counters.get(key)) for key in ("nr_periods", "nr_throttled", name)]
        periods, throttled, time = values
        if periods is not None and throttled is not None and time is not None:
            found.append(Throttling(periods, throttled, time / unit))
    if not found:
        return None
    return Throttling(
        sum(one.periods for one in found),
        sum(one.throttled for one in found),
        sum(one.seconds for one in found),
    )


def _version(mounts: list[_Mount]) -> int | None:
    return min((mount.version for mount in mounts), default=None)


def _mounts(tree: Tree) -> Iterator[_Mount]:
    for line in (tree.text("/proc/self/mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        version = 2 if kind[0] == "cgroup2" else 1
        yield _Mount(version, fields[3], fields[4], frozenset(kind[2].split(",")))


def _groups(tree: Tree, process: str = "self") -> dict[str, str]:
    """Return controller -> path of a process's group; the v2 group under the empty name."""
    groups: dict[str, str] = {}
    for line in (tree.text(f"/proc/{process}/cgroup") or "").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        for controller in controllers.split(","):
            groups[controller] = path
    return groups


def _directories(
    tree: Tree, mounts: list[_Mount], groups: dict[str, str], controller: str
) -> Iterator[tuple[int, str]]:
    """Yield (cgroup version, directory) of the process's group and its parents, innermost first."""
    for mount in mounts:
        name = controller if mount.version == 1 else ""
        if (mount.version == 1 and controller not in mount.controllers) or name not in groups:
            continue
        path = PurePosixPath(groups[name])
        # A path outside the mounted part belongs to the host; what limits us is then the mount itself.
        if not path.is_relative_to(mount.root) or ".." in path.parts:
            inner = PurePosixPath()
        else:
            inner = path.relative_to(mount.root)
        if not tree.exists(f"{mount.point}/{inner}"):
            inner = PurePosixPath()
        for part in (inner, *inner.parents) if inner.parts else (inner,):
            yield mount.version, str(PurePosixPath(mount.point) / part)


def _quotas(tree: Tree, mounts: list[_Mount], groups: dict[str, str]) -> Iterator[float]:
    for version, directory in _directories(tree, mounts, groups, "cpu"):
        if version == 2:
            quota, _, period = (tree.text(f"{directory}/cpu.max") or "max").partition(" ")
        else:
            quota = tree.text(f"{directory}/cpu.cfs_quota_us") or "-1"
            period = tree.text(f"{directory}/cpu.cfs_period_us") or ""
        allowed, length = whole_number(quota), whole_number(period)
        if allowed and length:
            yield allowed / length


def _cpuset(tree: Tree, mounts: list[_Mount], groups: dict[str, str]) -> str | None:
    for version, directory in _directories(tree, mounts, groups, "cpuset"):
        names = ("cpuset.cpus.effective",) if version == 2 else ("cpuset.effective_cpus", "cpuset.cpus")
        for name in names:
            text = tree.text(f"{directory}/{name}")
            if text:
                return text
    return None


def _memory(tree: Tree, mounts: list[_Mount], groups: dict[str, str]) -> Iterator[tuple[int, int | None]]:
    for version, directory in _directories(tree, mounts, groups, "memory"):
        limit = tree.integer(f"{directory}/{'memory.max' if version == 2 else 'memory.limit_in_bytes'}")
        if limit is None or limit >= _V1_UNLIMITED:
            continue
        used = tree.integer(f"{directory}/{'memory.current' if version == 2 else 'memory.usage_in_bytes'}")
        statistics = parse_fields(tree.text(f"{directory}/memory.stat") or "", " ")
        cache = whole_number(statistics.get("inactive_file" if version == 2 else "total_inactive_file"))
        if used is not None and cache is not None:
            used = max(0, used - cache)
        yield limit, used
