"""From raw reads of a counter to ticks: the moments at which it showed a new value, and the energy then.

This is the only place that unwraps a counter. It sees every read in order, so no second reader can
lag behind it, and what cannot be a wrap becomes a break that no window may span.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from profiler.backends.base import Unavailable
from profiler.sensors.base import READ_FAILURES, SensorInfo

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

# Where a source does not say how much its device can draw: more than any board or server CPU
# (GB200 modules: 2.7 kW), less than what a counter reset or a torn read looks like.
DEFAULT_MAX_POWER_W = 5_000.0
# Short ticks may hold more than the limit: power limits are averages too.
_LIMIT_MARGIN = 1.5
_OLDEST = 1.5  # ticks
_CLOSE = 0.75  # of a tick: reads that are closer together do not hide one


@dataclass(frozen=True)
class Series:
    """Reads of one sensor in order; four arrays of equal length, times in CLOCK_MONOTONIC ns.

    Attributes:
        t_before_ns: before each call.
        t_after_ns: after it.
        raw: value in the sensor's integer units; meaningless where the read failed.
        failure: 0, or the place of the failure in ``READ_FAILURES``.
    """

    t_before_ns: Integers
    t_after_ns: Integers
    raw: Integers
    failure: Integers

    def __len__(self) -> int:
        return len(self.raw)

    def good(self) -> Series:
        """Return the reads that did not fail."""
        keep = self.failure == 0
        return Series(self.t_before_ns[keep], self.t_after_ns[keep], self.raw[keep], self.failure[keep])

    def between(self, t0_ns: int, t1_ns: int) -> Series:
        """Return the reads that ended after ``t0_ns`` and began before ``t1_ns``."""
        first = int(np.searchsorted(self.t_after_ns, t0_ns))
        last = int(np.searchsorted(self.t_before_ns, t1_ns, side="right"))
        return Series(
            self.t_before_ns[first:last],
            self.t_after_ns[first:last],
            self.raw[first:last],
            self.failure[first:last],
        )

    def failures(self) -> list[str]:
        """Return the codes of failed reads, the most frequent first."""
        counts = Counter(int(number) for number in self.failure[self.failure != 0])
        return [READ_FAILURES[number] for number, _ in counts.most_common()]


def series(rows: Any) -> Series:
    """Return a :class:`Series` from rows of (t_before_ns, t_after_ns, raw, failure)."""
    table = np.asarray(rows, dtype=np.int64).reshape(-1, 4)
    return Series(table[:, 0], table[:, 1], table[:, 2], table[:, 3])


@dataclass(frozen=True)
class Break:
    """A place that no window may span: the counter did something that is not counting.

    Attributes:
        t0_ns: last moment at which all was well.
        t1_ns: first moment at which it is well again.
        why: what was seen.
    """

    t0_ns: int
    t1_ns: int
    why: Unavailable


@dataclass(frozen=True)
class Ticks:
    """Moments at which a counter showed a new value.

    Attributes:
        lo_ns: earliest moment at which the new value can have appeared.
        hi_ns: latest such moment.
        joules: energy since the first tick.
        segment: number of the unbroken run that the tick belongs to; energies of different segments
            cannot be subtracted.
        wrapped_ns: moments of wraps that were added up.
        breaks: see :class:`Break`.
        tick_s: time between new values: measured, else what ``info`` says, else None; it is not seen
            where it is shorter than the time between reads.
    """

    lo_ns: Integers
    hi_ns: Integers
    joules: Floats
    segment: Integers
    wrapped_ns: tuple[int, ...]
    breaks: tuple[Break, ...]
    tick_s: float | None


def find_ticks(reads: Series, info: SensorInfo) -> Ticks:
    """Find where a counter showed new values, and add up its wraps.

    A fall is taken for a wrap only if the counter is known to wrap and the energy that follows is
    physically possible; any other fall is a reset (it starts near 0 again) or a step back.

    Args:
        reads: of the counter, in order.
        info: its scale, wrap and most possible power.
    """
    good = reads.good()
    limit_w = (info.max_power_w or DEFAULT_MAX_POWER_W) * _LIMIT_MARGIN
    delta = np.diff(good.raw)
    changed = np.flatnonzero(delta)
    lo, hi = good.t_before_ns[changed], good.t_after_ns[changed + 1]
    # A change stands for what was used since the change before it; of the first it is not known.
    since_ns = hi - np.concatenate([lo[:1], lo[:-1]])
    limit = since_ns * 1e-9 * limit_w / info.scale + 2 * info.resolution
    step = delta[changed].copy()
    wrapped: list[int] = []
    breaks: list[Break] = []
    broken = np.zeros(len(changed), dtype=bool)
    for at in (int(place) for place in np.flatnonzero((step < 0) | (step > limit))):
        if step[at] < 0 and info.wraps_at is not None and step[at] + info.wraps_at <= limit[at]:
            step[at] += info.wraps_at
            wrapped.append(int(hi[at]))
            continue
        if at == 0 and step[at] > 0:
            continue
        why = _why_broken(int(step[at]), int(good.raw[changed[at] + 1]), float(limit[at]), info)
        breaks.append(Break(int(lo[max(at - 1, 0)]), int(hi[at]), why))
        broken[at] = True
    breaks += _missed_wraps(good, info)
    gain = np.where(broken, 0, step)
    if len(gain):
        gain[0] = 0
    tick_s = _tick_s(good, changed) or info.tick_s
    if tick_s is not None:
        # Where reads are further apart than ticks, the value read is at most one tick old, plus jitter.
        lo = np.maximum(lo, good.t_before_ns[changed + 1] - round(_OLDEST * 1e9 * tick_s))
    return Ticks(
        lo, hi, np.cumsum(gain) * info.scale, np.cumsum(broken), tuple(wrapped), tuple(breaks), tick_s
    )


def _why_broken(step: int, value: int, limit: float, info: SensorInfo) -> Unavailable:
    joules = abs(step) * info.scale
    if step > 0:
        text = f"the counter rose by {joules:.0f} J at once, more than the device can use"
        return Unavailable("implausible", text, "repeat the measurement; if it stays, the sensor is faulty")
    if value <= limit:
        text = f"the counter started again at 0 (it fell by {joules:.0f} J): the driver was reloaded"
        return Unavailable("counter_reset", text, "repeat the measurement")
    text = f"the counter went back by {joules:.0f} J: it is faulty"
    return Unavailable("counter_backwards", text, "repeat the measurement; update the driver if it stays")


def _missed_wraps(good: Series, info: SensorInfo) -> list[Break]:
    """Pauses between reads in which the counter can have gone round unseen."""
    if info.wraps_at is None or len(good) < 2:
        return []
    most_s = info.wraps_at * info.scale / (info.max_power_w or DEFAULT_MAX_POWER_W)
    gaps_ns = np.diff(good.t_before_ns)
    return [
        Break(
            int(good.t_before_ns[at]),
            int(good.t_after_ns[at + 1]),
            Unavailable(
                "window_too_long",
                f"the counter was not read for {gaps_ns[at] * 1e-9:.0f} s and may have wrapped unseen",
                f"read it at least every {most_s:.0f} s",
            ),
        )
        for at in np.flatnonzero(gaps_ns >= most_s * 1e9)
    ]


def _tick_s(good: Series, changed: Integers) -> float | None:
    """Mean time between changes, where reads were close enough to tell one tick from the next.

    Changes seen by two reads in a row count only if those reads were clearly closer together than ticks
    are: between reads that are further apart any number of ticks may be hidden. To leave all of them out
    would leave out the short ones of a sensor that ticks twice per read, and take 20 ms for 24.
    Times far from the median (a pause of the sampler, a failed read) are left out.
    """
    if len(changed) < 3:
        return None
    several_reads = np.diff(changed) >= 2
    interval_s = np.diff(good.t_before_ns[changed]) * 1e-9
    if several_reads.sum() < 3:
        return None
    median = float(np.median(interval_s[several_reads]))
    resolved = interval_s[several_reads | (interval_s < _CLOSE * median)]
    usual = resolved[(resolved > 0.25 * median) & (resolved < 2 * median)]
    return float(usual.mean())
