"""Before the first case: find the devices, ask the engines who they are, probe the idle box, plan."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from profiler import registry
from profiler.backends.base import Backend, BackendReport, Device, Unavailable
from profiler.backends.discover import discover, select_device
from profiler.ceilings.bandwidth import IDLE_PROBES, probe_read_bandwidth
from profiler.ceilings.matrix import matrix_ceilings
from profiler.engines.base import Engine
from profiler.engines.process import WorkerError, WorkerProcess
from profiler.errors import InputFileError, NothingMeasuredError, UsageError
from profiler.measure.context import Timeouts
from profiler.measure.events import Listener, Preparing
from profiler.measure.interference import tolerance
from profiler.measure.plan import Candidate, plan_cases
from profiler.measure.request import Preset, SweepRequest
from profiler.models.catalogue import ResolvedModel, resolve_model
from profiler.models.formats import Formats, formats_for
from profiler.models.slices import Depth, slice_depths
from profiler.results.schema import (
    Box,
    Ceiling,
    DeviceRecord,
    EngineRecord,
    ModelRecord,
    NoiseFloor,
    PlannedCase,
    PlanSettings,
    SkippedCase,
)
from profiler.workload.scenario import Scenario, find_scenario

# Loading, warm-up and probes round a soak.
SOAK_OVERHEAD_S = 120.0


@dataclass(frozen=True)
class Selection:
    """What the request names, found and checked."""

    request: SweepRequest
    preset: Preset
    models: dict[str, ResolvedModel]
    formats: dict[str, Formats]
    scenarios: tuple[Scenario, ...]
    engines: dict[str, Engine]
    options: dict[str, dict[str, Any]]
    devices: tuple[Device, ...]
    reports: dict[str, BackendReport]
    backends: dict[str, Backend]


@dataclass(frozen=True)
class Prepared:
    """Everything that ``run.json`` says before the first case."""

    selection: Selection
    box: Box
    devices: tuple[DeviceRecord, ...]
    engines: tuple[EngineRecord, ...]
    models: tuple[ModelRecord, ...]
    noise_floors: tuple[NoiseFloor, ...]
    ceilings: tuple[Ceiling, ...]
    settings: PlanSettings
    cases: tuple[PlannedCase, ...]
    skipped: tuple[SkippedCase, ...]


def select(request: SweepRequest, *, allow_download: bool = False) -> Selection:
    """Find everything the request names.

    Raises:
        UsageError: something is unknown; the message has one line per fault, all of them.
        NothingMeasuredError: there is no device to measure on.
    """
    request, preset = request.with_preset()
    faults = _Faults()
    models = [faults.collect(resolve_model, name, allow_download) for name in request.models]
    for model in models:
        if model is not None:
            faults.collect(_depths, request, model)
    formats = {name: faults.collect(formats_for, name) for name in request.precisions}
    scenarios = [faults.collect(find_scenario, name) for name in request.scenarios]
    engines = {name: faults.collect(registry.load, "engines", name) for name in request.engines}
    options = {
        name: faults.collect(engine.options, dict(request.engine_options))
        for name, engine in engines.items()
        if engine is not None
    }
    reports = discover()
    simulated = bool(engines) and all(engine is not None and engine.simulated for engine in engines.values())
    wanted = request.devices or (("fake",) if simulated else ())
    devices = faults.collect(select_device, wanted, reports) or []
    faults.raise_if_any()
    return Selection(
        request=request,
        preset=preset,
        models={model.name: model for model in models if model is not None},
        formats={name: found for name, found in formats.items() if found is not None},
        scenarios=tuple(scenario for scenario in scenarios if scenario is not None),
        engines=engines,
        options={name: found for name, found in options.items() if found is not None},
        devices=tuple(devices),
        reports={report.backend: report for report in reports},
        backends={device.backend: registry.load("backends", device.backend) for device in devices},
    )


def prepare(selection: Selection, emit: Listener, timeouts: Timeouts, log_path: Path) -> Prepared:
    """Ask each engine who it is, probe each device while it is idle, and plan.

    Args:
        selection: what to measure.
        emit: receives :class:`Preparing` events.
        timeouts: after how long a worker counts as hung.
        log_path: file for the workers' output.

    Raises:
        NothingMeasuredError: no engine works on any device, or no case can run.
    """
    engines: dict[str, EngineRecord] = {}
    floors: list[NoiseFloor] = []
    ceilings: list[Ceiling] = []
    failures: list[str] = []
    for device in selection.devices:
        for name, engine in selection.engines.items():
            emit(Preparing(f"starting engine {name} and probing {device.name} while it is idle"))
            try:
                record, floor, measured = _acquaint(selection, engine, device, timeouts, log_path)
            except (WorkerError, UsageError) as error:
                failures.append(f"engine {name} on {device.key}: {error}")
                continue
            engines[name] = record
            floors.append(floor)
            ceilings += measured
    if not floors:
        raise NothingMeasuredError("\n".join(failures) or "no device that could be measured")
    for failure in failures:
        emit(Preparing(f"left out: {failure}"))
    working = {(floor.device_key, floor.engine): median(floor.bytes_per_s) for floor in floors}
    settings, cases, skipped = _planned(selection, working)
    if not cases:
        reasons = [f"{case.spec.scenario} {case.spec.model_label}: {case.reason}" for case in skipped]
        raise NothingMeasuredError("\n".join(["no case can run:", *dict.fromkeys(reasons)]))
    return Prepared(
        selection=selection,
        box=Box(
            system=platform.system(),
            kernel=platform.release(),
            architecture=platform.machine(),
            python=platform.python_version(),
        ),
        devices=tuple(_device_record(device, selection) for device in selection.devices),
        engines=tuple(engines.values()),
        models=tuple(_model_record(model) for model in selection.models.values()),
        noise_floors=tuple(floors),
        ceilings=tuple(ceilings),
        settings=settings,
        cases=cases,
        skipped=skipped,
    )


def python_for(request: SweepRequest) -> str:
    """Return the interpreter that workers run under."""
    return request.python or sys.executable


class _Faults:
    """Collects what is wrong with a request, so that all of it can be said at once."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.nothing: NothingMeasuredError | None = None

    def collect(self, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except (UsageError, InputFileError) as error:
            self.lines += str(error).splitlines()
        except NothingMeasuredError as error:
            self.nothing = error
        return None

    def raise_if_any(self) -> None:
        if self.lines:
            raise UsageError("\n".join(self.lines))
        if self.nothing is not None:
            raise self.nothing


def _acquaint(
    selection: Selection, engine: Engine, device: Device, timeouts: Timeouts, log_path: Path
) -> tuple[EngineRecord, NoiseFloor, list[Ceiling]]:
    """Start a worker that only says hello and measures what the idle device can do."""
    python = python_for(selection.request)
    options = selection.options[engine.name]
    with WorkerProcess(python, log_path) as worker:
        hello = worker.request("hello", timeouts.hello_s, engine=engine.name, options=options)
        name = engine.device_string(device, hello)
        probe = probe_read_bandwidth(worker, name, IDLE_PROBES, timeouts.probe_s)
        ceilings = [probe.ceiling(device.key, "read_bandwidth", engine.name)]
        dtypes = [formats.compute_dtype for formats in selection.formats.values()]
        ceilings += matrix_ceilings(
            worker, name, dtypes, timeouts.probe_s, device_key=device.key, engine=engine.name
        )
    about = hello["engine"]
    record = EngineRecord(
        name=engine.name,
        version=str(about["version"]),
        python=str(hello["python"]),
        simulated=engine.simulated or bool(hello["simulated"]),
        details=about["details"],
    )
    floor = NoiseFloor(
        device_key=device.key,
        engine=engine.name,
        method=probe.method,
        bytes_per_s=probe.rates,
        tolerance=tolerance(probe.rates),
    )
    return record, floor, ceilings


def _planned(
    selection: Selection, working: dict[tuple[str, str], float]
) -> tuple[PlanSettings, tuple[PlannedCase, ...], tuple[SkippedCase, ...]]:
    """Return how to measure, what, and what cannot be measured."""
    request, preset = selection.request, selection.preset
    candidates = _candidates(selection, working)
    starts = request.starts or preset.starts
    budget_s = request.budget_s or preset.seconds_per_case * len(candidates) * starts / preset.starts
    if request.soak_s is not None:
        starts, budget_s = 1, request.soak_s + SOAK_OVERHEAD_S
        if len(candidates) != 1:
            raise UsageError(
                f"--soak holds one case, this asks for {len(candidates)}: name one --scenario, --model, "
                "--precision and --concurrency"
            )
    cases, skipped = plan_cases(
        candidates,
        free_bytes={device.key: _free_bytes(selection, device) for device in selection.devices},
        bandwidth=working,
        starts=starts,
        budget_s=budget_s,
        seed=request.seed,
        challenge=request.challenge,
    )
    if request.soak_s is not None:
        cases = tuple(case.model_copy(update={"seconds": budget_s}) for case in cases)
    settings = PlanSettings(
        preset=request.preset,
        budget_s=budget_s,
        starts=starts,
        target_relative_half_width=preset.target_relative_half_width,
        repeat_on_interference=preset.repeat_on_interference and request.soak_s is None,
        soak_s=request.soak_s,
    )
    return settings, cases, skipped


def _candidates(selection: Selection, working: dict[tuple[str, str], float]) -> list[Candidate]:
    """Return every combination, in the order in which a person wants the answers: small models first."""
    request, preset = selection.request, selection.preset
    return [
        Candidate(
            device,
            engine,
            model,
            formats,
            scenario.point(preset.variant, batch),
            selection.options[engine.name],
            depth,
        )
        for device in selection.devices
        for engine in selection.engines.values()
        if (device.key, engine.name) in working
        for model in selection.models.values()
        for formats in selection.formats.values()
        for scenario in selection.scenarios
        for batch in request.batches or scenario.batches or preset.batches
        for depth in _depths(request, model)
    ]


def _depths(request: SweepRequest, model: ResolvedModel) -> Sequence[Depth | None]:
    """Return the depths of a model to run; None stands for the whole of it."""
    return (None,) if request.layers is None else slice_depths(model.architecture, request.layers, model.name)


def _free_bytes(selection: Selection, device: Device) -> int | None:
    memory = selection.backends[device.backend].memory(device)
    return device.memory_total_bytes if isinstance(memory, Unavailable) else memory.free_bytes


def _model_record(model: ResolvedModel) -> ModelRecord:
    return ModelRecord(
        name=model.name,
        weights=model.weights,
        source=model.source,
        architecture=asdict(model.architecture),
    )


def _device_record(device: Device, selection: Selection) -> DeviceRecord:
    report = selection.reports[device.backend]
    return DeviceRecord(
        key=device.key,
        backend=device.backend,
        name=device.name,
        memory_total_bytes=device.memory_total_bytes,
        simulated=device.simulated,
        verified=report.verified,
        details=dict(device.details),
        facts=dict(report.facts),
    )
