"""A sweep whose engine is a server by URL: every case is a load, kept in the same store as any other.

The device is one of this box where the server is (energy and telemetry then come from its sensors), else one
that stands for the server. Before the first case the server's answers are looked at, and held against the
fp32 reference where ``--model`` is a folder with the weights that it serves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from profiler.backends.base import Device
from profiler.engines.endpoint import EndpointEngine
from profiler.errors import ResumeRefusedError, UsageError
from profiler.load.ceiling import measure_client
from profiler.load.course import Course
from profiler.load.drive import Driver
from profiler.load.endpoint import parse_endpoint
from profiler.load.negotiate import Agreement, negotiate
from profiler.load.request import LoadRequest, Point
from profiler.measure.events import (
    CaseFinished,
    CaseStarted,
    FidelityChecked,
    FidelityStarted,
    Listener,
    Preparing,
    SweepStarted,
)
from profiler.measure.fidelity import fidelity_flags
from profiler.measure.fidelity_server import fidelity_of
from profiler.measure.prepare import Selection, select
from profiler.measure.request import SweepRequest
from profiler.measure.sensing import Sensing
from profiler.measure.served_requests import load_requests
from profiler.measure.served_run import served_run
from profiler.measure.served_watch import ServedWatch
from profiler.measure.summary import SIMULATED
from profiler.models.catalogue import ResolvedModel
from profiler.models.formats import Formats
from profiler.results.read import Run, read_run
from profiler.results.schema import (
    CaseRecord,
    CaseSpec,
    Fidelity,
    FormatsRecord,
    PlannedCase,
    PlanSettings,
    RunRecord,
)
from profiler.results.store import RunWriter
from profiler.workload.identity import case_id, workload_id
from profiler.workload.scenario import Scenario


@dataclass(frozen=True)
class _Lane:
    """A scenario, what drives the server through it, and the points that are still to come."""

    scenario: Scenario
    driver: Driver
    course: Course


class ServedSweep:
    """One sweep over loads, from the request to the closed run.

    Args:
        request: with ``endpoint`` as its only engine.
        emit: receives events as they happen.
        allow_download: whether models may be fetched from the hub.

    Raises:
        UsageError: what is asked for does not go with a server.
    """

    def __init__(self, request: SweepRequest, emit: Listener, *, allow_download: bool = False) -> None:
        self.emit = emit
        if request.engines != (EndpointEngine.name,):
            raise UsageError("--engine endpoint drives a server and goes with no other engine in one sweep")
        if request.layers is not None or request.soak_s is not None:
            raise UsageError("--layers and --soak do not go with --engine endpoint")
        if not (request.models and request.precisions):
            raise UsageError("a server does not say what it serves: give --model and --precision")
        self.options = EndpointEngine().options(dict(request.engine_options))
        self.endpoints = tuple(parse_endpoint(url) for url in self.options["url"].split(","))
        self.selection: Selection = select(request, allow_download=allow_download)
        if len(self.selection.models) != 1 or len(self._all_formats) != 1:
            raise UsageError("a server serves one model in one format: name one --model and one --precision")
        self.local = self.endpoints[0].reach == "loopback"

    @property
    def _device(self) -> Device:
        if self.local:
            return self.selection.devices[0]
        key = self.endpoints[0].key
        return Device(key, "endpoint", 0, f"server {key.removeprefix('endpoint-')[:6]}", None)

    def requests(self) -> list[LoadRequest]:
        """Return the load of each scenario; nothing is sent.

        Raises:
            UsageError: what is asked for does not go together.
        """
        return load_requests(self.selection, self.options, self.endpoints)

    def _lanes(self) -> tuple[list[_Lane], Agreement]:
        self.emit(Preparing("asking the server what it understands, and measuring the client"))
        requests = self.requests()
        agreement = negotiate(
            self.endpoints, requests[0].api, requests[0].model, vocab_size=requests[0].vocab_size
        )
        lanes = []
        for scenario, request in zip(self.selection.scenarios, requests, strict=True):
            load = replace(request, model=agreement.model)
            driver = Driver(load, agreement, measure_client(load.shape.nominal[0]))
            lanes.append(_Lane(scenario, driver, Course(load.points, load.search)))
        return lanes, agreement

    def run(self, path: Path) -> Run:
        """Measure everything and return the run as it stands on disk.

        Raises:
            UsageError: ``path`` cannot hold a new run.
            NothingMeasuredError: the server does not answer as it should.
        """
        with Sensing((self._device,) if self.local else ()) as sensing:
            lanes, agreement = self._lanes()
            with RunWriter.create(path, self._record(lanes, agreement, sensing)) as writer:
                self._measure(writer, lanes, sensing, {})
        return read_run(path)

    def resume(self, path: Path, run: Run) -> Run:
        """Measure what is missing in ``run``.

        Raises:
            ResumeRefusedError: the server, or what is asked of it, is another one.
        """
        with Sensing((self._device,) if self.local else ()) as sensing:
            lanes, _ = self._lanes()
            planned = {case.spec.case_id for case in run.record.cases}
            if planned != {spec.case_id for spec in self._planned(lanes)}:
                raise ResumeRefusedError(
                    f"{path}: the server or what is asked of it has changed since; start a new run instead"
                )
            writer, _ = RunWriter.resume(path)
            with writer:
                self._measure(writer, lanes, sensing, {case.spec.case_id: case for case in run.cases})
        return read_run(path)

    def _planned(self, lanes: Sequence[_Lane]) -> list[CaseSpec]:
        return [self._spec(lane, point) for lane in lanes for point in lane.course.planned]

    @property
    def _model(self) -> ResolvedModel:
        return next(iter(self.selection.models.values()))

    @property
    def _formats(self) -> Formats:
        return self._all_formats[0]

    @property
    def _all_formats(self) -> list[Formats]:
        return [one for model in self.selection.models.values() for one in self.selection.formats_of(model)]

    def _spec(self, lane: _Lane, point: Point) -> CaseSpec:
        driver, scenario = lane.driver, lane.scenario
        load, seed = driver.load_spec(point), self.selection.request.seed
        prompt, output = driver.request.shape.nominal
        work = workload_id(
            self._model.architecture,
            prompt_tokens=prompt,
            output_tokens=output,
            arrivals=load.model_dump(mode="json") | {"shape": scenario.name},
        )
        identity = case_id(
            work,
            engine=EndpointEngine.name,
            formats=self._formats,
            weights="server",
            device_key=self._device.key,
            seed=seed,
        )
        return CaseSpec(
            case_id=identity,
            workload_id=work,
            device_key=self._device.key,
            engine=EndpointEngine.name,
            model=self._model.name,
            weights="server",
            formats=FormatsRecord(**asdict(self._formats)),
            scenario=scenario.name,
            variant="full",
            prompt_tokens=prompt,
            output_tokens=output,
            batch=point.concurrency or 1,
            seed=seed,
            load=load,
        )

    def _measure(
        self, writer: RunWriter, lanes: Sequence[_Lane], sensing: Sensing, done: Mapping[str, CaseRecord]
    ) -> None:
        """Measure what every lane still wants; what is done already is only taken note of."""
        left = sum(lane.course.most for lane in lanes) - len(done)
        seconds = lanes[0].driver.request.seconds or 0.0
        self.emit(SweepStarted(str(writer.path), writer.record, left, seconds * left))
        fidelity: Fidelity | None = None
        number = 0
        for lane in lanes:
            while (point := lane.course.next()) is not None:
                spec = self._spec(lane, point)
                if spec.case_id in done:
                    lane.course.note_case(point, done[spec.case_id])
                    continue
                try:
                    lane.driver.refuse_if_beyond(point)
                except UsageError:  # the search has come to what the client can drive
                    lane.course.note(point)
                    continue
                fidelity = fidelity or self._fidelity(lane, spec)
                number += 1
                self.emit(CaseStarted(number, left, spec, seconds))
                case, interrupted = self._one(writer, lane, point, spec, sensing, fidelity)
                lane.course.note_case(point, case)
                self.emit(CaseFinished(case))
                if interrupted:
                    raise KeyboardInterrupt
        writer.close()

    def _one(
        self,
        writer: RunWriter,
        lane: _Lane,
        point: Point,
        spec: CaseSpec,
        sensing: Sensing,
        fidelity: Fidelity,
    ) -> tuple[CaseRecord, bool]:
        """Drive the server through one point; return the record it leaves, and whether it was interrupted."""
        watch = ServedWatch(sensing, self._device)
        simulated = self.options["simulated"] or self._device.simulated or sensing.simulated
        driven = lane.driver.measure(
            spec,
            point,
            lambda columns: writer.write_samples(spec.case_id, columns),
            simulated=simulated,
            edge=watch.edge,
        )
        fields = driven.fields | {"spec": spec, "predicted": None, "fidelity": fidelity}
        if self.local:
            fields |= watch.fields(driven)
        marked = (SIMULATED,) if simulated else ()
        fields["flags"] = (*marked, *fields.get("flags", ()), *fidelity_flags(fidelity))
        columns = watch.columns()
        if len(columns["sensor"]):
            fields["sensor_samples"] = writer.write_samples(spec.case_id, columns, suffix=".sensors")
        return writer.append(fields), driven.interrupted

    def _fidelity(self, lane: _Lane, spec: CaseSpec) -> Fidelity:
        """Look at the server's answers, once for all cases."""
        self.emit(FidelityStarted(spec))
        found = fidelity_of(lane.driver.job_to_ask(), lane.driver.request.claim)
        self.emit(FidelityChecked(spec, found))
        return found

    def _record(self, lanes: Sequence[_Lane], agreement: Agreement, sensing: Sensing) -> RunRecord:
        most, seconds = sum(lane.course.most for lane in lanes), lanes[0].driver.request.seconds or 0.0
        settings = PlanSettings(
            preset=self.selection.request.preset,
            budget_s=seconds * most,
            starts=1,
            target_relative_half_width=None,
            repeat_on_interference=False,
            search=lanes[0].course.settings(lanes[0].driver.request.slos),
        )
        cases = [PlannedCase(spec=spec, predicted=None, seconds=seconds) for spec in self._planned(lanes)]
        return served_run(
            self.selection, self._device, settings, cases, agreement.details, sensing,
            simulated=self.options["simulated"],
        )  # fmt: skip
