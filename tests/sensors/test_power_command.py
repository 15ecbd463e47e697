"""`aiprof power` over the fakes."""

from __future__ import annotations

import io
import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from fakes.power import TWO_GPUS
from rich.console import Console

from profiler.backends.base import Device, Unavailable
from profiler.cli.power import command
from profiler.cli.power_view import _View
from profiler.errors import NothingMeasuredError
from profiler.sensors import box
from profiler.sensors.base import Energy, SensorInfo, failure_number
from profiler.sensors.power_watch import PowerWatch, Tally, lines_of
from profiler.sensors.recording import read_recording
from profiler.sensors.ticks import Series
from profiler.sensors.window import counter_energy

COUNTER = SensorInfo("nvml:GPU-1/energy", "nvml", "GPU-1", "energy_counter", "board", "J")
POWER = replace(COUNTER, key="nvml:GPU-1/power", kind="power_instant", unit="W")
CLOCK = replace(COUNTER, key="nvml:GPU-1/clock", kind="clock", unit="Hz")
PACKAGE = SensorInfo("rapl:package-0/energy", "rapl", "cpu-package-0", "energy_counter", "package", "J")
DRAM = replace(PACKAGE, key="rapl:package-0/dram", scope="dram")
WALL = SensorInfo("redfish:wall/power", "redfish", "wall", "power_instant", "wall", "W")
TICKING = replace(COUNTER, scale=1e-3, poll_hz=20.0, max_power_w=700.0)
GPU = Device("GPU-1", "cuda", 0, "A GPU", None)


def test_each_part_of_the_box_has_one_line() -> None:
    lines = lines_of([WALL, DRAM, PACKAGE, CLOCK, POWER, COUNTER], [GPU])
    assert [(line.name, line.meter.key) for line in lines] == [
        ("cuda:0 A GPU", COUNTER.key),
        ("cpu-package-0 (dram)", DRAM.key),
        ("cpu-package-0", PACKAGE.key),
        ("wall", WALL.key),
    ]
    assert lines[0].states == {"clock": CLOCK}


def test_two_meters_of_the_wall_are_two_lines() -> None:
    mine = replace(WALL, key="command:wall/power", source="command")
    energy = replace(WALL, key="redfish:wall/energy", kind="energy_counter", unit="J")
    lines = lines_of([WALL, energy, mine], [])
    assert [(line.name, line.meter.key) for line in lines] == [
        ("wall (redfish)", energy.key),
        ("wall (command)", mine.key),
    ]


def test_power_stands_in_for_a_counter_that_cannot_be_read() -> None:
    closed = replace(COUNTER, unavailable=Unavailable("permission", "only root may"))
    [line] = lines_of([closed, POWER], [GPU])
    assert line.meter == POWER


def test_a_part_without_energy_leaves_the_sum_without_one() -> None:
    tally = Tally()
    tally.add(Energy(20.0, 1.0, "power_integral", "board", 0, 2 * 10**9, flags=("gap",)))
    assert (tally.mean_power_w, tally.reason) == (10.0, None)
    lost = Unavailable("lost", "it is gone")
    tally.add(Energy(None, None, "none", "board", 0, 10**9, reason=lost))
    assert tally.reason == lost
    assert tally.flags == {"gap"}


class StubSampler:
    """Reads made up beforehand, as a sampler hands them out."""

    def __init__(self, reads: Series) -> None:
        self.reads = reads

    def drain(self) -> None: ...

    def forget(self, before_ns: int) -> None:
        self.reads = self.reads.between(before_ns, 1 << 62)

    def series(self, _key: str, t0_ns: int = 0, t1_ns: int = 1 << 62) -> Series:
        return self.reads.between(t0_ns, t1_ns)

    def energy(self, _key: str, t0_ns: int, t1_ns: int, *, wait_s: float | None = None) -> Energy:
        around = self.reads.between(t0_ns - 5 * 10**9, t1_ns + 5 * 10**9)
        return counter_energy(around, TICKING, t0_ns, t1_ns)


def test_a_long_watch_adds_up_its_parts() -> None:
    """Two thousand seconds, an energy counter with a 100 ms tick at 250 W, read every 50 ms."""
    at = np.arange(0, 40_000, dtype=np.int64) * 50_000_000 + 10**9
    raw = (at // 100_000_000) * 25_000
    sampler = StubSampler(Series(at, at + 10_000, raw, np.zeros_like(at)))
    now = [int(at[40])]
    [line] = lines_of([TICKING], [])
    follow = PowerWatch(sampler, [line], lambda: now[0])  # type: ignore[arg-type]
    began = now[0]
    while now[0] < at[-1] - 21 * 10**9:
        now[0] += 20 * 10**9
        follow.update()
    seconds = follow.finish()
    tally = follow.tallies[TICKING.key]
    assert tally.reason is None
    assert seconds == pytest.approx((now[0] - began) * 1e-9)
    assert tally.seconds == pytest.approx(seconds)
    assert abs(tally.joules - 250 * seconds) <= tally.bound_j
    assert tally.bound_j < 0.001 * tally.joules
    assert tally.max_power_w == pytest.approx(250, rel=0.02)


def test_a_device_that_vanishes_shows_why_and_no_old_values() -> None:
    at = np.arange(0, 400, dtype=np.int64) * 50_000_000 + 10**9
    failure = np.where(at > 11 * 10**9, failure_number("lost"), 0)
    sampler = StubSampler(Series(at, at + 10_000, (at // 100_000_000) * 25_000, failure))
    line = replace(lines_of([TICKING], [])[0], states={"clock": CLOCK})
    now = [int(at[60])]
    follow = PowerWatch(sampler, [line], lambda: now[0])  # type: ignore[arg-type]
    shown = []
    for moment in (8, 18):
        now[0] = moment * 10**9
        sampler.reads = Series(at, at + 10_000, (at // 100_000_000) * 25_000, failure).between(0, now[0])
        follow.update()
        tally = follow.tallies[TICKING.key]
        text = io.StringIO()
        Console(file=text, width=100).print(_View(follow))
        shown.append(
            (tally.power_w is None, tally.missing, follow.state(line, "clock") is None, text.getvalue())
        )
    healthy, gone = shown
    assert healthy[:3] == (False, None, False)
    assert gone[:3] == (True, "lost_at", True)
    assert "lost" in gone[3]
    assert "lost" not in healthy[3]


def test_a_recording_holds_what_the_summary_says(aiprof: Any, tmp_path: Path) -> None:
    path = tmp_path / "power.parquet"
    process = aiprof({"1.profile": "0:80"}, "power", "--record", str(path), "--seconds", "2.5", "--json")
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    document = json.loads(stdout)
    assert document["simulated"] is True
    meters = {meter["device"]: meter for meter in document["meters"]}
    found = read_recording(path)
    assert found.header.simulated
    for uuid, watts in zip(TWO_GPUS, (300, 80), strict=True):
        meter = meters[uuid]
        if meter["reason"] is not None:  # a machine that is too busy to sample says so
            assert meter["energy_j"] is None
            continue
        assert abs(meter["energy_j"] - watts * meter["energy_seconds"]) <= meter["energy_bound_j"] + 0.01
        assert meter["last"]["temperature"] == 41
        assert len(found.series(f"nvml:{uuid}/energy")) > 0
    assert meters["cpu-package-0"]["energy_j"] is None
    assert meters["cpu-package-0"]["reason"]


@pytest.mark.parametrize("arguments", [("--watch",), ("--json",)])
def test_ctrl_c_ends_with_a_summary(aiprof: Any, arguments: tuple[str, ...]) -> None:
    process = aiprof({}, "power", *arguments)
    first = process.stderr.readline()
    assert "Ctrl-C ends it" in first, first + process.stderr.read()
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    if arguments == ("--json",):
        assert len(json.loads(stdout)["meters"]) == 3
    else:
        assert "SIMULATED" in stdout
        assert "NVIDIA H100" in stdout


def test_nothing_to_read_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    closed = replace(COUNTER, unavailable=Unavailable("permission", "only root may", "sudo"))
    monkeypatch.setattr(box, "find_sensors", lambda: box.BoxSensors((closed, CLOCK), {}))
    result = CliRunner().invoke(command, ["--record", str(tmp_path / "x.parquet")])
    assert isinstance(result.exception, NothingMeasuredError)
    assert "nvml: only root may (sudo)" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--seconds", "0"], ["--seconds", "soon"], ["--record"]])
def test_bad_arguments(arguments: list[str]) -> None:
    assert CliRunner().invoke(command, arguments).exit_code == 2
