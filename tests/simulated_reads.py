"""Reads of a sensor that never existed, of power whose energy is known exactly; no time passes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from fakes.power import Profile

from profiler.sensors.base import SensorInfo
from profiler.sensors.ticks import Series, series

KINDS = ("steady", "phases", "steps", "bursts", "square")
COUNTER = SensorInfo(
    "test:device/energy", "test", "device", "energy_counter", "board", "J", 1e-3, 100.0, max_power_w=700.0
)


def random_profile(rng: np.random.Generator, kind: str, length_s: float) -> Profile:
    """Power as devices under different work have it, between 60 and 700 W."""
    low, high = sorted(rng.uniform(60.0, 700.0, 2))
    if kind == "steady":
        return Profile([(0.0, float(high))])
    if kind == "square":
        period_s, share = rng.uniform(0.01, 0.4), rng.uniform(0.2, 0.8)
        lengths = np.tile([period_s * share, period_s * (1 - share)], int(length_s / period_s) + 2)
        watts = np.tile([high, low], len(lengths) // 2)
    else:
        shortest, longest = {"phases": (0.2, 2.0), "steps": (0.02, 0.3), "bursts": (0.005, 0.03)}[kind]
        lengths = rng.uniform(shortest, longest, int(2 * length_s / (shortest + longest)) + 50)
        watts = rng.uniform(low, high, len(lengths))
    starts = np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
    return Profile(list(zip(starts.tolist(), watts.tolist(), strict=True)))


@dataclass(frozen=True)
class Meter:
    """How the sensor works and how it is read.

    Attributes:
        tick_s: time between new values.
        jitter: how far ticks are off, as part of ``tick_s``.
        poll_s: time between reads.
        average_s: for power: mean over so long, 0 for the moment's.
        noise_w: for power: standard deviation of a reading.
    """

    tick_s: float = 0.1
    jitter: float = 0.0
    poll_s: float = 0.01
    average_s: float = 0.0
    noise_w: float = 0.0

    def _moments(self, rng: np.random.Generator, length_s: float) -> tuple[list[float], list[float]]:
        """Return moments of reads, and of the tick that each of them sees."""
        count = int(length_s / self.tick_s)
        ticks = (
            np.arange(count) + rng.uniform() + rng.uniform(-self.jitter, self.jitter, count)
        ) * self.tick_s
        ticks = np.maximum.accumulate(np.maximum(ticks, 0.0))
        reads = np.cumsum(self.poll_s * (1 + rng.exponential(0.05, int(length_s / self.poll_s))))
        reads = reads[(reads < length_s) & (reads > ticks[0])]
        seen = ticks[np.searchsorted(ticks, reads, side="right") - 1]
        return reads.tolist(), seen.tolist()

    def counter(self, rng: np.random.Generator, profile: Profile, length_s: float) -> Series:
        """Reads of an energy counter in millijoules."""
        reads, seen = self._moments(rng, length_s)
        return _series(rng, reads, [int(5e9 + profile.joules(0.0, moment) * 1e3) for moment in seen])

    def power(self, rng: np.random.Generator, profile: Profile, length_s: float) -> Series:
        """Reads of power in units of 0.1 W."""
        reads, seen = self._moments(rng, length_s)
        late = [(read, moment) for read, moment in zip(reads, seen, strict=True) if moment > self.average_s]
        noise = dict(zip(seen, rng.normal(0.0, self.noise_w, len(seen)), strict=True))
        raw = [
            round(
                10
                * (
                    noise[moment]
                    + (
                        profile.joules(moment - self.average_s, moment) / self.average_s
                        if self.average_s
                        else profile.at(moment)
                    )
                )
            )
            for _, moment in late
        ]
        return _series(rng, [read for read, _ in late], raw)


def _series(rng: np.random.Generator, reads_s: list[float], raw: list[int]) -> Series:
    calls_ns = rng.integers(10_000, 60_000, len(reads_s)).tolist()
    rows = [
        (round(read * 1e9) - call // 2, round(read * 1e9) + call // 2, value, 0)
        for read, call, value in zip(reads_s, calls_ns, raw, strict=True)
    ]
    return series(rows)
