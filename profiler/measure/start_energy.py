"""What a start does for its energy: rest with the model loaded, repeat work until windows are long."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from profiler.backends.base import Device
from profiler.measure.amounts import window_for
from profiler.measure.kept_reads import EnergySource
from profiler.measure.phase_energies import Done, Run, done_in, phase_energies, window
from profiler.measure.sensing import Sensing
from profiler.results.schema import CaseSpec, EnergyRecord, EnergySpans, PhaseRecord
from profiler.sensors.base import Energy
from profiler.sensors.meters import Meter

AIM = 0.02
"""Relative bound that the windows of phases are made long enough for."""

IDLE_SHARE, REPEAT_SHARE = 0.05, 0.10
"""Shares of a start's time that resting and repeating may take."""

LONGEST_IDLE_S = 10.0
_SHORTEST_IDLE_S = 0.2
_SETTLE_SHARE = 0.2  # of the rest, before it counts: power falls after loading
_FEWEST_REPEATS = 3
# A window is planned from the bound of another; alone, a phase has more swing at its edges.
_SWING = 2.0
# Averaging windows, or ticks, that a window must be as long as.
_SENSOR_PERIODS = 6.0
_UNKNOWN_WINDOW_S = 2.0
# The highest second wants a second to be found in.
_SECOND_S = 1.1
# States are read twice per second: a stretch in which there are some reads.
_STATES_NS = 3_000_000_000


def working_ns(done: Done, warm_up_ns: int) -> tuple[int, int]:
    """Return the time for which the state of the device is judged.

    Args:
        done: what the start did; at least one trial.
        warm_up_ns: when its warm-up began.

    Returns:
        From the first measured trial, or a little before, to the end of the last work.
    """
    last = (done.prefills or done.requests or done.trials)[-1]
    begin_ns = min(done.trials[0].submit_ns, last.last_ns - _STATES_NS)
    return max(begin_ns, warm_up_ns), last.last_ns


class StartEnergy:
    """Energy of one start. Does nothing, and takes no time, where nothing can be read.

    Args:
        sensing: the sweep's sensors.
        devices: under test.
        spec: the case.
        index: of the start.
        seconds: wall time of the start; at most 15% of it is spent here.
    """

    def __init__(
        self, sensing: Sensing, devices: Sequence[Device], spec: CaseSpec, index: int, seconds: float
    ) -> None:
        self._sensing = sensing
        self._device = device = devices[0]
        self._spec = spec
        self._index = index
        self._seconds = seconds
        self._meters = sensing.meters(*devices)
        self._phases: dict[str, tuple[int, int]] = {}
        self.done = Done()
        self.spans: EnergySpans | None = None
        self.processes_before = sensing.processes(device)
        self.processes_loaded: int | None = None
        self.processes_after: int | None = None

    @property
    def watching(self) -> bool:
        """Whether any meter can follow this start."""
        return not self.done.virtual and any(meter.sensors for meter in self._meters)

    @property
    def reserve_s(self) -> float:
        """Time to be kept back from the trials."""
        return REPEAT_SHARE * self._seconds if self.watching else 0.0

    def note(self, phase: str, begin_ns: int) -> None:
        """Remember that ``phase`` lasted from ``begin_ns`` until now."""
        self._phases[phase] = (begin_ns, time.monotonic_ns())

    def rest(self) -> None:
        """Stand still with the model loaded, for the power of that."""
        self.processes_loaded = self._sensing.processes(self._device)
        seconds = min(LONGEST_IDLE_S, IDLE_SHARE * self._seconds)
        if not self.watching or seconds < _SHORTEST_IDLE_S:
            return
        time.sleep(_SETTLE_SHARE * seconds)
        self.done.idle = self._sensing.rest((1 - _SETTLE_SHARE) * seconds)
        self.note("idle", self.done.idle[0])

    def edge(self) -> None:
        """Say that a batch begins or has ended about now."""
        if self.watching:
            self._sensing.edge()

    def ran(self, run: Run) -> None:
        """Take note of a measured trial."""
        if run.last_ns > time.monotonic_ns():
            self.done.virtual = True
        self.done.trials.append(run)
        self._sensing.keep_up()

    def repeat(self, request: Callable[[str, int, int], Run]) -> None:
        """Repeat whole requests where the trials were too short for their energy, then the prefill alone.

        Args:
            request: runs one batch, given a word for its token ids, how many such were run, and how many
                tokens to generate.
        """
        self.processes_after = self._sensing.processes(self._device)
        if not (self.watching and self.done.trials):
            return
        done, outputs = self.done, self._spec.output_tokens
        meter = next(meter for meter in self._meters if meter.sensors)
        energy = self._sensing.energy(meter, *window(done.trials))
        share_s = REPEAT_SHARE * self._seconds
        bound = energy.relative_bound
        if bound is None or bound > AIM or energy.duration_s < _SECOND_S:
            part_s = share_s if outputs == 1 else share_s / 2
            enough_s = max(_SECOND_S, self._enough_s(meter, energy))
            self._row("requests", done.requests, request, outputs, enough_s, part_s)
            share_s -= part_s
            if done.requests and outputs > 1:
                energy = self._sensing.energy(meter, *window(done.requests))
        if outputs > 1 and all(run.first_ns is not None for run in done.trials):
            self._row("prefill", done.prefills, request, 1, self._enough_s(meter, energy), share_s)

    def _row(
        self,
        name: str,
        runs: list[Run],
        request: Callable[[str, int, int], Run],
        outputs: int,
        enough_s: float,
        most_s: float,
    ) -> None:
        """Run one batch after the other until their window is long enough, or their time is up."""
        begin_ns = time.monotonic_ns()
        while True:
            runs.append(request(name, len(runs), outputs))
            passed_s = (runs[-1].last_ns - runs[0].submit_ns) * 1e-9
            enough = passed_s >= enough_s and len(runs) >= _FEWEST_REPEATS
            if enough or passed_s * (1 + 1 / len(runs)) > most_s:
                break
        self.note(name, begin_ns)
        self._sensing.keep_up()

    def _enough_s(self, meter: Meter, seen: Energy) -> float:
        """Return how long a window must be for :data:`AIM`, judged by one that was seen."""
        wanted_s = window_for(seen, AIM)
        if wanted_s is None and self.done.idle is not None:
            wanted_s = window_for(self._sensing.energy(meter, *self.done.idle), AIM)
        averages = [info.average_window_s or 0.0 for info in meter.sensors]
        least_s = _SENSOR_PERIODS * max(*averages, seen.tick_s or 0.0)
        return max(least_s, _SWING * wanted_s if wanted_s is not None else _UNKNOWN_WINDOW_S)

    @property
    def working_ns(self) -> tuple[int, int] | None:
        """From the first measured trial (or a little before) to the last work; None in virtual time."""
        if self.done.virtual or not self.done.trials:
            return None
        return working_ns(self.done, self._phases["warm-up"][0])

    @property
    def whole_ns(self) -> tuple[int, int]:
        """Beginning and end of everything that was noted."""
        return min(begin for begin, _ in self._phases.values()), max(end for _, end in self._phases.values())

    def phases(self, origin_ns: int) -> tuple[PhaseRecord, ...]:
        """Return when what was done; empty where time is not real."""
        if self.done.virtual:
            return ()
        return tuple(
            PhaseRecord(
                start=self._index,
                phase=name,
                begin_s=(begin - origin_ns) * 1e-9,
                end_s=(end - origin_ns) * 1e-9,
            )
            for name, (begin, end) in self._phases.items()
        )

    def records(self) -> tuple[EnergyRecord, ...]:
        """Return the energy of every phase by every meter; call it when a moment has passed.

        They are made from the reads as the run keeps them, and from the spans of the work on its axis, so
        that whoever has the run can make them again.
        """
        source: EnergySource = self._sensing
        done = self.done
        if self.watching and done.trials:
            last = (done.prefills or done.requests or done.trials)[-1]
            for meter in self._meters:  # waits for the first reads after the work
                self._sensing.energy(meter, last.submit_ns, last.last_ns)
            self.spans = self._sensing.spans(
                self._index,
                idle=done.idle,
                trials=tuple(done.trials),
                requests=tuple(done.requests),
                prefills=tuple(done.prefills),
            )
            source, done = self._sensing.kept(self._meters, self.spans), done_in(self.spans)
        return tuple(
            record
            for meter in self._meters
            for record in phase_energies(source, meter, self._spec, self._index, done)
        )
