"""Reading the kernel's files: made-up trees, and this machine as far as it has them."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from profiler.backends.cgroup import Throttling, read_throttling
from profiler.backends.tree import Tree
from profiler.measure.box_state import CpuTicks, read_box_state
from profiler.measure.numa import numa_flag, remote_share

STAT = (
    "{pid} (a name) with) brackets) S {parent} 0 0 0 -1 0 0 0 {faults} 0 {user} {system} {cu} {cs} 0 0 0 0 0"
)


def put(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def process(root: Path, pid: int, parent: int, ticks: tuple[int, int, int, int], faults: int = 0) -> None:
    user, system, cu, cs = ticks
    text = STAT.format(pid=pid, parent=parent, faults=faults, user=user, system=system, cu=cu, cs=cs)
    put(root, f"proc/{pid}/stat", text)
    put(root, f"proc/{pid}/status", "Name:\tx\nTracerPid:\t0\nCpus_allowed_list:\t0,2\n")


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """Conductor 10 with a worker 11 that has a child 12; 13 is somebody else's."""
    process(tmp_path, 10, 1, (10, 1, 0, 0))
    process(tmp_path, 11, 10, (100, 20, 5, 5), faults=7)
    process(tmp_path, 12, 11, (1000, 0, 0, 0))
    process(tmp_path, 13, 1, (5000, 0, 0, 0))
    lines = ["cpu  9 9 9 9 9 9 9 9 0 0", "cpu0 1 2 3 40 5 6 7 8 0 0", "cpu1 9 9 9 9 9 9 9 9 0 0"]
    put(tmp_path, "proc/stat", "\n".join([*lines, "cpu2 10 20 30 400 50 60 70 80 0 0", "intr 5 1 2"]))
    put(tmp_path, "proc/vmstat", "nr_free_pages 1\npswpin 3\npswpout 4\n")
    put(tmp_path, "sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n")
    return tmp_path


def test_a_look_reads_what_the_kernel_says(box: Path) -> None:
    state = read_box_state(Tree(box), 11, 10)
    # Only the worker's CPUs count: 0 and 2, not 1.
    assert state.cpu == CpuTicks(cpus=2, busy=19 + 190, idle=45 + 450, stolen=88)
    assert state.our_ticks == 11 + 130 + 1000
    assert (state.swapped_pages, state.major_faults, state.clock_source) == (7, 7, "tsc")
    assert state.traced == frozenset()
    assert (state.throttling, state.clock_limits) == (None, None)


def test_children_are_found_through_the_kernels_list_too(box: Path) -> None:
    for pid, children in ((10, "11 "), (11, "12 "), (12, "")):
        put(box, f"proc/{pid}/task/{pid}/children", children)
    assert read_box_state(Tree(box), 11, 10).our_ticks == 1141


@pytest.mark.parametrize("children", [{10: "11 99999999999999999999999 x", 11: "10 12"}, {}])
def test_processes_that_are_their_own_ancestors_are_counted_once(box: Path, children: dict[int, str]) -> None:
    for pid in (10, 11, 12):
        if children:
            put(box, f"proc/{pid}/task/{pid}/children", children.get(pid, ""))
    process(box, 10, 12, (10, 1, 0, 0))
    assert read_box_state(Tree(box), 11, 10).our_ticks == 1141


@pytest.mark.parametrize("nonsense", ["0-99999999999", "\u00b2", "9" * 5000, "-1", "0x10", ""])
def test_numbers_that_no_kernel_writes_are_no_reading(box: Path, nonsense: str) -> None:
    put(box, "proc/vmstat", f"pswpin {nonsense}\npswpout 4\n")
    put(box, "proc/stat", f"cpu0 {nonsense} 2 3 40 5 6 7 8 0 0\n")
    put(box, "proc/11/status", f"Cpus_allowed_list:\t{nonsense}\n")
    put(box, "proc/11/stat", STAT.format(pid=11, parent=10, faults=nonsense, user=1, system=1, cu=1, cs=1))
    put(box, "proc/11/task/11/children", nonsense)
    state = read_box_state(Tree(box), 11, 10)
    assert (state.cpu, state.swapped_pages) == (None, None)
    assert not state.major_faults


def test_an_attached_debugger_is_named_by_what_it_is_attached_to(box: Path) -> None:
    put(box, "proc/11/status", "TracerPid:\t99\nCpus_allowed_list:\t0\n")
    assert read_box_state(Tree(box), 11, 10).traced == frozenset({"worker"})


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ptrace(2) is Linux's")
def test_a_tracer_that_is_really_attached_is_seen() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    seize = 0x4206  # PTRACE_SEIZE: attach without stopping
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        before = read_box_state(Tree(), child.pid, os.getpid())
        attached = libc.ptrace(seize, child.pid, None, None) == 0
        after = read_box_state(Tree(), child.pid, os.getpid())
        child.kill()
    if not attached or before.traced is None:
        pytest.skip("this system does not let processes trace each other, or does not show it")
    assert "worker" not in before.traced
    assert after.traced is not None
    assert "worker" in after.traced


def test_clock_limits_hold_each_setting_once(box: Path) -> None:
    for policy in (0, 1):
        put(box, f"sys/devices/system/cpu/cpufreq/policy{policy}/scaling_max_freq", "3000000\n")
    put(box, "sys/devices/system/cpu/intel_pstate/no_turbo", "0\n")
    assert read_box_state(Tree(box), 11, 10).clock_limits == frozenset(
        {"scaling_max_freq=3000000", "intel_pstate/no_turbo=0"}
    )


def test_a_bare_system_is_read_without_a_fault(tmp_path: Path) -> None:
    state = read_box_state(Tree(tmp_path), 11, 10)
    fields = (state.cpu, state.our_ticks, state.throttling, state.swapped_pages, state.major_faults)
    assert fields == (None,) * 5
    assert (state.clock_limits, state.clock_source, state.traced) == (None, None, None)


def test_made_up_zeros_are_no_reading(box: Path) -> None:
    put(box, "proc/stat", "cpu0 0 0 0 0 0 0 0 0 0 0\ncpu2 0 0 0 0 0 0 0 0 0 0\n")
    assert read_box_state(Tree(box), 11, 10).cpu is None


MOUNT = "30 1 0:26 / /sys/fs/cgroup{} rw - {} cgroup rw{}\n"


@pytest.mark.parametrize(
    ("mount", "group", "folder", "stat"),
    [
        (MOUNT.format("", "cgroup2", ""), "0::/box", "box", "throttled_usec 1500000"),
        (MOUNT.format("/cpu", "cgroup", ",cpu"), "1:cpu:/box", "cpu/box", "throttled_time 1500000000"),
    ],
)
def test_throttling_of_both_versions(tmp_path: Path, mount: str, group: str, folder: str, stat: str) -> None:
    put(tmp_path, "proc/self/mountinfo", mount)
    put(tmp_path, "proc/11/cgroup", group + "\n")
    put(tmp_path, f"sys/fs/cgroup/{folder}/cpu.stat", f"nr_periods 9\nnr_throttled 4\n{stat}\n")
    assert read_throttling(Tree(tmp_path), 11) == Throttling(9, 4, 1.5)
    assert read_throttling(Tree(tmp_path), 12) is None


def thread(root: Path, tid: int, cpu: int, ticks: int) -> None:
    fields = ["S", *["0"] * 10, str(ticks), "0", *["0"] * 23, str(cpu), "0"]
    put(root, f"proc/11/task/{tid}/stat", f"{tid} (t) " + " ".join(fields))


@pytest.mark.parametrize(
    ("pages", "share"),
    [("N0=100", 0.5), ("N0=50 N1=50", 0.0), ("N1=100", 0.5), ("N0=75 N1=25", 0.25)],
)
def test_memory_is_held_against_where_the_threads_ran(tmp_path: Path, pages: str, share: float) -> None:
    put(tmp_path, "sys/devices/system/node/has_memory", "0-1\n")
    put(tmp_path, "sys/devices/system/node/node0/cpulist", "0-3\n")
    put(tmp_path, "sys/devices/system/node/node1/cpulist", "4-7\n")
    put(
        tmp_path,
        "proc/11/numa_maps",
        f"7f00 default anon=100 dirty=100 {pages} kernelpagesize_kB=4\n8f00 default\n",
    )
    thread(tmp_path, 11, cpu=1, ticks=300)
    thread(tmp_path, 12, cpu=6, ticks=300)
    found = remote_share(Tree(tmp_path), 11)
    assert found == pytest.approx(share)
    assert (numa_flag(share) is not None) == (share > 0.25)


def test_one_node_cannot_be_misplaced_and_no_node_is_not_judged(tmp_path: Path) -> None:
    assert remote_share(Tree(tmp_path), 11) is None
    put(tmp_path, "sys/devices/system/node/has_memory", "0\n")
    assert remote_share(Tree(tmp_path), 11) == 0.0


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc here")
def test_this_machine_can_be_read() -> None:
    state = read_box_state(Tree(), os.getpid(), os.getpid())
    assert state.our_ticks is not None
    assert state.our_ticks >= 0
    assert state.major_faults is not None
