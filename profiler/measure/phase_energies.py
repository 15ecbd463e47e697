"""The energy of every phase of a start, by every meter, from the windows in which the phases ran."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from profiler.backends.base import Unavailable
from profiler.measure.amounts import Amount, active, added, difference, more_certain
from profiler.measure.energy_book import EnergyBook
from profiler.measure.kept_reads import EnergySource
from profiler.measure.peak_power import highest_second
from profiler.measure.sensing import VIRTUAL_TIME
from profiler.results.schema import CaseSpec, EnergyRecord, EnergySpans
from profiler.results.sensor_record import Phase
from profiler.sensors.base import Energy
from profiler.sensors.meters import DEVICE, Meter

_MOST_WINDOWS = 24


class Run(NamedTuple):
    """Stamps of one batch of requests, CLOCK_MONOTONIC ns; ``first_ns`` is None where phases were mixed."""

    submit_ns: int
    first_ns: int | None
    last_ns: int


@dataclass
class Done:
    """What a start did, and when.

    Attributes:
        idle: window of the rest with the model loaded, or None without one.
        trials: the measured trials.
        requests: whole requests, repeated after the trials.
        prefills: prefills, repeated after that.
        virtual: whether stamps do not follow the clock that sensors go by.
    """

    idle: tuple[int, int] | None = None
    trials: list[Run] = field(default_factory=list)
    requests: list[Run] = field(default_factory=list)
    prefills: list[Run] = field(default_factory=list)
    virtual: bool = False


def done_in(spans: EnergySpans) -> Done:
    """Return what a start did from the spans of its record."""
    rows = (spans.trials, spans.requests, spans.prefills)
    trials, requests, prefills = ([Run(*span) for span in row] for row in rows)
    return Done(spans.idle, trials, requests, prefills)


def window(runs: Sequence[Run]) -> tuple[int, int]:
    """Return beginning and end of a row of runs."""
    return runs[0].submit_ns, runs[-1].last_ns


def active_s(runs: Sequence[Run]) -> float:
    """Return the time in which requests were worked on."""
    return sum(run.last_ns - run.submit_ns for run in runs) * 1e-9


def phase_energies(
    source: EnergySource, meter: Meter, spec: CaseSpec, start: int, done: Done
) -> list[EnergyRecord]:
    """Return the records of one meter for one start, without any when nothing was run.

    Args:
        source: of the energies.
        meter: one of those of the device.
        spec: the case.
        start: index of the start.
        done: what it did.
    """
    return _Phases(source, meter, spec, start, done).records() if done.trials else []


class _Phases:
    def __init__(self, source: EnergySource, meter: Meter, spec: CaseSpec, start: int, done: Done) -> None:
        self.source = source
        self.meter = meter
        self.spec = spec
        self.done = done
        self.book = EnergyBook(meter, start, self._idle())
        self.idle_w = self.book.idle.mean_power_w

    def records(self) -> list[EnergyRecord]:
        spec, book = self.spec, self.book
        runs, whole, worked = self._whole()
        made = len(runs) * spec.batch
        found = [
            book.idle_record(),
            book.record("trials", whole, worked, active_s(runs), made * spec.output_tokens),
        ]
        if self.meter.covers == DEVICE:
            second = self._highest_second()
            found.append(book.record("max_1s", second, active(second, second.duration_s, None), 1.0, None))
        if spec.output_tokens == 1:
            return [*found, book.record("prefill", whole, worked, active_s(runs), made * spec.prompt_tokens)]
        prefills = self.done.prefills
        if any(run.first_ns is None for run in runs):
            return [*found, *(book.record(phase, whole, MIXED, 0.0, None) for phase in _SPLIT)]
        energy, part = self._prefill(whole)
        tokens = len(prefills) * spec.batch * spec.prompt_tokens
        found.append(book.record("prefill", energy, part, active_s(prefills), tokens))
        return [*found, self._decode(runs, whole, worked, part)]

    def _whole(self) -> tuple[Sequence[Run], Energy, Amount | Unavailable]:
        """Return the row of whole requests whose energy is known best: the trials, or their repetition."""
        found = []
        for runs in (self.done.trials, self.done.requests):
            if runs:
                energy = self._energy(*window(runs), step_s=self._step_s())
                found.append((runs, energy, active(energy, active_s(runs), self.idle_w)))
        return min(
            found, key=lambda one: one[2].relative_bound if isinstance(one[2], Amount) else float("inf")
        )

    def _highest_second(self) -> Energy:
        longest = max((self.done.trials, self.done.requests), key=_length_ns)
        if self.meter.unavailable is not None or self.done.virtual:
            return self._energy(*window(longest))
        return highest_second(self.source, self.meter, *window(longest))

    def _prefill(self, whole: Energy) -> tuple[Energy, Amount | Unavailable]:
        prefills = self.done.prefills
        if prefills:
            energy = self._energy(*window(prefills))
            return energy, active(energy, active_s(prefills), self.idle_w)
        reason = whole.reason or _NOT_REPEATED
        return replace(whole, joules=None, bound_j=None, reason=reason, n_ticks=0), reason

    def _decode(
        self, runs: Sequence[Run], whole: Energy, worked: Amount | Unavailable, prefill: Amount | Unavailable
    ) -> EnergyRecord:
        """Return the energy of decoding: of the decode windows, or what prefill leaves of whole requests."""
        seconds = sum(run.last_ns - _first(run) for run in runs) * 1e-9
        tokens = len(runs) * self.spec.batch * (self.spec.output_tokens - 1)
        inside = None if whole.joules is None else self._inside(runs, seconds)
        left = None
        if isinstance(worked, Amount) and isinstance(prefill, Amount):
            left = difference(worked, prefill, len(runs) / len(self.done.prefills), seconds)
        best = more_certain([inside, left])
        if best is None:
            reason = next((why for why in (worked, prefill) if isinstance(why, Unavailable)), _NOT_APART)
            return self.book.record("decode", whole, reason, seconds, tokens)
        record = self.book.record("decode", whole, best, seconds, tokens)
        method = "windows_of_decode" if best is inside else "requests_less_prefill"
        return record if record.joules is None else record.model_copy(update={"method": method})

    def _inside(self, runs: Sequence[Run], seconds: float) -> Amount | None:
        """Return the energy of all decode windows, from some of them where there are many."""
        chosen = runs[:: -(-len(runs) // _MOST_WINDOWS)]
        found = added(_until_missing(self._energy(_first(run), run.last_ns) for run in chosen))
        if found is None or len(chosen) == len(runs):
            return found
        scale = seconds / found.seconds
        return Amount(found.joules * scale, found.bound_j * scale, seconds)

    def _idle(self) -> Energy:
        if self.done.idle is not None:
            return self._energy(*self.done.idle)
        at_ns = self.done.trials[0].submit_ns
        reason = self.meter.unavailable or (VIRTUAL_TIME if self.done.virtual else _NO_REST)
        return self.source.no_energy(self.meter, at_ns, at_ns, reason)

    def _energy(self, t0_ns: int, t1_ns: int, *, step_s: float | None = None) -> Energy:
        if self.done.virtual and self.meter.unavailable is None:
            return self.source.no_energy(self.meter, t0_ns, t1_ns, VIRTUAL_TIME)
        return self.source.energy(self.meter, t0_ns, t1_ns, step_s=step_s)

    def _step_s(self) -> float | None:
        steps = self.spec.output_tokens - 1
        run = self.done.trials[0]
        return (run.last_ns - _first(run)) * 1e-9 / steps if steps else None


def _first(run: Run) -> int:
    """Return the stamp of the first token, or the beginning where there is none apart."""
    return run.submit_ns if run.first_ns is None else run.first_ns


def _length_ns(runs: Sequence[Run]) -> int:
    return runs[-1].last_ns - runs[0].submit_ns if runs else 0


def _until_missing(energies: Iterable[Energy]) -> list[Energy]:
    """Collect energies; one without a value ends it, since a sum with a hole is none."""
    found: list[Energy] = []
    for energy in energies:
        found.append(energy)
        if energy.joules is None:
            break
    return found


MIXED = Unavailable("phases_mixed", "the engine mixed prefill and decode", "fewer prompt tokens at once")
_SPLIT: tuple[Phase, Phase] = ("prefill", "decode")
_NO_REST = Unavailable(
    "window_too_short", "the case had no time to rest with the model loaded", "give a larger --budget"
)
_NOT_REPEATED = Unavailable(
    "window_too_short", "there was no time to repeat the prefill for its energy", "give a larger --budget"
)
_NOT_APART = Unavailable(
    "window_too_short", "decoding cannot be told from prefill within the bounds", "give a larger --budget"
)
