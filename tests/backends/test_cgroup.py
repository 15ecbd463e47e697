from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import machines
import pytest

from profiler.backends.cgroup import Limits, read_limits
from profiler.backends.tree import Tree

V2 = "30 23 0:26 {root} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "3{number} 31 0:3{number} {root} /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}"


def limits(root: Path, mounts: list[str], groups: list[str], files: Mapping[str, object]) -> Limits:
    mountinfo = "\n".join(["23 27 0:22 / /sys rw - sysfs sysfs rw", *mounts])
    own = {"/proc/self/mountinfo": mountinfo, "/proc/self/cgroup": "\n".join(groups)}
    return read_limits(Tree(machines.write(root, {**own, **files})))


def test_a_container_with_its_own_namespace(tmp_path: Path) -> None:
    files = {
        "/sys/fs/cgroup/cpu.max": "150000 100000",
        "/sys/fs/cgroup/cpuset.cpus.effective": "2-3",
        "/sys/fs/cgroup/memory.max": 8 * 2**30,
        "/sys/fs/cgroup/memory.current": 3 * 2**30,
        "/sys/fs/cgroup/memory.stat": f"anon 1\ninactive_file {2**30}\nactive_file 5",
    }
    found = limits(tmp_path, [V2.format(root="/")], ["0::/"], files)
    assert found == Limits(2, 1.5, "2-3", 8 * 2**30, 2 * 2**30)


def test_the_tightest_of_all_parents_counts(tmp_path: Path) -> None:
    files = {
        "/sys/fs/cgroup/user.slice/cpu.max": "400000 100000",
        "/sys/fs/cgroup/user.slice/memory.max": 2**30,
        "/sys/fs/cgroup/user.slice/memory.current": 2**20,
        "/sys/fs/cgroup/user.slice/run.scope/cpu.max": "max 100000",
        "/sys/fs/cgroup/user.slice/run.scope/memory.max": 2**32,
    }
    found = limits(tmp_path, [V2.format(root="/")], ["0::/user.slice/run.scope"], files)
    assert (found.cpu_quota_cpus, found.memory_limit_bytes, found.memory_used_bytes) == (4.0, 2**30, 2**20)


def test_version_1_without_limits(tmp_path: Path) -> None:
    mounts = [V1.format(number=n, root="/", name=name) for n, name in enumerate(("cpu", "memory", "cpuset"))]
    files = {
        "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": -1,
        "/sys/fs/cgroup/cpu/cpu.cfs_period_us": 100000,
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
        "/sys/fs/cgroup/cpuset/cpuset.cpus": "0-1",
    }
    groups = ["3:cpu:/", "2:memory:/", "1:cpuset:/"]
    assert limits(tmp_path, mounts, groups, files) == Limits(1, None, "0-1", None, None)


def test_version_1_in_a_container_that_sees_its_host_path(tmp_path: Path) -> None:
    own = "/docker/0abc"
    mounts = [V1.format(number=n, root=own, name=name) for n, name in enumerate(("cpu", "memory"))]
    files = {
        "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": 50000,
        "/sys/fs/cgroup/cpu/cpu.cfs_period_us": 100000,
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": 2**31,
        "/sys/fs/cgroup/memory/memory.usage_in_bytes": 2**30,
        "/sys/fs/cgroup/memory/memory.stat": f"total_inactive_file {2**29}",
    }
    found = limits(tmp_path, mounts, [f"3:cpu,cpuacct:{own}", f"2:memory:{own}"], files)
    assert found == Limits(1, 0.5, None, 2**31, 2**29)


@pytest.mark.parametrize("group", ["/../../elsewhere", "/not/mounted/here"])
def test_a_path_outside_the_mounted_part_falls_back_to_the_mount(tmp_path: Path, group: str) -> None:
    found = limits(
        tmp_path, [V2.format(root="/")], [f"0::{group}"], {"/sys/fs/cgroup/cpu.max": "100000 100000"}
    )
    assert found.cpu_quota_cpus == 1.0


def test_no_cgroups_at_all(tmp_path: Path) -> None:
    assert read_limits(Tree(tmp_path)) == Limits(None, None, None, None, None)


def test_damaged_files_are_no_limits(tmp_path: Path) -> None:
    files = {"/sys/fs/cgroup/cpu.max": "0 0", "/sys/fs/cgroup/memory.max": "lots"}
    found = limits(tmp_path, [V2.format(root="/"), "nonsense"], ["0::/", "nonsense"], files)
    assert (found.cpu_quota_cpus, found.memory_limit_bytes) == (None, None)
