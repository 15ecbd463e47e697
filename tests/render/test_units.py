"""Numbers as people read them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.render.units import (
    UNKNOWN,
    format_bytes,
    format_count,
    format_flops,
    format_rate,
    format_seconds,
)


@pytest.mark.parametrize(
    ("value", "binary", "shown"),
    [
        (0, True, "0 B"),
        (1, True, "1 B"),
        (1023, True, "1,020 B"),
        (1024, True, "1 KiB"),
        (1536, True, "1.50 KiB"),
        (57344, True, "56 KiB"),
        (16381470720, True, "15.3 GiB"),
        (16381470720, False, "16.4 GB"),
        (999_999_999, False, "1.00 GB"),
        (80 << 30, True, "80 GiB"),
        (-2048, True, "-2 KiB"),
        (10**30, False, "1,000,000,000,000 EB"),
        (None, True, UNKNOWN),
    ],
)
def test_bytes(value: float | None, binary: bool, shown: str) -> None:
    assert format_bytes(value, binary) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (999, "999"),
        (1234, "1.23k"),
        (494_032_768, "494M"),
        (999_999_999, "1.00B"),
        (7_615_616_512, "7.62B"),
        (671_026_404_352, "671B"),
        (2.5e12, "2.50T"),
        (0.5, "0.5"),
        (0.0123, "0.0123"),
        (None, UNKNOWN),
    ],
)
def test_counts(value: float | None, shown: str) -> None:
    assert format_count(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 s"),
        (3e-10, "0.3 ns"),
        (12.3e-6, "12.3 µs"),
        (0.0456, "45.6 ms"),
        (0.9996, "1.00 s"),
        (1.234, "1.23 s"),
        (59.4, "59.4 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.6, "1 h 00 min"),
        (3725, "1 h 02 min"),
        (7199, "2 h 00 min"),
        (-0.5, "-500 ms"),
        (None, UNKNOWN),
    ],
)
def test_seconds(value: float | None, shown: str) -> None:
    assert format_seconds(value) == shown


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (3.35e12, "B", "3.35 TB/s"),
        (989e12, "FLOP", "989 TFLOP/s"),
        (12.3, "tokens", "12.3 tokens/s"),
        (1234.5, "tokens", "1,230 tokens/s"),
        (None, "tokens", UNKNOWN),
    ],
)
def test_rates(value: float | None, unit: str, shown: str) -> None:
    assert format_rate(value, unit) == shown


def test_flops() -> None:
    assert format_flops(9.3e9) == "9.30 GFLOP"
    assert format_flops(None) == UNKNOWN


SCALES = {"": 1, "k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


@given(value=st.floats(min_value=1e-3, max_value=1e15))
@settings(deadline=None)
def test_three_digits_are_kept(value: float) -> None:
    shown = re.fullmatch(r"([\d.,]+)([kMBT]?)", format_count(value))
    assert shown is not None
    assert float(shown[1].replace(",", "")) * SCALES[shown[2]] == pytest.approx(value, rel=0.00501)


@given(value=st.floats(min_value=1e-9, max_value=1e9), factor=st.floats(min_value=1.02, max_value=50))
@settings(deadline=None)
def test_longer_never_looks_shorter(value: float, factor: float) -> None:
    assert _seconds(format_seconds(value)) <= _seconds(format_seconds(value * factor))


def _seconds(shown: str) -> float:
    sizes = {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600}
    words = shown.replace(",", "").split()
    return sum(float(number) * sizes[unit] for number, unit in zip(words[::2], words[1::2], strict=True))


@given(value=st.integers(min_value=0, max_value=1 << 62))
@settings(deadline=None)
def test_bytes_never_reach_the_next_unit(value: int) -> None:
    number, unit = format_bytes(value).split(" ")
    assert float(number.replace(",", "")) < 1024 or unit == "EiB"
