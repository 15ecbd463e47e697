"""The sampler process over a powercap tree, which needs no library; a child that dies, starves or lies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import machines
import numpy as np
import pytest
from fakes.power import PowercapTree, Profile

from profiler.backends.base import Unavailable
from profiler.sensors import interruptions, ring
from profiler.sensors.base import Energy, SensorInfo
from profiler.sensors.rapl_sensors import RaplSensors
from profiler.sensors.sampler import Sampler

KEY = "rapl:package-0/energy"
WRAP = 262_143_328_850
# A busy machine may stop any process for seconds.
PATIENCE_S = 60.0
PROFILE = Profile([(0.0, 180.0), (0.8, 60.0), (1.1, 210.0)])


@dataclass
class Tree:
    """A package whose counter wraps after one second.

    Attributes:
        source: its sensors.
        t0_s: CLOCK_MONOTONIC that the profile counts from.
        counter: what keeps the counter up to date.
    """

    source: RaplSensors
    t0_s: float
    counter: PowercapTree

    def holds(self, energy: Energy, begin_s: float, end_s: float) -> bool:
        """Whether the truth lies in the bound, given that the counter here may move late."""
        assert energy.joules is not None, energy.reason
        assert energy.bound_j is not None
        late_j = max(PROFILE.watts) * self.counter.longest_pause_s
        return abs(energy.joules - PROFILE.joules(begin_s, end_s)) <= energy.bound_j + late_j


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    root = machines.write(tmp_path, machines.zone("intel-rapl:0", "package-0", 0))
    t0_s = time.monotonic()
    first = WRAP - int(PROFILE.joules(0.0, 1.0) * 1e6)
    running = PowercapTree(root, {"intel-rapl:0": (PROFILE, first, WRAP)}, t0_s)
    yield Tree(RaplSensors(str(root)), t0_s, running)
    running.stop()


def sampling(source: RaplSensors) -> Sampler:
    return Sampler(source.probe(), {"rapl": source.options()})


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def sampled_s(running: Sampler) -> float:
    """For how long there have been reads."""
    reads = running.series(KEY)
    return float(reads.t_after_ns[-1] - reads.t_after_ns[0]) * 1e-9 if len(reads) else 0.0


def wait_for(done: object, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if done():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


def test_energy_over_a_wrap(tree: Tree) -> None:
    with sampling(tree.source) as running:
        begin_s = max(time.monotonic() - tree.t0_s + 0.1, 0.5)
        time.sleep(max(0.0, tree.t0_s + begin_s + 1.5 - time.monotonic()))
        end_s = time.monotonic() - tree.t0_s - 0.1
        window = [round((tree.t0_s + moment) * 1e9) for moment in (begin_s, end_s)]
        energy = running.energy(KEY, *window, wait_s=PATIENCE_S)
        assert running.pid is not None
    assert tree.holds(energy, begin_s, end_s)
    assert energy.simulated
    if begin_s < 1.0:
        assert "wrapped" in energy.flags


def test_the_sampler_ends_with_its_parent_however_that_ends(tree: Tree) -> None:
    script = (
        "import sys, time\n"
        "from profiler.sensors.rapl_sensors import RaplSensors\n"
        "from profiler.sensors.sampler import Sampler\n"
        "source = RaplSensors(sys.argv[1])\n"
        "running = Sampler(source.probe(), {'rapl': source.options()})\n"
        "running.start()\n"
        "print(running.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    root = str(tree.source.options()["root"])
    parent = subprocess.Popen([sys.executable, "-c", script, root], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert wait_for(lambda: not alive(pid))


def test_a_sampler_that_was_killed_is_no_reading(tree: Tree) -> None:
    with sampling(tree.source) as running:
        assert running.pid is not None
        assert wait_for(lambda: len(running.series(KEY)) > 20)
        t0_ns = time.monotonic_ns() - 50_000_000
        os.kill(running.pid, signal.SIGKILL)
        assert wait_for(lambda: running.pid is None)
        time.sleep(0.2)
        energy = running.energy(KEY, t0_ns, time.monotonic_ns())
    assert energy.joules is None
    assert energy.reason is not None
    assert energy.reason.code == "sampler_died"
    assert "gap" in energy.flags


def test_a_sampler_that_was_starved_leaves_a_gap(tree: Tree) -> None:
    with sampling(tree.source) as running:
        assert running.pid is not None
        assert wait_for(lambda: sampled_s(running) > 0.4)
        begin_ns = time.monotonic_ns() - 100_000_000
        os.kill(running.pid, signal.SIGSTOP)
        time.sleep(0.4)
        os.kill(running.pid, signal.SIGCONT)
        time.sleep(0.3)
        end_ns = time.monotonic_ns()
        energy = running.energy(KEY, begin_ns, end_ns, wait_s=PATIENCE_S)
    assert "gap" in energy.flags
    assert tree.holds(energy, begin_ns * 1e-9 - tree.t0_s, end_ns * 1e-9 - tree.t0_s)


def test_marks_harm_nothing_whether_the_sampler_runs_or_not(tree: Tree) -> None:
    running = sampling(tree.source)
    running.mark()
    with running:
        assert wait_for(lambda: sampled_s(running) > 1.2)
        begin_ns = time.monotonic_ns()
        running.mark()
        time.sleep(0.3)
        end_ns = time.monotonic_ns()
        for _ in range(100_000):  # more than fits into a pipe, should the sampler be slow
            running.mark()
        energy = running.energy(KEY, begin_ns, end_ns, wait_s=PATIENCE_S)
        assert (np.diff(running.series(KEY).t_before_ns) >= 0).all()
        assert running.pid is not None
        os.kill(running.pid, signal.SIGKILL)
        assert wait_for(lambda: running.pid is None)
        running.mark()
    running.mark()
    assert tree.holds(energy, begin_ns * 1e-9 - tree.t0_s, end_ns * 1e-9 - tree.t0_s)


def test_the_sampler_imports_no_engine(tree: Tree) -> None:
    with sampling(tree.source) as running:
        mapped = Path(f"/proc/{running.pid}/maps").read_text()
    assert "torch" not in mapped
    assert "numpy" not in mapped


def test_a_zone_that_vanishes_while_sampling(tmp_path: Path) -> None:
    root = machines.write(tmp_path, machines.zone("intel-rapl:0", "package-0", 5_000_000))
    source = RaplSensors(str(root))
    with sampling(source) as running:
        assert wait_for(lambda: len(running.series(KEY)) > 20)
        (root / "sys/class/powercap/intel-rapl:0/energy_uj").unlink()
        t0_ns = time.monotonic_ns()
        assert wait_for(lambda: running.samples(KEY)[-1].failure == "lost")
        energy = running.energy(KEY, t0_ns, time.monotonic_ns() + 100_000_000, wait_s=0.3)
    assert energy.reason is not None
    assert energy.reason.code == "lost_at"
    last = running.samples(KEY)[-1]
    assert last.raw is None
    assert last.t_before_ns <= last.t_after_ns


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    root = machines.write(tmp_path, machines.zone("intel-rapl:0", "package-0", 5_000_000))
    source = RaplSensors(str(root))
    (info,) = source.probe()
    ghost = replace(info, key="rapl:package-7/energy")
    foreign = replace(info, key="nobody:x/energy", source="nobody")
    with Sampler([info, ghost, foreign], {"rapl": source.options()}) as running:
        answers = {key: running.energy(key, 1, 2) for key in (ghost.key, foreign.key)}
        assert running.infos[info.key].unavailable is None
    codes = {key: energy.reason.code for key, energy in answers.items() if energy.reason is not None}
    assert codes == {ghost.key: "lost", foreign.key: "sensor_failed"}


def test_unavailable_sensors_start_nothing(tmp_path: Path) -> None:
    missing = Unavailable("no_library", "there is none", "install it")
    info = SensorInfo("x:y/energy", "x", "y", "energy_counter", "board", "J", unavailable=missing)
    with Sampler([info]) as running:
        assert running.pid is None
        energy = running.energy(info.key, 1, 2)
    assert energy.reason == missing


def test_a_process_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = machines.write(tmp_path, machines.zone("intel-rapl:0", "package-0", 5_000_000))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with sampling(RaplSensors(str(root))) as running:
        energy = running.energy(KEY, 1, 2)
    assert energy.reason is not None
    assert energy.reason.code == "sampler_failed"


def test_windows_over_a_suspend_are_refused(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    shift_ns = 0

    def clocks() -> tuple[int, int]:
        now_ns = time.monotonic_ns()
        return now_ns, now_ns + shift_ns

    monkeypatch.setattr(interruptions, "clocks", clocks)
    with sampling(tree.source) as running:
        assert wait_for(lambda: sampled_s(running) > 0.4)
        t0_ns = time.monotonic_ns() - 200_000_000
        shift_ns = 3_600_000_000_000
        during = running.energy(KEY, t0_ns, time.monotonic_ns())
        noticed_ns = time.monotonic_ns()
        time.sleep(0.3)
        after = running.energy(KEY, noticed_ns, time.monotonic_ns(), wait_s=PATIENCE_S)
    assert during.reason is not None
    assert during.reason.code == "suspended"
    assert after.joules is not None, after.reason


def test_the_ring_gives_each_read_once_and_the_newest_when_it_ran_over() -> None:
    descriptor = ring.create(2, 8)
    shared = ring.Ring(descriptor, 2, 8)
    os.close(descriptor)

    def taken(since: int) -> tuple[int, list[int]]:
        count, raw = shared.read(1, since)
        return count, np.frombuffer(raw, dtype=np.int64).reshape(-1, 4)[:, 2].tolist()

    write = shared.writer(1)
    for value in range(5):
        write(value, value, value, 0)
    assert taken(0) == (5, [0, 1, 2, 3, 4])
    assert taken(5) == (5, [])
    for value in range(5, 11):
        write(value, value, value, 0)
    assert taken(5) == (11, [5, 6, 7, 8, 9, 10])
    for value in range(11, 30):
        write(value, value, value, 0)
    # The slot that the writer would fill next is not to be trusted.
    assert taken(11) == (30, list(range(23, 30)))
    assert shared.read(0, 0) == (0, b"")
    shared.close()
