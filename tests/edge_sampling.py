"""A fast counter sampled as the sampler does, dense around edges included, in a time of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from fakes.power import Profile
from simulated_reads import COUNTER

from profiler.sensors import ring
from profiler.sensors.edge_reads import EdgeReads
from profiler.sensors.sampler_process import Channel, Loop
from profiler.sensors.ticks import Series, series

FAST = replace(COUNTER, scale=1e-6)
CALL_S = 10e-6


class TimeOverError(Exception):
    """All that was to be sampled has been."""


class EdgeSampling:
    """Runs the sampler's loop over one made-up counter, and its dense reads where edges are marked.

    Args:
        rng: of ticks and of how late the system wakes.
        profile: of the power.
        length_s: for how long.
        tick_s: time between new values.
        jitter: how far ticks are off, as part of ``tick_s``.
        marks_s: when the sampler hears of an edge.
        call_s: time that one read takes.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        profile: Profile,
        length_s: float,
        *,
        tick_s: float = 0.001,
        jitter: float = 0.03,
        marks_s: Sequence[float] = (),
        call_s: float = CALL_S,
    ) -> None:
        count = int(length_s / tick_s) + 2
        ticks = (np.arange(count) + rng.uniform() + rng.uniform(-jitter, jitter, count)) * tick_s
        self.ticks_s = np.maximum.accumulate(np.maximum(ticks, 0.0))
        self._joules = [int(5e6 + 1e6 * profile.joules(0.0, float(moment))) for moment in self.ticks_s]
        self._rng, self._end_s, self._call_s = rng, length_s, call_s
        self._marks = sorted(marks_s)
        self._now_s = float(self.ticks_s[0])

    def counter(self, moment_s: float) -> int:
        """What a read at a moment shows."""
        return self._joules[max(0, int(np.searchsorted(self.ticks_s, moment_s, side="right")) - 1)]

    def sample(self) -> Series:
        """Return all reads."""
        descriptor = ring.create(1, 200_000)
        memory = ring.Ring(descriptor, 1, 200_000)
        os.close(descriptor)
        channel = Channel(memory, 0, self._read, 100.0, self._clock)
        edges = EdgeReads([channel], self._clock)
        try:
            Loop([channel]).run(self._clock, lambda seconds: self._sleep(seconds, edges))
        except TimeOverError:
            pass
        _, records = memory.read(0, 0)
        memory.close()
        return series(np.frombuffer(records, dtype=np.int64))

    def _clock(self) -> int:
        return round(self._now_s * 1e9)

    def _read(self) -> int:
        value = self.counter(self._now_s)
        self._now_s += self._call_s * float(self._rng.uniform(0.8, 1.5))
        return value

    def _sleep(self, seconds: float, edges: EdgeReads) -> None:
        """The regular reads pause; edges are served meanwhile, in the sampler by another thread."""
        until_s = self._now_s + seconds + float(self._rng.exponential(5e-5))
        while self._marks and self._marks[0] <= until_s:
            self._now_s = max(self._now_s, self._marks[0]) + float(self._rng.exponential(3e-5))
            try:
                edges.follow(self._waiting())
            except EOFError:
                pass
        self._now_s = max(self._now_s, until_s)
        if self._now_s > self._end_s:
            raise TimeOverError

    def _waiting(self) -> Callable[[float | None], bool]:
        """What waits for the one edge that is due, and for those that come while it is served."""
        served = False

        def wait(seconds: float | None) -> bool:
            nonlocal served
            if seconds is None:
                if served:
                    raise EOFError
                served = True
                return self._due()
            self._now_s += seconds + float(self._rng.exponential(1e-5))
            return self._due()

        return wait

    def _due(self) -> bool:
        due = False
        while self._marks and self._marks[0] <= self._now_s:
            self._marks.pop(0)
            due = True
        return due
