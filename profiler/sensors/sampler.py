"""The conductor's side of the sampler: start it, take over its reads, ask for the energy of a window.

::

    with Sampler(sensors) as sampler:
        t0_ns = time.monotonic_ns()
        ...
        energy = sampler.energy(key, t0_ns, time.monotonic_ns())
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

from profiler.backends.base import Json, Unavailable
from profiler.sensors import ring
from profiler.sensors.base import READ_FAILURES, Energy, Sample, SensorInfo
from profiler.sensors.energy import energy_of
from profiler.sensors.history import History
from profiler.sensors.interruptions import Interruption, Suspends, trusted
from profiler.sensors.sampler_child import NotStartedError, SamplerChild
from profiler.sensors.ticks import Series, find_ticks

_RETAINED_S = 1200.0
# Reads around edges come on top of the regular ones.
_ROOM_FOR_EDGES = 2


class Sampler:
    """Samples sensors in a process of its own while it is entered.

    Reads are kept in shared memory for twenty minutes; every call takes over what is new, and the reads of
    the last ``history_s`` are kept. If the process dies or is starved there are no reads, and windows over
    that time are flagged or have no energy; nothing is made up.

    Args:
        sensors: what to read; those that are unavailable are left out and stay so.
        options: constructor arguments of each source by name, as its ``options()`` returned them.
        history_s: seconds of reads to keep.
    """

    def __init__(
        self,
        sensors: Sequence[SensorInfo],
        options: Mapping[str, Mapping[str, Json]] | None = None,
        *,
        history_s: float = 3600.0,
    ) -> None:
        self._infos = {info.key: info for info in sensors}
        self._options = options or {}
        self._sampled = [info.key for info in sensors if info.unavailable is None and info.poll_hz > 0]
        self._history = History(self._sampled, history_s)
        self._taken = dict.fromkeys(self._sampled, 0)
        self._suspends = Suspends()
        self._outages: list[tuple[int, int, int]] = []
        self._child: SamplerChild | None = None
        self._ring: ring.Ring | None = None

    def __enter__(self) -> Sampler:
        try:
            self.start()
        except BaseException:  # an interrupt while it starts: nobody else knows of the process
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def infos(self) -> dict[str, SensorInfo]:
        """The sensors by key, with what was refused when they were opened."""
        return dict(self._infos)

    @property
    def pid(self) -> int | None:
        """Process id of the sampler, or None when it does not run."""
        return self._child.pid if self._child is not None and self._child.ended is None else None

    def start(self) -> None:
        """Start the process and wait until it samples; without any sensor to read nothing is started.

        A process that does not start leaves its sensors unavailable with code ``sampler_failed``.
        """
        if not self._sampled:
            return
        rate = max(self._infos[key].poll_hz for key in self._sampled)
        capacity = max(1024, _ROOM_FOR_EDGES * round(_RETAINED_S * rate))
        descriptor = ring.create(len(self._sampled), capacity)
        config = {
            "descriptor": descriptor,
            "channels": len(self._sampled),
            "capacity": capacity,
            "sources": self._sources(),
        }
        try:
            self._ring = ring.Ring(descriptor, len(self._sampled), capacity)
            self._launch(config, descriptor)
        finally:
            os.close(descriptor)

    @property
    def died(self) -> str | None:
        """How the process ended by itself, or None while it runs (or was never needed)."""
        if self._child is None or self._ring is None or self._child.ended is None:
            return None
        return f"the sampler process ended ({self._child.ended})"

    def restart(self) -> None:
        """Start a process that died again; what was sampled before stays, and so does the hole in it."""
        if self._child is None or self._ring is None:
            return
        code = self._child.ended
        self.drain()
        last_ns = self._history.last_ns
        self.stop()
        self._taken = dict.fromkeys(self._sampled, 0)
        self.start()
        self._outages.append((last_ns, time.monotonic_ns(), code if code is not None else 0))

    def forget(self, before_ns: int) -> None:
        """Drop the reads before a moment."""
        self.drain()
        self._history.forget(before_ns)

    def _sources(self) -> list[dict[str, Any]]:
        sources: dict[str, dict[str, Any]] = {}
        for channel, key in enumerate(self._sampled):
            info = self._infos[key]
            entry = sources.setdefault(
                info.source,
                {"name": info.source, "options": dict(self._options.get(info.source, {})), "keys": {}},
            )
            entry["keys"][key] = [channel, info.poll_hz]
        return list(sources.values())

    def _launch(self, config: Mapping[str, Any], descriptor: int) -> None:
        try:
            self._child = SamplerChild(config, descriptor)
            refused = {key: Unavailable(*words) for key, words in self._child.refused.items()}
        except NotStartedError as error:
            self.stop()
            failed = Unavailable("sampler_failed", f"the sampler process did not start: {error}")
            refused = dict.fromkeys(self._sampled, failed)
        for key, why in refused.items():
            self._infos[key] = replace(self._infos[key], unavailable=why)

    def mark(self) -> None:
        """Say that a window begins or ends now: counters that tick fast are read densely for a moment.

        The energy is then located to a tenth of a millisecond there instead of to ten. It costs the caller
        some microseconds and never waits; the moment may lie a millisecond or two from now. Where the sampler
        is gone, or was told of too many edges, nothing happens, and the bound is what it would have been.
        """
        if self._child is not None:
            self._child.mark()

    def stop(self) -> None:
        """End the process; the reads taken over so far stay."""
        if self._ring is not None:
            self.drain()
        if self._child is not None:
            self._child.stop()
        if self._ring is not None:
            self.drain()
            self._ring.close()
            self._ring = None

    def drain(self) -> None:
        """Take over the reads made since the last call; do so at least every twenty minutes."""
        self._suspends.notice()
        if self._ring is None:
            return
        for channel, key in enumerate(self._sampled):
            self._taken[key], raw = self._ring.read(channel, self._taken[key])
            if raw:
                self._history.add(key, raw)

    def series(self, key: str, t0_ns: int | None = None, t1_ns: int | None = None) -> Series:
        """Return the reads of a sensor, all or those between two moments."""
        self.drain()
        return self._history.series(key, t0_ns, t1_ns)

    def samples(self, key: str, t0_ns: int | None = None, t1_ns: int | None = None) -> list[Sample]:
        """Return the reads of a sensor as objects."""
        reads = self.series(key, t0_ns, t1_ns)
        columns = (reads.t_before_ns, reads.t_after_ns, reads.raw, reads.failure)
        return [
            Sample(key, before, after, None if failure else raw, READ_FAILURES[failure])
            for before, after, raw, failure in zip(*(column.tolist() for column in columns), strict=True)
        ]

    def energy(
        self,
        key: str,
        t0_ns: int,
        t1_ns: int,
        *,
        wait_s: float | None = None,
        widen: bool = True,
        max_relative_bound: float | None = None,
        step_period_s: float | None = None,
    ) -> Energy:
        """Return the energy of one sensor over a window; the reason why not where there is none.

        Args:
            key: of an energy counter or a power sensor.
            t0_ns: beginning, CLOCK_MONOTONIC.
            t1_ns: end.
            wait_s: how long to wait for the first new value after the window; by default up to three
                ticks (half an averaging window more where readings are averages), at most 5 s.
            widen: see :func:`profiler.sensors.window.counter_energy`.
            max_relative_bound: refuse a value that is less certain.
            step_period_s: see :func:`profiler.sensors.power.power_energy`.

        Raises:
            KeyError: the key is not one of the sampler's sensors.
        """
        info = self._with_tick(self._infos[key])
        if info.unavailable is not None:
            return Energy(
                None, None, "none", info.scope, t0_ns, t1_ns, 0, None, (), info.unavailable, info.simulated
            )
        deadline_ns = t1_ns + round((self._patience_s(info) if wait_s is None else wait_s) * 1e9)
        while True:
            energy = energy_of(
                self.series(key), info, t0_ns, t1_ns,
                widen=widen, max_relative_bound=max_relative_bound, step_period_s=step_period_s,
            )  # fmt: skip
            waiting = energy.reason is not None and energy.reason.code in ("window_not_covered", "no_samples")
            if not waiting or self.pid is None or time.monotonic_ns() >= deadline_ns:
                return trusted(energy, self.interruptions)
            time.sleep(min(0.02, 1 / info.poll_hz))

    def find_ticks(self) -> None:
        """Find the tick of every counter that has been read for long enough, once and for all."""
        for info in list(self._infos.values()):
            self._with_tick(info)

    def _with_tick(self, info: SensorInfo) -> SensorInfo:
        """Add the counter's tick as the first second of reads shows it, which begins with a fast burst."""
        if info.tick_s is None and info.kind == "energy_counter" and info.unavailable is None:
            reads = self.series(info.key)
            if len(reads):
                first = reads.between(0, int(reads.t_after_ns[0]) + 10**9)
                info = self._infos[info.key] = replace(info, tick_s=find_ticks(first, info).tick_s)
        return info

    def _patience_s(self, info: SensorInfo) -> float:
        return min(5.0, 3 * (info.tick_s or 0.15) + 2 / info.poll_hz + (info.average_window_s or 0.0))

    @property
    def interruptions(self) -> list[Interruption]:
        """Times over which there were no reads that can be trusted, and why."""
        found = self._suspends.interruptions
        died = self.died
        if died is not None:  # whatever is missing is missing for that
            found.append(Interruption("sampler_died", 0, time.monotonic_ns(), died))
        for begin, end, code in self._outages:
            text = f"the sampler process ended ({code}) and was started again"
            found.append(Interruption("sampler_died", begin, end, text))
        return found
