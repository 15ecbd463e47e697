"""Real disturbances of real processes: that flags appear under them, never that a quiet box has none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from profiler.backends.cgroup import read_throttling
from profiler.backends.tree import Tree
from profiler.measure.box_flags import judge
from profiler.measure.box_state import read_box_state
from profiler.measure.phase_energies import Run
from profiler.measure.start_watch import StartWatch

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the kernel's files")
PATIENCE_S = 60.0

# They end by themselves should the test be killed.
_UNTIL = "import time\nend = time.monotonic() + 120\nb = bytearray(64 << 20)\nwhile time.monotonic() < end: "
CPU_HOG = _UNTIL + "sum(range(10_000))"
MEMORY_HOG = _UNTIL + "bytes(b)"


@contextmanager
def foreign(code: str) -> Iterator[int]:
    """A process that is nobody's child here: its parent has gone, as that of any other user's."""
    line = f'"{sys.executable}" -c "$0" >/dev/null 2>&1 & echo $!'
    started = subprocess.run(["sh", "-c", line, code], check=True, capture_output=True)
    pid = int(started.stdout)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)


@contextmanager
def child(code: str = "import time; time.sleep(600)") -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def ticks_of(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def codes(watch: StartWatch) -> set[str]:
    return {flag.code for flag in watch.flags}


def run_now() -> Run:
    now = time.monotonic_ns()
    return Run(now - 2000, now - 1000, now)


@LINUX
@pytest.mark.parametrize("hog", [CPU_HOG, MEMORY_HOG])
def test_a_hog_on_the_box_is_seen(hog: str) -> None:
    """However busy the box is, a share of what the hog gets is beyond what is allowed."""
    with child() as worker, foreign(hog) as pid:
        before = read_box_state(Tree(), worker.pid, os.getpid())
        if before.cpu is None:
            pytest.skip("this system does not tell what its processors do")
        began = ticks_of(pid)
        # Wait for work, not for time: on a box of N processors the hog alone is 1/N of them.
        wait_until(lambda: ticks_of(pid) - began >= 60)
        after = read_box_state(Tree(), worker.pid, os.getpid())
    # Held against one processor, so that the test means the same on any number of them.
    assert after.cpu is not None
    found = judge(before, after, on_cpu=True)
    assert found.readings.foreign_cpu_share is not None
    assert found.readings.foreign_cpu_share * after.cpu.cpus * found.readings.seconds >= 0.5
    if after.cpu.cpus <= 4:
        assert "foreign_cpu" in {flag.code for flag in found.flags}


@LINUX
def test_our_own_processes_are_not_foreign() -> None:
    """Ticks of a child count as ours: with injected totals of the CPUs nothing is left for others."""
    with child(CPU_HOG) as worker:
        before = read_box_state(Tree(), worker.pid, os.getpid())
        began = ticks_of(worker.pid)
        wait_until(lambda: ticks_of(worker.pid) - began >= 30)
        after = read_box_state(Tree(), worker.pid, os.getpid())
    assert before.our_ticks is not None
    assert after.our_ticks is not None
    assert after.our_ticks - before.our_ticks >= 30


@LINUX
def test_a_stopped_worker_is_seen_even_if_it_goes_on_before_anyone_looks() -> None:
    with child() as worker:
        watch = StartWatch(on_cpu=True)
        watch.begin(worker.pid)
        watch.trial(run_now())
        os.kill(worker.pid, signal.SIGSTOP)
        wait_until(lambda: state_of(worker.pid) == "T")
        os.kill(worker.pid, signal.SIGCONT)
        wait_until(lambda: state_of(worker.pid) != "T")
        watch.trial(run_now())
        watch.trial(run_now())
        watch.end()
    assert "process_stopped" in codes(watch)
    assert watch.readings is not None
    assert watch.readings.worker_stops == 1
    (flag,) = (flag for flag in watch.flags if flag.code == "process_stopped")
    assert "in measured trial 2:" in flag.text


@LINUX
def test_a_stop_before_the_trials_is_nobodys_business() -> None:
    with child() as worker:
        os.kill(worker.pid, signal.SIGSTOP)
        wait_until(lambda: state_of(worker.pid) == "T")
        os.kill(worker.pid, signal.SIGCONT)
        wait_until(lambda: state_of(worker.pid) != "T")
        watch = StartWatch(on_cpu=True)
        watch.begin(worker.pid)
        watch.trial(run_now())
        watch.end()
    assert "process_stopped" not in codes(watch)


def pauses(monkeypatch: pytest.MonkeyPatch, between_s: list[float]) -> StartWatch:
    """A watch that saw trials of 0.1 s with these pauses before them, on a made-up clock."""
    clock = {"ns": 10**12}
    monkeypatch.setattr("profiler.measure.start_watch.time.monotonic_ns", lambda: clock["ns"])
    watch = StartWatch(on_cpu=True, tree=Tree(Path("/nonexistent")))
    watch.begin(os.getpid())
    for pause in between_s:
        submit = clock["ns"] + int(pause * 1e9)
        last = submit + 100_000_000
        clock["ns"] = last + 1_000_000
        watch.trial(Run(submit, submit + 1000, last))
    watch.end()
    return watch


def test_a_conductor_that_stood_still_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = pauses(monkeypatch, [0.01, 0.01, 3.0, 0.01])
    (flag,) = watch.flags
    assert flag.code == "profiler_stalled"
    assert "3.0 s" in flag.text
    assert watch.readings is not None
    assert watch.readings.longest_pause_s == pytest.approx(3.0)


def test_pauses_that_are_always_long_are_the_case_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handing over a million token ids takes its time, in every trial."""
    assert pauses(monkeypatch, [1.5, 1.4, 1.6]).flags == []


def test_made_up_time_is_not_judged() -> None:
    watch = StartWatch(on_cpu=True)
    watch.begin(os.getpid())
    ahead = time.monotonic_ns() + 10**12
    watch.trial(Run(ahead, ahead + 1, ahead + 2))
    watch.end()
    assert (watch.flags, watch.readings, watch.virtual) == ([], None, True)


@contextmanager
def quota(percent: int) -> Iterator[Path]:
    """A control group that may use so much of one processor; skips where none can be made."""
    name = f"aiprof-test-{os.getpid()}"
    settings = {"cpu": ("cpu.cfs_quota_us", f"{percent * 1000}"), "": ("cpu.max", f"{percent * 1000} 100000")}
    for controller, (file, value) in settings.items():
        group = Path("/sys/fs/cgroup", controller, name)
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if not (group / file).exists():
                continue
            (group / file).write_text(value)
            yield group
            return
        finally:
            wait_until(lambda: not (group / "cgroup.procs").read_text().strip())  # noqa: B023
            group.rmdir()
    pytest.skip("no control group with a CPU quota can be made here")


@LINUX
def test_a_cpu_quota_that_bites_is_seen() -> None:
    with quota(20) as group, child(CPU_HOG) as worker:
        (group / "cgroup.procs").write_text(str(worker.pid))
        before = read_box_state(Tree(), worker.pid, os.getpid())
        if before.throttling is None:
            pytest.skip("the group's counters cannot be read here")
        counted = before.throttling.throttled

        def held_back() -> bool:
            now = read_throttling(Tree(), worker.pid)
            return now is not None and now.throttled >= counted + 5

        wait_until(held_back)
        after = read_box_state(Tree(), worker.pid, os.getpid())
    flags = {flag.code: flag for flag in judge(before, after, on_cpu=True).flags}
    assert "cpu_quota" in flags
    assert "those of the quota" in flags["cpu_quota"].text
