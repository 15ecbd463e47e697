"""A sweep whose engine is a server by URL: every case is a load, kept in the same store as any other.

The device is one of this box where the server is (energy and telemetry then come from its sensors), else one
that stands for the server. Before the first case the server's answers are looked at, and held against the
fp32 reference where ``--model`` is a folder with the weights that it serves.
"""

from __future__ import annotations

import platform
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from profiler import __version__
from profiler.backends.base import Device
from profiler.engines.endpoint import EndpointEngine
from profiler.errors import ResumeRefusedError, UsageError
from profiler.load.ceiling import measure_client
from profiler.load.drive import Driver
from profiler.load.endpoint import parse_endpoint
from profiler.load.negotiate import Agreement, negotiate
from profiler.load.plan import served_shape
from profiler.load.request import LoadRequest, Point
from profiler.load.slo import parse_slos
from profiler.measure.events import (
    CaseFinished,
    CaseStarted,
    FidelityChecked,
    FidelityStarted,
    Listener,
    Preparing,
    SweepStarted,
)
from profiler.measure.fidelity import fidelity_flags, left_out
from profiler.measure.fidelity_server import Claim, fidelity_of
from profiler.measure.prepare import Selection, select
from profiler.measure.request import SweepRequest
from profiler.measure.sensing import Sensing
from profiler.measure.served_watch import ServedWatch
from profiler.models.catalogue import ResolvedModel
from profiler.models.formats import Formats
from profiler.results.read import Run, read_run
from profiler.results.schema import (
    Box,
    CaseSpec,
    DeviceRecord,
    EngineRecord,
    Fidelity,
    FormatsRecord,
    ModelRecord,
    PlannedCase,
    PlanSettings,
    RunRecord,
)
from profiler.results.store import RunWriter
from profiler.workload.identity import case_id, workload_id
from profiler.workload.scenario import Scenario

DEFAULT_USERS = (1, 8)


@dataclass(frozen=True)
class _Case:
    spec: CaseSpec
    driver: Driver
    point: Point


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
        if len(self.selection.models) != 1 or len(self.selection.formats) != 1:
            raise UsageError("a server serves one model in one format: name one --model and one --precision")
        self.local = self.endpoints[0].reach == "loopback"

    @property
    def _device(self) -> Device:
        if self.local:
            return self.selection.devices[0]
        key = self.endpoints[0].key
        return Device(key, "endpoint", 0, f"server {key.removeprefix('endpoint-')[:6]}", None)

    @property
    def seconds_per_case(self) -> float:
        """Wall time in which requests are sent, per case."""
        selection, cases = self.selection, len(self._loads())
        if selection.request.budget_s is not None:
            return selection.request.budget_s / cases
        return selection.preset.seconds_per_case

    def _loads(self) -> list[tuple[Scenario, int]]:
        selection = self.selection
        return [
            (scenario, users)
            for scenario in selection.scenarios
            for users in selection.request.batches or DEFAULT_USERS
        ]

    def expected(self) -> list[tuple[str, int, float]]:
        """Return scenario, users and seconds of each case; nothing is sent."""
        return [(scenario.name, users, self.seconds_per_case) for scenario, users in self._loads()]

    def run(self, path: Path) -> Run:
        """Measure everything and return the run as it stands on disk.

        Raises:
            UsageError: ``path`` cannot hold a new run.
            NothingMeasuredError: the server does not answer as it should.
        """
        with Sensing((self._device,) if self.local else ()) as sensing:
            cases, agreement = self._cases()
            with RunWriter.create(path, self._record(cases, agreement, sensing)) as writer:
                self._measure(writer, cases, sensing)
        return read_run(path)

    def resume(self, path: Path, run: Run) -> Run:
        """Measure what is missing in ``run``.

        Raises:
            ResumeRefusedError: the server, or what is asked of it, is another one.
        """
        with Sensing((self._device,) if self.local else ()) as sensing:
            cases, _ = self._cases()
            planned = {case.spec.case_id for case in run.record.cases}
            if planned != {case.spec.case_id for case in cases}:
                raise ResumeRefusedError(
                    f"{path}: the server or what is asked of it has changed since; start a new run instead"
                )
            done = {case.spec.case_id for case in run.cases}
            writer, _ = RunWriter.resume(path)
            with writer:
                self._measure(writer, [case for case in cases if case.spec.case_id not in done], sensing)
        return read_run(path)

    def _cases(self) -> tuple[list[_Case], Agreement]:
        options, request = self.options, self.selection.request
        self.emit(Preparing("asking the server what it understands, and measuring the client"))
        api = options.get("api", "completions")
        agreement = negotiate(self.endpoints, api, options.get("served_model"))
        cases: list[_Case] = []
        for scenario in self.selection.scenarios:
            shape = served_shape(scenario, request.seed)
            load = LoadRequest(
                endpoints=self.endpoints,
                model=agreement.model,
                api=api,
                shape=shape,
                points=(),
                requests=options.get("requests"),
                seconds=self.seconds_per_case,
                warm_up=options.get("warm_up"),
                slos=parse_slos([text for text in options.get("slo", "").split(",") if text]),
                seed=request.seed,
                speculative=options.get("speculative"),
                vocab_size=self._model.architecture.vocab_size,
            )
            driver = Driver(load, agreement, measure_client(shape.nominal[0]))
            points = [Point(concurrency=users) for other, users in self._loads() if other is scenario]
            cases += [_Case(self._spec(driver, scenario, point), driver, point) for point in points]
        return cases, agreement

    @property
    def _model(self) -> ResolvedModel:
        return next(iter(self.selection.models.values()))

    @property
    def _formats(self) -> Formats:
        return next(iter(self.selection.formats.values()))

    def _spec(self, driver: Driver, scenario: Scenario, point: Point) -> CaseSpec:
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

    def _measure(self, writer: RunWriter, cases: Sequence[_Case], sensing: Sensing) -> None:
        seconds = self.seconds_per_case
        self.emit(SweepStarted(str(writer.path), writer.record, len(cases), seconds * len(cases)))
        fidelity = self._fidelity(cases[0]) if cases else left_out("there was nothing left to measure")
        for number, case in enumerate(cases, start=1):
            self.emit(CaseStarted(number, len(cases), case.spec, seconds))
            watch = ServedWatch(sensing, self._device)
            case_key = case.spec.case_id
            driven = case.driver.measure(
                case.spec,
                case.point,
                lambda columns, key=case_key: writer.write_samples(key, columns),  # type: ignore[misc]
                simulated=self.options["simulated"] or self._device.simulated or sensing.simulated,
            )
            fields = driven.fields | {"spec": case.spec, "predicted": None, "fidelity": fidelity}
            if self.local:
                fields |= watch.fields(driven)
            fields["flags"] = (*fields.get("flags", ()), *fidelity_flags(fidelity))
            columns = watch.columns()
            if len(columns["sensor"]):
                fields["sensor_samples"] = writer.write_samples(case_key, columns, suffix=".sensors")
            self.emit(CaseFinished(writer.append(fields)))
            if driven.interrupted:
                raise KeyboardInterrupt
        writer.close()

    def _fidelity(self, case: _Case) -> Fidelity:
        """Look at the server's answers, once for all cases."""
        request, model = self.selection.request, self._model
        known = model if model.folder is not None else None
        claim = None if request.no_fidelity else Claim(known, self._formats, request.seed)
        self.emit(FidelityStarted(case.spec))
        found = fidelity_of(case.driver.job_to_ask(), claim)
        self.emit(FidelityChecked(case.spec, found))
        return found

    def _record(self, cases: Sequence[_Case], agreement: Agreement, sensing: Sensing) -> RunRecord:
        selection, device, model = self.selection, self._device, self._model
        simulated = self.options["simulated"] or device.simulated or sensing.simulated
        report = selection.reports.get(device.backend)
        # Whose server it is stays out of the record; on resume it is given again.
        options = {key: text for key, text in selection.request.engine_options.items() if key != "url"}
        return RunRecord(
            run_id=secrets.token_hex(16),
            created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
            aiprof_version=__version__,
            command=replace(selection.request, engine_options=options).to_arguments(),
            seed=selection.request.seed,
            box=Box(
                system=platform.system(),
                kernel=platform.release(),
                architecture=platform.machine(),
                python=platform.python_version(),
            ),
            devices=(
                DeviceRecord(
                    key=device.key,
                    backend=device.backend,
                    name=device.name,
                    memory_total_bytes=device.memory_total_bytes,
                    simulated=device.simulated,
                    verified="a server by URL: what stands behind it is not seen"
                    if report is None
                    else report.verified,
                    details=dict(device.details),
                    facts={} if report is None else dict(report.facts),
                ),
            ),
            engines=(
                EngineRecord(
                    name=EndpointEngine.name, version="unknown", python="unknown",
                    simulated=self.options["simulated"], details=agreement.details,
                ),
            ),
            models=(
                ModelRecord(
                    name=model.name, weights=model.weights, source=f"stated by the user: {model.source}",
                    architecture=asdict(model.architecture),
                ),
            ),
            noise_floors=(),
            ceilings=(),
            settings=PlanSettings(
                preset=selection.request.preset,
                budget_s=self.seconds_per_case * len(cases),
                starts=1,
                target_relative_half_width=None,
                repeat_on_interference=False,
            ),
            cases=tuple(
                PlannedCase(spec=case.spec, predicted=None, seconds=self.seconds_per_case) for case in cases
            ),
            skipped=(),
            simulated=simulated,
            sensors=sensing.records(),
            baselines=sensing.baselines(),
        )  # fmt: skip
