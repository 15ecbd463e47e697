"""A start read back from a record, so that its figures can be made once more by the code that made them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

from profiler.measure.interference import interference_flag
from profiler.measure.steady import WarmUp, flags_after
from profiler.measure.stop import Decision, decide, judged_times
from profiler.results.schema import CaseRecord, EnergyRecord, NoiseFloor, StartRecord, TrialRecord


@dataclass(frozen=True)
class RecordedStart:
    """A :class:`~profiler.measure.context.MeasuredStart` from a record.

    Attributes:
        record: the start.
        trials: all of its trials, warm-up included.
        decision: as the trials make it; whether time was up is taken from the record.
        warm_up: how warm-up went, in words.
        flags: codes that follow from the trials.
        energies: energy of each phase by each meter, as recorded.
    """

    record: StartRecord
    trials: tuple[TrialRecord, ...]
    decision: Decision
    warm_up: str
    flags: tuple[str, ...]
    energies: tuple[EnergyRecord, ...]

    def measured(self, value: Callable[[TrialRecord], float | None]) -> list[float]:
        """Return one value of every measured trial, in order."""
        values = [value(trial) for trial in self.trials if not trial.warm_up]
        return [item for item in values if item is not None]


def recorded_starts(case: CaseRecord, target_relative_half_width: float) -> tuple[RecordedStart, ...]:
    """Return the starts of a case that count.

    Raises:
        ValueError: a start has no measured trial, or times that cannot be.
    """
    return tuple(_recorded(start, case, target_relative_half_width) for start in case.starts if start.used)


def _recorded(start: StartRecord, case: CaseRecord, target: float) -> RecordedStart:
    own = tuple(trial for trial in case.trials if trial.start == start.index)
    measured = [trial for trial in own if not trial.warm_up]
    # The end of the time is the one reason to stop that leaves no trace in the trials.
    decisions = [decide(times, target, 0.0, 1.0) for times in judged_times(measured) or [[]]]
    decision = max(decisions, key=lambda found: found.estimate.relative_half_width or 0.0)
    warm_up = _warm_up(trial.e2e_s for trial in own if trial.warm_up)
    times = [trial.e2e_s for trial in measured]
    found = (*decision.flags, *flags_after(warm_up, times, decision.estimate.relative_half_width))
    return RecordedStart(
        record=start,
        trials=own,
        decision=decision,
        warm_up=warm_up.explain(),
        flags=found,
        energies=tuple(energy for energy in case.energies if energy.start == start.index),
    )


def _warm_up(times: Iterable[float]) -> WarmUp:
    """Replay a warm-up: it ended steady with its last trial, or its time was up."""
    warm_up = WarmUp(budget_s=float("inf"))
    for seconds in times:
        warm_up.add(seconds)
    return warm_up


def disturbed(start: StartRecord, floor: NoiseFloor) -> bool:
    """Whether the probes round a start say that the box was disturbed."""
    before, after = start.probe_before_bytes_per_s, start.probe_after_bytes_per_s
    if before is None or after is None:
        return False
    return interference_flag(before, after, median(floor.bytes_per_s), floor.tolerance) is not None
