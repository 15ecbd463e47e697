"""States of a device while trials ran, and the flags that they raise."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from profiler.measure.conditions import Watched, condition_flags, foreign_flag
from profiler.sensors.base import Kind, SensorInfo, Unit
from profiler.sensors.throttle import HARDWARE, POWER, THERMAL, reasons
from profiler.sensors.ticks import series


def watched(
    kind: Kind, values: Sequence[int], name: str = "x", unit: Unit = "bits", nominal: int | None = None
) -> Watched:
    info = SensorInfo(f"nvml:GPU-1/{name}", "nvml", "GPU-1", kind, "board", unit, nominal=nominal)
    rows = [(at * 10**9, at * 10**9 + 1000, value, 0) for at, value in enumerate(values)]
    return Watched(info, series(rows))


def codes(*sensors: Watched) -> list[str]:
    return [flag.code for flag in condition_flags(sensors)]


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (0x00, set()),
        (0x01 | 0x02 | 0x10, set()),  # idle, application clocks, synchronous boost
        (0x04, {POWER}),
        (0x80, {POWER}),
        (0x20, {THERMAL}),
        (0x08, {HARDWARE}),
        (0x08 | 0x40, {THERMAL}),
        (0x04 | 0x20, {POWER, THERMAL}),
    ],
)
def test_nvml_reasons(bits: int, expected: set[str]) -> None:
    assert reasons("nvml", bits) == expected
    assert reasons("somebody else", bits) == set()


def test_throttling_in_more_than_a_few_reads_is_flagged_with_its_share() -> None:
    (flag,) = condition_flags([watched("throttle", [0x20] * 5 + [1] * 5)])
    assert (flag.code, "50%" in flag.text) == (THERMAL, True)
    assert codes(watched("throttle", [0x20] + [1] * 30)) == []
    assert codes(watched("throttle", [])) == []


def test_a_counter_of_throttlings_counts_when_it_grows() -> None:
    assert codes(watched("throttle", [3, 3, 5], unit="count")) == [THERMAL]
    assert codes(watched("throttle", [3, 3, 3], unit="count")) == []


def test_new_memory_errors_are_flagged_and_old_ones_are_not() -> None:
    assert codes(watched("ecc", [2, 2, 3])) == ["ecc_errors"]
    assert codes(watched("ecc", [2, 2, 2])) == []
    assert codes(watched("ecc", [2])) == []


def test_a_clock_below_its_rated_one_is_flagged_where_no_reasons_are_named() -> None:
    (flag,) = condition_flags([watched("clock", [1200] * 8, "core_clock", nominal=1800)])
    assert flag.code == "clock_below_rated"
    assert "100%" in flag.text
    assert (
        codes(watched("clock", [1800] * 8 + [800], "core_clock", nominal=1800)) == []
    )  # a rest between steps
    assert codes(watched("clock", [1200] * 8, "sm_clock")) == []  # nobody says what it should be
    assert codes(watched("clock", [1200] * 2, "core_clock", nominal=1800)) == []


def test_a_device_that_calls_itself_sick_is_flagged() -> None:
    (flag,) = condition_flags([watched("health", [0, 0, 2, 0])])
    assert (flag.code, "'alarm'" in flag.text) == ("device_alarm", True)
    assert codes(watched("health", [0, 0])) == []
    assert codes(watched("health", [])) == []


def test_a_clock_that_falls_is_flagged() -> None:
    (flag,) = condition_flags([watched("clock", [1980] * 4 + [1700] * 4, "sm_clock")])
    assert flag.code == "clock_changed"
    assert codes(watched("clock", [1980] * 4 + [1950] * 4, "sm_clock")) == []
    assert codes(watched("clock", [1980, 1000], "sm_clock")) == []
    assert codes(watched("clock", [2600] * 4 + [1000] * 4, "memory_clock")) == []


def test_a_power_limit_that_was_moved_between_starts_is_seen() -> None:
    same = watched("power_limit", [700, 700])
    assert codes(same, same) == []
    assert codes(same, watched("power_limit", [500, 500])) == ["power_cap_changed"]


def test_a_narrow_link_is_flagged_only_if_it_never_was_wide() -> None:
    assert codes(watched("link", [8, 8], nominal=16)) == ["link_degraded"]
    assert codes(watched("link", [1, 16], nominal=16)) == []
    assert codes(watched("link", [8, 8])) == []


@pytest.mark.parametrize(
    ("counts", "flagged"),
    [
        ((0, 1, 1), False),
        ((1, 2, 2), True),
        ((0, 1, 2), True),
        ((0, 2, 1), False),
        ((None, None, None), False),
    ],
)
def test_other_processes_on_the_device(counts: tuple[int | None, ...], flagged: bool) -> None:
    assert (foreign_flag(*counts) is not None) is flagged
