"""Energy between two reads of a counter that only counts up, except when it wraps or is reset."""

from __future__ import annotations

import math

from profiler.backends.base import CounterPart, EnergyReading, Unavailable

# No counter that wraps (CPU packages) belongs to a part that can draw this much: the largest server
# CPUs are specified at 500 W. Beyond it a fall of the counter is a reset, not a wrap.
MAX_PACKAGE_POWER_W = 1000.0


def joules_between(
    first: EnergyReading, second: EnergyReading, *, max_power_w: float = MAX_PACKAGE_POWER_W
) -> float | Unavailable:
    """Return the energy used between two reads of the same counter, in joules.

    A fall of the counter is taken for a wrap only if the counter is known to wrap and the energy
    that follows is physically possible; everything else that falls is refused. The result is
    greater than 0: a counter that did not move has not been measured, it has not used 0 J.

    This is the plain difference. Each end may lag by one update of the counter, so its error is up
    to ``update period x power`` and only shrinks with longer windows. A reset of a counter to 0
    that has since counted beyond the first value cannot be seen from two reads.

    Args:
        first: the earlier read.
        second: the later read.
        max_power_w: most power that one wrapping counter can stand for, in watts; bounds both what
            passes for a wrap and how long two reads may lie apart before wraps go unnoticed.

    Returns:
        Joules, or :class:`Unavailable` with code ``different_counters``, ``not_in_order``,
        ``same_tick``, ``window_too_long``, ``counter_reset`` or ``implausible``.
    """
    if _identity(first) != _identity(second):
        return Unavailable(
            "different_counters",
            f"the reads come from different counters ({first.source} and {second.source})",
        )
    seconds = (second.monotonic_ns - first.monotonic_ns) * 1e-9
    if seconds <= 0:
        return Unavailable("not_in_order", "the second read was not made after the first")
    total = 0.0
    for before, after in zip(_parts(first), _parts(second), strict=True):
        joules = _part_joules(before, after, seconds, max_power_w)
        if isinstance(joules, Unavailable):
            return joules
        total += joules
    return total


def _identity(reading: EnergyReading) -> tuple[str, str, list[str]]:
    return reading.source, reading.scope, [part.source for part in reading.parts]


def _parts(reading: EnergyReading) -> tuple[CounterPart, ...]:
    return reading.parts or (CounterPart(reading.source, reading.joules, reading.wraps_at_joules),)


def _part_joules(
    before: CounterPart, after: CounterPart, seconds: float, max_power_w: float
) -> float | Unavailable:
    name, wraps_at = before.source, before.wraps_at_joules
    if (
        not (math.isfinite(before.joules) and math.isfinite(after.joules))
        or min(before.joules, after.joules) < 0
    ):
        return Unavailable("implausible", f"{name} shows {before.joules} J, then {after.joules} J")
    if wraps_at is not None and seconds * max_power_w >= wraps_at:
        return Unavailable(
            "window_too_long",
            f"{name} wraps every {wraps_at:.0f} J and may have wrapped unseen in {seconds:.0f} s",
            f"read it at least every {wraps_at / max_power_w:.0f} s",
        )
    joules = after.joules - before.joules
    if joules < 0 and wraps_at is not None and joules + wraps_at <= seconds * max_power_w:
        joules += wraps_at
    if joules < 0:
        return Unavailable(
            "counter_reset",
            f"{name} went back by {-joules:.0f} J in {seconds:.3g} s: it was reset or is faulty",
            "repeat the measurement",
        )
    if joules == 0:
        return Unavailable(
            "same_tick",
            f"{name} did not move in {seconds:.3g} s",
            "measure over a longer window; if it never moves, the sensor is stuck",
        )
    if wraps_at is not None and joules > seconds * max_power_w:
        return Unavailable(
            "implausible", f"{name} rose by {joules:.0f} J in {seconds:.3g} s, more than a CPU can use"
        )
    return joules
