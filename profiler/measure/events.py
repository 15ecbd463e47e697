"""What happens during a sweep, as it happens. The command line shows it; nothing here prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from profiler.results.schema import CaseRecord, CaseSpec, Fidelity, RunRecord


@dataclass(frozen=True)
class Preparing:
    """Something that takes a moment before the first case, in words."""

    text: str


@dataclass(frozen=True)
class SweepStarted:
    """The plan stands and ``run.json`` is on disk.

    Attributes:
        path: the run's folder.
        record: its ``run.json``.
        remaining: cases that are still to be measured (fewer than planned on resume).
        budget_s: wall time for them.
    """

    path: str
    record: RunRecord
    remaining: int
    budget_s: float


@dataclass(frozen=True)
class CaseStarted:
    """A case begins.

    Attributes:
        number: 1 for the first case of this sweep.
        of: cases of this sweep.
        seconds: wall time it may take.
    """

    number: int
    of: int
    spec: CaseSpec
    seconds: float


@dataclass(frozen=True)
class FidelityStarted:
    """A check begins whether the engine computes the model of this case, and all others like it."""

    spec: CaseSpec


@dataclass(frozen=True)
class FidelityChecked:
    """The verdict of that check."""

    spec: CaseSpec
    fidelity: Fidelity


@dataclass(frozen=True)
class StageEntered:
    """A start of the current case enters a stage: ``load``, ``probe``, ``warm-up``, ``trials``."""

    start: int
    of: int
    stage: str


@dataclass(frozen=True)
class TrialFinished:
    """A trial of the current case is done.

    Attributes:
        start: index of the start.
        number: measured trials so far, or warm-up trials while ``warm_up``.
        warm_up: whether it was a warm-up trial.
        tokens_per_s: throughput of all measured trials so far in the scenario's main phase.
        relative_half_width: half of the CI over the mean so far, or None with too few trials.
    """

    start: int
    number: int
    warm_up: bool
    tokens_per_s: float
    relative_half_width: float | None


@dataclass(frozen=True)
class CaseFinished:
    """A case is on disk."""

    record: CaseRecord


@dataclass(frozen=True)
class OutOfBudget:
    """The budget is used up; the rest can be measured with ``--resume``."""

    remaining: int


Event = (
    Preparing
    | SweepStarted
    | FidelityStarted
    | FidelityChecked
    | CaseStarted
    | StageEntered
    | TrialFinished
    | CaseFinished
    | OutOfBudget
)
Listener = Callable[[Event], None]
