"""Numbers for people: three significant digits and a unit that says what it is.

Inside the program everything is in base units; only what a person reads goes through here. A value
that is not known is shown as :data:`UNKNOWN`, never as 0.
"""

from __future__ import annotations

from collections.abc import Sequence

UNKNOWN = "–"

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_COUNT = ("", "k", "M", "B", "T")
_SI = ("", "k", "M", "G", "T", "P", "E")
_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def format_bytes(value: float | None, binary: bool = True) -> str:
    """Format bytes as ``15.2 GiB``, or as ``16.4 GB`` when not ``binary``."""
    if value is None:
        return UNKNOWN
    return _scaled(value, 1024 if binary else 1000, _BINARY if binary else _DECIMAL, " ")


def format_count(value: float | None) -> str:
    """Format a count as ``7.62B`` (k, M, B for 10**9, T for 10**12)."""
    return UNKNOWN if value is None else _scaled(value, 1000, _COUNT, "")


def format_flops(value: float | None) -> str:
    """Format a number of floating-point operations as ``9.30 GFLOP``."""
    return UNKNOWN if value is None else _scaled(value, 1000, [f"{prefix}FLOP" for prefix in _SI], " ")


def format_rate(value: float | None, unit: str) -> str:
    """Format a rate per second, as ``3.35 TB/s`` or ``1,230 tokens/s``.

    Args:
        value: rate in units per second.
        unit: ``B`` and ``FLOP`` take decimal prefixes; words such as ``tokens`` do not.
    """
    if value is None:
        return UNKNOWN
    if unit in ("B", "FLOP"):
        return _scaled(value, 1000, [f"{prefix}{unit}/s" for prefix in _SI], " ")
    return f"{_three_digits(value)} {unit}/s"


def format_seconds(value: float | None) -> str:
    """Format a duration as ``12.3 µs``, ``45.6 ms``, ``1.23 s``, ``2 min 05 s`` or ``1 h 02 min``."""
    if value is None:
        return UNKNOWN
    if value < 0:
        return f"-{format_seconds(-value)}"
    if round(value) >= 60:
        minutes, seconds = divmod(round(value), 60)
        if minutes < 60:
            return f"{minutes} min {seconds:02d} s"
        hours, minutes = divmod(round(value / 60), 60)
        return f"{hours:,} h {minutes:02d} min"
    if value == 0:
        return "0 s"
    # A value that would be rounded up to 1000 of a unit belongs to the next larger one.
    size, unit = next((entry for entry in _SECONDS if value >= entry[0] * 0.9995), _SECONDS[-1])
    return f"{_three_digits(value / size)} {unit}"


def _scaled(value: float, step: int, units: Sequence[str], gap: str) -> str:
    if value < 0:
        return f"-{_scaled(-value, step, units, gap)}"
    power = 0
    while power < len(units) - 1 and max(value, float(f"{value:.3g}")) >= step:
        value /= step
        power += 1
    return f"{_three_digits(value)}{gap if units[power] else ''}{units[power]}"


def _three_digits(value: float) -> str:
    """``0.123``, ``1.23``, ``12.3``, ``123``, ``1,230``; whole numbers below 1000 without a fraction."""
    rounded = float(f"{value:.3g}")
    if rounded == int(rounded) and (value == int(value) or rounded >= 100):
        return f"{int(rounded):,}"
    if rounded < 1:
        return f"{rounded:g}"
    return f"{rounded:.2f}" if rounded < 10 else f"{rounded:.1f}"
