"""The sweep: prepare, write the plan, measure case after case, close the run; or resume one."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from profiler import __version__
from profiler.engines.log_file import worker_log
from profiler.errors import ResumeRefusedError, UsageError
from profiler.measure.case import measure_case
from profiler.measure.changes import changes_since
from profiler.measure.clock import BudgetClock
from profiler.measure.context import CaseContext, Timeouts
from profiler.measure.events import (
    CaseFinished,
    CaseStarted,
    Listener,
    OutOfBudget,
    Preparing,
    SweepStarted,
)
from profiler.measure.extrapolate import all_specs, extrapolated
from profiler.measure.fidelity import FidelityChecks, fidelity_flags
from profiler.measure.plan import engine_options, least_seconds
from profiler.measure.prepare import Prepared, Selection, prepare, python_for, select
from profiler.measure.queue import PlannedCases, Queue, SearchedCases
from profiler.measure.request import SweepRequest
from profiler.measure.sensing import Sensing
from profiler.measure.served_case import measure_served
from profiler.measure.served_search import asked_search
from profiler.measure.start_energy import LONGEST_IDLE_S
from profiler.measure.start_watch import hidden_here
from profiler.models.formats import Formats
from profiler.results.read import Run, read_run
from profiler.results.schema import (
    CaseRecord,
    CaseSpec,
    NoiseFloor,
    PlannedCase,
    RunRecord,
)
from profiler.results.store import RunWriter


class Sweep:
    """One sweep, from the request to the closed run.

    Args:
        request: what to measure.
        emit: receives events as they happen.
        allow_download: whether models may be fetched from the hub.
        timeouts: after how long a silent worker counts as hung.
    """

    def __init__(
        self,
        request: SweepRequest,
        emit: Listener,
        *,
        allow_download: bool = False,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.emit = emit
        self.timeouts = timeouts or Timeouts()
        self.clock = BudgetClock()
        self.selection = select(request, allow_download=allow_download)

    def plan(self) -> Prepared:
        """Probe the box and return the plan; nothing is written."""
        with worker_log() as log_path:
            return prepare(self.selection, self.emit, self.timeouts, log_path)

    def run(self, path: Path) -> Run:
        """Measure everything and return the run as it stands on disk.

        Raises:
            UsageError: ``path`` cannot hold a new run.
            NothingMeasuredError: no case can run.
            MeasurementError: the disk refused a record.
        """
        began = self.clock.now()
        with worker_log() as log_path, Sensing(self.selection.devices) as sensing:
            if sensing.reads_energy:
                self.emit(Preparing("reading the power of the idle box"))
                sensing.watch_idle(_idle_seconds(self.selection))
            prepared = prepare(self.selection, self.emit, self.timeouts, log_path)
            if not _simulated(prepared, sensing) and (hidden := hidden_here()):
                self.emit(Preparing(hidden))
            record = _run_record(prepared, sensing)
            with RunWriter.create(path, record) as writer:
                deadline = began + record.settings.budget_s
                queue = _queue(prepared, record, [])
                self._measure(writer, prepared.selection, queue, deadline, log_path, sensing, [])
        return read_run(path)

    def _measure(
        self,
        writer: RunWriter,
        selection: Selection,
        queue: Queue,
        deadline: float,
        log_path: Path,
        sensing: Sensing,
        finished: list[CaseRecord],
    ) -> None:
        """Measure what is in the queue, add it to ``finished``, and close the run when nothing is left."""
        record = writer.record
        budget_s = deadline - self.clock.now()
        rest, number = queue.rest(), 0
        self.emit(SweepStarted(str(writer.path), record, len(rest), budget_s))
        fidelity = FidelityChecks(None if selection.request.no_fidelity else deadline)
        while rest:
            planned, number = rest[0], number + 1
            context = self._context(selection, record, planned, log_path, sensing)
            verdict = fidelity.of(context)
            seconds = self._seconds_for(rest, deadline, record.settings.starts)
            if seconds is None:
                self.emit(OutOfBudget(len(rest)))
                return
            self.emit(CaseStarted(number, number - 1 + len(rest), planned.spec, seconds))
            noise = _noise_floor(record, planned.spec)
            case_id = planned.spec.case_id
            if context.serving is not None:
                found = measure_served(context, seconds, noise, partial(writer.write_samples, case_id))
            else:
                found = measure_case(
                    context, seconds, noise, repeat_on_interference=record.settings.repeat_on_interference
                )
            fields = found.fields
            fields["fidelity"] = verdict
            if fields["status"] == "ok":
                fields["measurements"] |= extrapolated(
                    planned.spec,
                    fields["measurements"],
                    fields.get("starts", ()),
                    all_specs(record),
                    finished,
                )
                fields["flags"] = (*fields["flags"], *fidelity_flags(verdict))
            if found.stamps["start"]:
                fields["samples"] = writer.write_samples(case_id, found.stamps)
            if len(found.sensors["sensor"]):
                fields["sensor_samples"] = writer.write_samples(case_id, found.sensors, suffix=".sensors")
            finished.append(writer.append(fields))
            self.emit(CaseFinished(finished[-1]))
            queue.note(finished[-1])
            rest = queue.rest()
        writer.close()

    def _seconds_for(self, rest: Sequence[PlannedCase], deadline: float, starts: int) -> float | None:
        """Share what is left over the cases still to come, as the plan did; None when it is used up.

        A case that ended early leaves its time to the others, one that ran over takes it from them.
        """
        left = deadline - self.clock.now()
        planned = sum(case.seconds for case in rest)
        seconds = rest[0].seconds * left / planned
        expected = rest[0].predicted
        least = (
            0.0 if expected is None else least_seconds(expected, starts, served=rest[0].spec.load is not None)
        )
        # A plan is a guess: a case may run a little over its time rather than not at all.
        return seconds if seconds > 0.5 * least else None

    def _context(
        self,
        selection: Selection,
        record: RunRecord,
        planned: PlannedCase,
        log_path: Path,
        sensing: Sensing,
    ) -> CaseContext:
        spec = planned.spec
        target = record.settings.target_relative_half_width
        if planned.predicted is None or target is None:
            raise UsageError("this run is a load on a server; `aiprof load` makes it again")
        by_key = {device.key: device for device in selection.devices}
        device = by_key[spec.device_key]
        return CaseContext(
            spec=spec,
            predicted=planned.predicted,
            model=selection.models[spec.model],
            formats=Formats(**spec.formats.model_dump()),
            device=device,
            backend=selection.backends[device.backend],
            engine=selection.engines[spec.engine],
            python=python_for(selection.request),
            options=selection.options[spec.engine] | engine_options(spec.slice),
            target_relative_half_width=target,
            starts=record.settings.starts,
            soak_s=record.settings.soak_s,
            log_path=log_path,
            timeouts=self.timeouts,
            clock=self.clock,
            emit=self.emit,
            challenge=record.challenge,
            ceilings=record.ceilings,
            sensing=sensing,
            devices=tuple(by_key[key] for key in spec.device_keys),
            serving=None if spec.load is None else selection.serving,
            scenario=next((one for one in selection.scenarios if one.name == spec.scenario), None),
            search=asked_search(selection),
        )

    def resume(self, path: Path, run: Run) -> Run:
        """Measure what is missing in ``run`` and return it as it then stands on disk.

        Raises:
            ResumeRefusedError: something that shapes the results has changed since.
        """
        with worker_log() as log_path, Sensing(self.selection.devices) as sensing:
            self.emit(Preparing("checking that the box is still the one the run was made on"))
            prepared = prepare(self.selection, self.emit, self.timeouts, log_path)
            changes = changes_since(run.record, prepared)
            if changes:
                lines = [f"{path}: cannot be continued, because this has changed since:", *changes]
                raise ResumeRefusedError("\n".join([*lines, "start a new run instead"]))
            writer, _ = RunWriter.resume(path)
            with writer:
                queue = _queue(prepared, run.record, run.cases)
                deadline = self.clock.now() + sum(case.seconds for case in queue.rest())
                self._measure(writer, prepared.selection, queue, deadline, log_path, sensing, list(run.cases))
        return read_run(path)


def _queue(prepared: Prepared, record: RunRecord, done: Sequence[CaseRecord]) -> Queue:
    """Return what is still to come of a run."""
    if prepared.search is None:
        return PlannedCases(record.cases, done)
    return SearchedCases(prepared.search.as_recorded(record.settings.search, record.cases[0]), done)


def _idle_seconds(selection: Selection) -> float:
    """Return how long to look at the idle box: a tenth of a case, or 3% of the whole where that is less."""
    seconds = 0.1 * selection.preset.seconds_per_case
    if selection.request.budget_s is not None:
        seconds = min(seconds, 0.03 * selection.request.budget_s)
    return min(LONGEST_IDLE_S, max(1.0, seconds))


def _simulated(prepared: Prepared, sensing: Sensing) -> bool:
    if sensing.simulated or any(device.simulated for device in prepared.devices):
        return True
    return any(engine.simulated for engine in prepared.engines)


def _run_record(prepared: Prepared, sensing: Sensing) -> RunRecord:
    request = prepared.selection.request
    return RunRecord(
        run_id=secrets.token_hex(16),
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        aiprof_version=__version__,
        command=request.to_arguments(),
        seed=request.seed,
        box=prepared.box,
        devices=prepared.devices,
        engines=prepared.engines,
        models=prepared.models,
        noise_floors=prepared.noise_floors,
        ceilings=prepared.ceilings,
        settings=prepared.settings,
        cases=prepared.cases,
        skipped=prepared.skipped,
        simulated=_simulated(prepared, sensing),
        sensors=sensing.records(),
        baselines=sensing.baselines(),
        challenge=request.challenge,
    )


def _noise_floor(record: RunRecord, spec: CaseSpec) -> NoiseFloor:
    return next(
        floor
        for floor in record.noise_floors
        if (floor.device_key, floor.engine) == (spec.device_key, spec.engine)
    )
