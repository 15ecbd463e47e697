from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable

import pytest

from profiler.sensors import command
from profiler.sensors.base import Sample, SensorInfo
from profiler.sensors.command import COMMAND, CommandSensors
from profiler.sensors.sampler import Sampler

# A busy machine may stop any process for seconds.
PATIENCE_S = 60.0


def meter(code: str) -> str:
    return shlex.join([sys.executable, "-c", f"import time\n{code}"])


def only(source: CommandSensors) -> SensorInfo:
    (info,) = source.probe()
    return info


def code(info: SensorInfo) -> str:
    assert info.unavailable is not None
    return info.unavailable.code


def wait_for(sampler: Sampler, key: str, done: Callable[[list[Sample]], bool]) -> None:
    """Wait until the reads so far are as they should be."""
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        samples = sampler.samples(key)
        if samples and done(samples):
            return
        time.sleep(0.02)
    pytest.fail(f"{key}: not within {PATIENCE_S:.0f} s")


def has_moved(reads: list[Sample]) -> bool:
    """Whether enough new values came for a window to begin."""
    return len({read.raw for read in reads} - {None}) > 5


@pytest.mark.parametrize(
    ("line", "unit", "milli"),
    [
        ("123.4", "W", 123_400),
        ("123.4 W", "W", 123_400),
        (" 95000mW ", "W", 95_000),
        ("1.2 kW", "W", 1_200_000),
        ("5e3 J", "J", 5_000_000),
        ("7 kJ", "J", 7_000_000),
        ("0.5 Wh", "J", 1_800_000),
        ("2 kWh", "J", 7_200_000_000),
    ],
)
def test_units(line: str, unit: str, milli: int) -> None:
    source = CommandSensors(meter(f"print({line!r}, flush=True); time.sleep(9)"))
    info = only(source)
    assert info.unavailable is None
    assert info.unit == unit
    assert info.kind == ("power_instant" if unit == "W" else "energy_counter")
    assert info.scope == "wall"


def test_watts_become_energy() -> None:
    source = CommandSensors(
        meter("while True:\n print(300 + time.monotonic() % 1, flush=True)\n time.sleep(0.02)")
    )
    info = only(source)
    with Sampler([info], {"command": source.options()}) as sampler:
        wait_for(sampler, info.key, has_moved)
        t0_ns = time.monotonic_ns()
        time.sleep(1.0)
        energy = sampler.energy(info.key, t0_ns, time.monotonic_ns(), wait_s=PATIENCE_S)
    assert energy.joules == pytest.approx(300.5 * energy.duration_s, rel=0.01)
    assert not energy.simulated


def test_joules_are_a_counter() -> None:
    source = CommandSensors(
        meter("while True:\n print(7000 + 250 * time.monotonic(), 'J', flush=True)\n time.sleep(0.05)")
    )
    info = only(source)
    with Sampler([info], {"command": source.options()}) as sampler:
        wait_for(sampler, info.key, has_moved)
        t0_ns = time.monotonic_ns()
        time.sleep(0.8)
        energy = sampler.energy(info.key, t0_ns, time.monotonic_ns(), wait_s=PATIENCE_S)
        samples = sampler.samples(info.key)
    assert energy.bound_j is not None
    # The counter is late by as long as it takes to print a line and read it; the line says when it was made.
    late_s = max(
        sample.t_after_ns * 1e-9 - (sample.raw * info.scale - 7000) / 250
        for sample in samples
        if sample.raw is not None
    )
    assert energy.joules == pytest.approx(250.0 * energy.duration_s, abs=energy.bound_j + 250 * late_s)
    assert energy.method == "counter_tick_interpolated"


def test_a_meter_that_ends_loses_the_window() -> None:
    source = CommandSensors(meter("for n in range(25):\n print(300 + n, flush=True)\n time.sleep(0.02)"))
    info = only(source)
    with Sampler([info], {"command": source.options()}) as sampler:
        wait_for(sampler, info.key, has_moved)
        t0_ns = time.monotonic_ns()
        wait_for(sampler, info.key, lambda reads: reads[-1].failure is not None)
        time.sleep(0.5)
        energy = sampler.energy(info.key, t0_ns, time.monotonic_ns())
    assert energy.reason is not None
    assert energy.reason.code == "lost_at"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("print('hot', flush=True)", "unreadable"),
        ("print('-5 W', flush=True)", "unreadable"),
        ("print('12 BTU', flush=True)", "unreadable"),
        ("print('nan', flush=True)", "unreadable"),
        ("print('1e308 kWh', flush=True)", "unreadable"),
        ("print('0 W', flush=True)", "implausible"),
        ("pass", "lost"),
    ],
)
def test_what_is_no_reading(line: str, expected: str) -> None:
    assert code(only(CommandSensors(meter(line)))) == expected


def test_a_meter_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_FIRST_LINE_S", 0.1)
    assert code(only(CommandSensors(meter("time.sleep(9)")))) == "timeout"


def test_commands_that_cannot_be_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(COMMAND, raising=False)
    info = only(CommandSensors())
    assert code(info) == "not_configured"
    assert info.unavailable is not None
    assert COMMAND in info.unavailable.remedy
    assert code(only(CommandSensors("/nowhere/meter --watts"))) == "no_library"
    assert code(only(CommandSensors("meter 'unclosed"))) == "not_configured"
    assert code(only(CommandSensors("true", scope="moon"))) == "not_configured"
