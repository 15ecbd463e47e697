"""What the starts of a case have in common, and what each of them leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from profiler.backends.base import Backend, Device
from profiler.engines.base import Engine, Serving
from profiler.load.search import Search
from profiler.measure.clock import BudgetClock
from profiler.measure.events import Listener
from profiler.measure.sensing import Sensing
from profiler.measure.start_energy import StartEnergy
from profiler.measure.start_watch import StartWatch
from profiler.measure.stop import Decision
from profiler.models.catalogue import ResolvedModel
from profiler.models.formats import Formats
from profiler.results.schema import CaseSpec, Ceiling, EnergyRecord, Prediction, StartRecord, TrialRecord
from profiler.workload.scenario import Scenario


@dataclass(frozen=True)
class Timeouts:
    """After how long a silent worker counts as hung, seconds."""

    hello_s: float = 180.0
    load_s: float = 120.0
    load_bytes_per_s: float = 20e6
    probe_s: float = 60.0
    first_run_s: float = 120.0
    first_run_factor: float = 30.0
    later_run_s: float = 20.0
    later_run_factor: float = 20.0


@dataclass(frozen=True)
class CaseContext:
    """What all starts of a case share.

    Attributes:
        spec: the case.
        predicted: what the accounting expects of it.
        architecture: as the worker wants it, plain JSON.
        python: interpreter of the worker.
        options: the engine's options, parsed.
        target_relative_half_width: when trials stop.
        soak_s: hold the trials for this long, whatever is known by then, or None.
        log_path: where the worker's output goes.
        challenge: what a verifier asked to be mixed into prompts and random weights, or None.
        ceilings: what the devices of the run can do.
        sensing: the sensors of the sweep, being sampled.
        devices: all devices of the case, where there are several.
        serving: how a server of the engine's own is driven, or None for offline work.
        scenario: whose lengths the load has, or None for offline work.
        search: of which the case is a point, or None; its limits say how many requests are enough.
    """

    spec: CaseSpec
    predicted: Prediction
    model: ResolvedModel
    formats: Formats
    device: Device
    backend: Backend
    engine: Engine
    python: str
    options: dict[str, Any]
    target_relative_half_width: float
    starts: int
    soak_s: float | None
    log_path: Path
    timeouts: Timeouts
    clock: BudgetClock
    emit: Listener
    sensing: Sensing
    devices: tuple[Device, ...] = ()
    serving: Serving | None = None
    scenario: Scenario | None = None
    search: Search | None = None
    challenge: str | None = None
    ceilings: tuple[Ceiling, ...] = ()

    @property
    def all_devices(self) -> tuple[Device, ...]:
        """All devices that the case takes."""
        return self.devices or (self.device,)

    def engine_request(self, hello: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of ``load`` and ``server`` that say on which devices, and how spread over them.

        Raises:
            UsageError: the engine does not see one of the devices.
        """
        names = [self.engine.device_string(device, hello) for device in self.all_devices]
        parallel = self.spec.parallel
        if parallel is None:
            return {"device": names[0]}
        return {"device": names[0], "devices": names, "parallel": parallel.model_dump()}


class StartFailedError(Exception):
    """A start did not finish.

    Attributes:
        kind: as in ``Failure``.
        stage: what was being done.
        message: one line.
        log_tail: last lines of the worker's output.
    """

    def __init__(self, kind: str, stage: str, message: str, log_tail: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.kind = kind
        self.stage = stage
        self.message = message
        self.log_tail = log_tail


class MeasuredStart(Protocol):
    """What figures and flags are made of: a start just measured, or one read back from a record."""

    @property
    def record(self) -> StartRecord:
        """The start as it stands in the record."""

    @property
    def trials(self) -> Sequence[TrialRecord]:
        """All trials, warm-up included."""

    @property
    def decision(self) -> Decision:
        """Why the trials ended, with the estimate of the phase that is known least well."""

    @property
    def warm_up(self) -> str:
        """How warm-up went, in words."""

    @property
    def flags(self) -> tuple[str, ...]:
        """Codes that follow from the trials."""

    @property
    def energies(self) -> tuple[EnergyRecord, ...]:
        """Energy of each phase by each meter."""

    def measured(self, value: Callable[[TrialRecord], float | None]) -> list[float]:
        """Return one value of every measured trial, in order."""


@dataclass
class StartOutcome:
    """What a finished start leaves.

    Attributes:
        record: the start as it goes into the case's record.
        trials: all trials, warm-up included.
        stamps: per trial the host stamps of each output token in ns after submit, where there are any.
        energies: energy of each phase by each meter.
        power: what the start did for its energy, with its moments.
        decision: why the trials ended, with the estimate of the phase that is known least well.
        warm_up: how warm-up went, in words.
        flags: codes that follow from the trials: ``few_trials``, ``not_steady``, ``drift``.
        watch: what was seen of the box meanwhile.
    """

    record: StartRecord
    trials: list[TrialRecord]
    stamps: list[list[int] | None]
    energies: tuple[EnergyRecord, ...]
    power: StartEnergy
    decision: Decision
    warm_up: str
    flags: tuple[str, ...]
    watch: StartWatch

    def measured(self, value: Callable[[TrialRecord], float | None]) -> list[float]:
        """Return one value of every measured trial, in order."""
        values = [value(trial) for trial in self.trials if not trial.warm_up]
        return [item for item in values if item is not None]
