"""Energy of a window from readings of power, where a device has no energy counter.

Worse than a counter in every way: what happens between two readings is never seen. The bound says how
much, from how far apart neighbouring readings are; it cannot know of power that moves in step with them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from profiler.backends.base import Unavailable
from profiler.sensors.base import Energy, SensorInfo
from profiler.sensors.ticks import DEFAULT_MAX_POWER_W, Floats, Series
from profiler.sensors.window import lost, refuse_if_too_wide

# An average over W seconds says little about a window that is not much longer.
_LEAST_AVERAGES = 5.0
_LEAST_TICKS = 5
_IN_STEP = 0.25  # of the usual difference between neighbouring readings
# Steps that last as long as a whole number of readings look like steady power: what is then missed, of the
# energy, and how long work of unknown steps is taken to stay in step.
_LOCKED = 0.15
_LOCKED_S = 1.0
_SUPPOSED_TICK_S = 0.2  # of a sensor that shows too few new values to tell
_HIDDEN_LEVEL = 0.1  # of the largest reading: power moves by at least this much where nobody looks
_CONSTANT_READS = 100  # as many equal readings in a row are steady power or a sensor that hangs
_LATE = 3.0
# Standard deviations that a bound stands for; neighbouring readings of independent power differ by
# sqrt(2) of theirs.
_SIGMAS = 2.6
# A limit is an average; what one reading shows may be above it, but not by this much.
_IMPLAUSIBLE = 1.5


def power_energy(
    reads: Series,
    info: SensorInfo,
    t0_ns: int,
    t1_ns: int,
    *,
    max_relative_bound: float | None = None,
    step_period_s: float | None = None,
) -> Energy:
    """Return the energy between two moments as the integral of power readings.

    A reading that is the mean over the trailing ``W`` seconds stands for the power ``W / 2`` earlier;
    near the edges of the window it still mixes in what lies outside, up to ``W / 8`` times the range
    of the power on each side.

    Args:
        reads: of the sensor; for trailing averages until ``W / 2`` after the window.
        info: of the sensor, with ``average_window_s`` where the readings are averages.
        t0_ns: beginning of the window, CLOCK_MONOTONIC.
        t1_ns: its end.
        max_relative_bound: refuse a value whose bound is a larger part of it (default: as large as it).
        step_period_s: time of one step of the work (a decode step): where it is close to a multiple of the
            time between readings that is flagged, and in the bound. Not known, a second is allowed for it.

    Returns:
        An :class:`Energy`, with a reason instead of a value where there can be none.
    """
    none = Energy(None, None, "none", info.scope, t0_ns, t1_ns, simulated=info.simulated)
    if t1_ns <= t0_ns:
        return _because(none, Unavailable("not_in_order", "the window ends before it begins"))
    average_s = info.average_window_s or 0.0
    duration_s = (t1_ns - t0_ns) * 1e-9
    if duration_s < _LEAST_AVERAGES * average_s:
        text = f"the window of {duration_s:.3g} s is too short: readings are averages over {average_s:.3g} s"
        remedy = f"measure over at least {_LEAST_AVERAGES * average_s:.3g} s"
        return _because(none, Unavailable("window_too_short", text, remedy), "short_window")
    readings = _readings(reads, info, t0_ns)
    refused = _refusal(reads, info, readings, t0_ns, t1_ns)
    if refused is not None:
        return _because(none, refused)
    window = _integrand(readings, duration_s, average_s)
    joules = float(np.trapezoid(window.powers, window.times))
    refresh_s = readings.tick_s or readings.spacing_s
    in_step = step_period_s is not None and _in_step(step_period_s, refresh_s)
    bound = _bound(window, reads, info, refresh_s)
    if not average_s:
        bound = float(np.hypot(bound, _LOCKED * _locked(duration_s, step_period_s, in_step) * joules))
    longest_s = float(np.diff(window.times).max())
    flags = _flags(reads.between(t0_ns, t1_ns), reads, longest_s, readings.spacing_s, info)
    if in_step:
        flags.append("aliasing_risk")
    energy = Energy(
        joules, bound, "power_integral", info.scope, t0_ns, t1_ns, len(window.times) - 2, readings.tick_s,
        tuple(flags), simulated=info.simulated,
    )  # fmt: skip
    return refuse_if_too_wide(energy, max_relative_bound)


class _Readings(NamedTuple):
    """Moments (s after the window began) at which the sensor had a new value, those values, and its tick."""

    moments_s: Floats
    power_w: Floats
    tick_s: float | None

    @property
    def spacing_s(self) -> float:
        """How far moments usually are apart."""
        return float(np.median(np.diff(self.moments_s)))


class _Integrand(NamedTuple):
    """Power over a window: seconds from its beginning, watts there, and watts in and just around it."""

    times: Floats
    powers: Floats
    near: Floats


def _integrand(readings: _Readings, duration_s: float, average_s: float) -> _Integrand:
    """Cut the window out of the readings; its ends lie on the lines between them."""
    moments_s, power_w, _ = readings
    inside = (moments_s > 0) & (moments_s < duration_s)
    edges = np.interp([0.0, duration_s], moments_s, power_w)
    powers = np.concatenate([edges[:1], power_w[inside], edges[1:]])
    beyond_s = readings.spacing_s + average_s / 2
    around = (moments_s > -beyond_s) & (moments_s < duration_s + beyond_s)
    times = np.concatenate([[0.0], moments_s[inside], [duration_s]])
    return _Integrand(times, powers, np.concatenate([powers, power_w[around]]))


def _bound(window: _Integrand, reads: Series, info: SensorInfo, refresh_s: float) -> float:
    """Return how far the integral may be off, in joules."""
    times, powers, near = window
    duration_s = float(times[-1])
    average_s = info.average_window_s or 0.0
    swing_w = max(float(near.max() - near.min()), _HIDDEN_LEVEL * float(near.max()))
    return (
        _SIGMAS * float(np.sqrt(np.sum((np.diff(powers) * np.diff(times)) ** 2) / 2))
        + 2 * average_s / 8 * swing_w
        # Readings of the moment can fall in step with the work, which no number of them averages out.
        + (0.0 if average_s else _IN_STEP * float(np.abs(np.diff(powers)).mean()) * duration_s)
        # Whether a value held since the one before or led up to it is not known: over a rise this adds up.
        + refresh_s / 2 * abs(float(powers[-1] - powers[0]))
        + info.resolution * info.scale * duration_s / 2
        + 2e-9 * float(np.median(reads.t_after_ns - reads.t_before_ns)) * float(near.max())
    )


def _locked(duration_s: float, step_period_s: float | None, in_step: bool) -> float:
    """Return for which part of a window steps may have been in step with the readings."""
    if in_step:
        return 1.0
    return min(1.0, _LOCKED_S / duration_s) if step_period_s is None else 0.0


def _flags(inside: Series, reads: Series, longest_s: float, spacing_s: float, info: SensorInfo) -> list[str]:
    """Return what was odd about the readings."""
    flags = ["read_failures"] if inside.failures() else []
    if longest_s > _LATE * max(spacing_s, 2 / info.poll_hz):
        flags.append("gap")
    if len(reads) >= _CONSTANT_READS and len(np.unique(reads.good().raw)) == 1:
        flags.append("constant_reading")
    return flags


def _because(energy: Energy, reason: Unavailable, *flags: str) -> Energy:
    return Energy(
        None, None, "none", energy.scope, energy.t0_ns, energy.t1_ns, 0, None, flags, reason, energy.simulated
    )


def _readings(reads: Series, info: SensorInfo, origin_ns: int) -> _Readings:
    """Return what the sensor showed, on a clock that begins at ``origin_ns``.

    A value is held until the next one. Only its first read is near the moment it was taken; a long run
    of equal values gets its last moment too, so that it is not joined to the next value by a ramp.
    """
    good, late_s = reads.good(), (info.average_window_s or 0.0) / 2
    middle_s = ((good.t_before_ns + good.t_after_ns) // 2 - origin_ns).astype(np.float64) * 1e-9
    changed = np.flatnonzero(np.diff(good.raw)) + 1
    if len(changed) < 2:
        return _Readings(middle_s - late_s, good.raw.astype(np.float64) * info.scale, None)
    # The new value appeared between two reads.
    moments = (middle_s[changed - 1] + middle_s[changed]) / 2
    tick_s = info.tick_s or _usual_s(np.diff(moments))
    values = good.raw[changed] * info.scale
    before = good.raw[changed - 1] * info.scale
    held = np.concatenate([[True], np.diff(moments) > 1.5 * tick_s])
    ends = moments[held] - tick_s
    all_moments = np.concatenate([middle_s[:1], ends, moments, middle_s[-1:]])
    all_values = np.concatenate([good.raw[:1] * info.scale, before[held], values, good.raw[-1:] * info.scale])
    order = np.argsort(all_moments, kind="stable")
    return _Readings(all_moments[order] - late_s, all_values[order], tick_s)


def _usual_s(intervals_s: Floats) -> float:
    """Time between new values: the median, but where the power rests for long, the short ones count.

    A few changes are changes of the power and say nothing about the sensor.
    """
    low, median, high = np.quantile(intervals_s, [0.25, 0.5, 0.75])
    usual_s = float(median if high <= 3 * low else np.quantile(intervals_s, 0.05))
    return usual_s if len(intervals_s) >= _LEAST_TICKS else min(usual_s, _SUPPOSED_TICK_S)


def _refusal(
    reads: Series, info: SensorInfo, readings: _Readings, t0_ns: int, t1_ns: int
) -> Unavailable | None:
    moments_s, power_w, tick_s = readings
    duration_s = (t1_ns - t0_ns) * 1e-9
    bad = reads.between(t0_ns, t1_ns).failures() or reads.failures()
    if not len(moments_s):
        return lost(bad[0], None) if bad else Unavailable("no_samples", "the sensor was never read")
    # The last value read is still valid for one more poll, a trailing average for half of itself.
    ends_s = float(moments_s[-1]) + 2 / info.poll_hz
    if ends_s < duration_s or moments_s[0] - 2 / info.poll_hz > 0:
        if bad and ends_s < duration_s:
            return lost(bad[0], max(0.0, float(moments_s[-1])))
        text = "the sensor was not read before and after the whole window"
        return Unavailable("window_not_covered", text, "sample for longer before and after it")
    inside = power_w[(moments_s > 0) & (moments_s < duration_s)]
    least_s = _LEAST_TICKS * max(tick_s or 0.0, 1 / info.poll_hz)
    if duration_s < least_s:
        text = f"the window of {duration_s:.3g} s holds fewer than {_LEAST_TICKS} readings"
        return Unavailable("window_too_short", text, f"measure over at least {least_s:.2g} s")
    limit_w = (info.max_power_w or DEFAULT_MAX_POWER_W) * _IMPLAUSIBLE
    seen = inside if len(inside) else power_w
    if float(seen.max()) > limit_w or float(seen.min()) < 0:
        text = f"readings from {seen.min():.0f} to {seen.max():.0f} W cannot be true (limit {limit_w:.0f} W)"
        return Unavailable("implausible", text, "see whether other tools show the same")
    if float(seen.max()) == 0.0:
        text = "the sensor shows 0 W, which no working device uses"
        return Unavailable("implausible", text, "see the device's health")
    return None


def _in_step(step_s: float, tick_s: float) -> bool:
    """Whether one is within 10 % of a whole number of the other, so that readings lock in."""
    ratio = max(step_s, tick_s) / min(step_s, tick_s)
    return abs(ratio - round(ratio)) < 0.1
