"""Reading /proc and control groups, on trees made for the test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from profiler.worker import host_memory, threads

GIB = 1 << 30


def proc(root: Path, groups: str, available: int = 8 * GIB) -> str:
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable: {available // 1024} kB\n")
    (root / "proc" / "self" / "cgroup").write_text(groups)
    return str(root / "proc")


def group(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def v2(limit: str, usage: int, inactive: int) -> dict[str, str]:
    return {
        "memory.max": f"{limit}\n",
        "memory.current": f"{usage}\n",
        "memory.stat": f"anon 1\ninactive_file {inactive}\n",
    }


def test_without_groups_it_is_what_the_kernel_says(tmp_path: Path) -> None:
    where = proc(tmp_path, "")
    assert host_memory.available_bytes(where, str(tmp_path)) == (8 * GIB, "MemAvailable")


def test_the_tightest_group_on_the_way_up_counts_without_its_unused_cache(tmp_path: Path) -> None:
    where, root = proc(tmp_path, "0::/a/b\n"), tmp_path / "fs"
    group(root / "a" / "b", v2("max", GIB, 0))
    group(root / "a", v2(str(4 * GIB), 3 * GIB, 2 * GIB))
    assert host_memory.available_bytes(where, str(root)) == (3 * GIB, "control group limit")


def test_a_group_above_its_limit_leaves_nothing(tmp_path: Path) -> None:
    where, root = proc(tmp_path, "0::/\n"), tmp_path / "fs"
    group(root, v2(str(GIB), 2 * GIB, 0))
    assert host_memory.available_bytes(where, str(root))[0] == 0


def test_first_version_groups(tmp_path: Path) -> None:
    where, root = proc(tmp_path, "3:cpu,cpuacct:/x\n7:memory:/x\nbroken\n"), tmp_path / "fs"
    files = {"memory.limit_in_bytes": str(GIB), "memory.usage_in_bytes": str(GIB // 4)}
    group(root / "memory" / "x", {**files, "memory.stat": "total_inactive_file 0\n"})
    assert host_memory.available_bytes(where, str(root))[0] == GIB - GIB // 4


def status(root: Path, groups: str) -> str:
    where = proc(root, groups)
    (root / "proc" / "self" / "status").write_text("VmHWM:\t    30 kB\nVmRSS:\t    20 kB\n")
    return where


@pytest.mark.parametrize(
    ("groups", "folder", "name"),
    [("0::/w\n", "w", "memory.peak"), ("4:memory:/w\n", "memory/w", "memory.max_usage_in_bytes")],
)
def test_the_peak_is_that_of_the_processs_own_group(
    tmp_path: Path, groups: str, folder: str, name: str
) -> None:
    where, root = status(tmp_path, groups), tmp_path / "fs"
    group(root / folder, {name: str(GIB), "cgroup.procs": f"{os.getpid()}\n"})
    group(root / folder / "inner", {"cgroup.procs": ""})
    found = host_memory.of_this_process(where, str(root))
    assert found["peak_process_bytes"] == GIB
    assert found["peak_process_source"] == f"{name} of its own control group"
    assert (found["peak_rss_bytes"], found["process_rss_bytes"]) == (30 * 1024, 20 * 1024)


@pytest.mark.parametrize("shared", ["inside", "beside", "from outside the container", "unknown"])
def test_a_group_with_strangers_in_it_is_not_the_process(tmp_path: Path, shared: str) -> None:
    where, root = status(tmp_path, "0::/w\n"), tmp_path / "fs"
    own = f"{os.getpid()}\n"
    group(root / "w", {"memory.peak": str(GIB), "cgroup.procs": own})
    if shared == "inside":
        group(root / "w" / "inner", {"cgroup.procs": "1\n"})
    elif shared == "beside":
        (root / "w" / "cgroup.procs").write_text(f"{own}1\n")
    elif shared == "from outside the container":
        (root / "w" / "cgroup.procs").write_text(f"{own}0\n")  # how the kernel shows them there
    else:
        (root / "w" / "cgroup.procs").unlink()
    found = host_memory.of_this_process(where, str(root))
    assert (found["peak_process_bytes"], found["peak_process_source"]) == (30 * 1024, "VmHWM")


def test_the_group_of_a_parent_is_never_the_process(tmp_path: Path) -> None:
    where, root = status(tmp_path, "0::/host/path\n"), tmp_path / "fs"
    group(root, {"memory.peak": str(GIB), "cgroup.procs": f"{os.getpid()}\n"})
    assert host_memory.of_this_process(where, str(root))["peak_process_source"] == "VmHWM"


def test_unreadable_files_are_unknown(tmp_path: Path) -> None:
    assert host_memory.available_bytes(str(tmp_path), str(tmp_path)) == (None, "MemAvailable")
    assert host_memory.status_bytes("VmRSS", str(tmp_path / "none")) is None


def test_fields_of_this_process() -> None:
    resident, peak = host_memory.status_bytes("VmRSS"), host_memory.status_bytes("VmHWM")
    assert resident is not None
    assert peak is not None
    assert 0 < resident <= peak
    assert host_memory.status_bytes("VmNothing") is None


def quota_files(version: int, quota: str, period: str) -> dict[str, str]:
    if version == 2:
        return {"cpu.max": f"{quota} {period}\n"}
    return {"cpu.cfs_quota_us": f"{quota}\n", "cpu.cfs_period_us": f"{period}\n"}


@pytest.mark.parametrize(
    ("version", "groups", "folder"),
    [(2, "0::/pod/box\n", "pod"), (1, "4:cpu,cpuacct:/pod/box\n0::/\n", "cpu/pod")],
    ids=["v2", "v1"],
)
def test_the_smallest_cpu_quota_on_the_way_up_counts(
    tmp_path: Path, version: int, groups: str, folder: str
) -> None:
    where, root = proc(tmp_path, groups), tmp_path / "fs"
    group(root / folder / "box", quota_files(version, "400000", "100000"))
    group(root / folder, quota_files(version, "75000", "50000"))
    assert threads.cpu_quota(where, str(root)) == 1.5


@pytest.mark.parametrize(
    "files",
    [
        quota_files(2, "max", "100000"),
        quota_files(2, "0", "0"),
        {"cpu.max": ""},
        quota_files(1, "-1", "100000"),
        {"cpu.cfs_quota_us": "50000"},
        {},
    ],
    ids=["v2 none", "damaged", "empty", "v1 none", "no period", "no files"],
)
def test_no_cpu_quota(tmp_path: Path, files: dict[str, str]) -> None:
    where, root = proc(tmp_path, "0::/\n1:cpu:/\n"), tmp_path / "fs"
    group(root, files)
    group(root / "cpu", files)
    assert threads.cpu_quota(where, str(root)) is None


def test_a_container_that_sees_the_path_of_its_host(tmp_path: Path) -> None:
    where, root = proc(tmp_path, "1:cpu:/docker/0abc\n"), tmp_path / "fs"
    group(root / "cpu", quota_files(1, "200000", "100000"))
    assert threads.cpu_quota(where, str(root)) == 2.0


@pytest.mark.parametrize(
    ("quota", "cores", "expected"), [(None, 8, 8), (3.9, 8, 3), (0.5, 8, 1), (16.0, 8, 8), (2.0, 8, 2)]
)
def test_threads_are_whole_cpus_of_the_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int, expected: int
) -> None:
    monkeypatch.setattr(threads, "cpu_quota", lambda: quota)
    monkeypatch.setattr(threads, "physical_cores", lambda: cores)
    assert threads.default_threads() == expected


def test_physical_cores_count_siblings_once(tmp_path: Path) -> None:
    import os

    mask = sorted(os.sched_getaffinity(0))
    for cpu in mask:
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text("0-1023\n")
    assert threads.physical_cores(str(tmp_path)) == 1
    assert threads.physical_cores(str(tmp_path / "nothing")) == len(mask)
