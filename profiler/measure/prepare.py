"""Before the first case: find the devices, ask the engines who they are, probe the idle box, plan."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from profiler.backends.base import Device, Unavailable
from profiler.ceilings.bandwidth import IDLE_PROBES, probe_read_bandwidth
from profiler.ceilings.matrix import matrix_ceilings
from profiler.engines.base import Engine
from profiler.engines.process import WorkerError, WorkerProcess
from profiler.errors import NothingMeasuredError, UsageError
from profiler.load.search import Search
from profiler.measure.context import Timeouts
from profiler.measure.events import Listener, Preparing
from profiler.measure.interference import tolerance
from profiler.measure.plan import Candidate, plan_cases
from profiler.measure.predicted import SERVER_OVERHEAD_S
from profiler.measure.request import SweepRequest
from profiler.measure.selection import Selection, depths_of, select
from profiler.measure.served_plan import served_candidates
from profiler.measure.served_search import SearchPlan, asked_search, plan_search
from profiler.models.catalogue import ResolvedModel
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

# Loading, warm-up and probes round a soak.
SOAK_OVERHEAD_S = 120.0


__all__ = ["Prepared", "Selection", "prepare", "python_for", "select"]


@dataclass(frozen=True)
class Prepared:
    """Everything that ``run.json`` says before the first case, and where cases follow from a search, that."""

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
    search: SearchPlan | None = None


def prepare(selection: Selection, emit: Listener, timeouts: Timeouts, log_path: Path) -> Prepared:
    """Ask each engine who it is, probe each device while it is idle, and plan.

    Args:
        selection: what to measure.
        emit: receives :class:`Preparing` events.
        timeouts: after how long a worker counts as hung.
        log_path: file for the workers' output.

    Raises:
        UsageError: a search that does not go with the rest of the request.
        NothingMeasuredError: no engine works on any device, or no case can run.
    """
    asked = asked_search(selection)
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
    found: SearchPlan | None = None
    if asked is None:
        settings, cases, skipped = _planned(selection, working)
    else:
        settings, cases, skipped, found = _searched(selection, working, asked)
    if not cases:
        reasons = [f"{case.spec.scenario} {case.spec.model_label}: {case.reason}" for case in skipped]
        raise NothingMeasuredError("\n".join(["no case can run:", *dict.fromkeys(reasons)]))
    return Prepared(
        selection=selection,
        box=Box.here(),
        devices=tuple(_device_record(device, selection) for device in selection.devices),
        engines=tuple(engines.values()),
        models=tuple(_model_record(model) for model in selection.models.values()),
        noise_floors=tuple(floors),
        ceilings=tuple(ceilings),
        settings=settings,
        cases=cases,
        skipped=skipped,
        search=found,
    )


def python_for(request: SweepRequest) -> str:
    """Return the interpreter that workers run under."""
    return request.python or sys.executable


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
        dtypes = [
            one.compute_dtype for model in selection.models.values() for one in selection.formats_of(model)
        ]
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
    per_case_s = preset.seconds_per_case * starts / preset.starts
    if selection.serving is not None:
        per_case_s += starts * SERVER_OVERHEAD_S
    budget_s = request.budget_s or per_case_s * len(candidates)
    if request.soak_s is not None:
        starts, budget_s = 1, request.soak_s + SOAK_OVERHEAD_S
        if len(candidates) != 1:
            raise UsageError(
                f"--soak holds one case, this asks for {len(candidates)}: name one --scenario, --model, "
                "--precision and --concurrency"
            )
    cases, skipped = plan_cases(
        candidates,
        free_bytes=_all_free_bytes(selection),
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


def _searched(
    selection: Selection, working: dict[tuple[str, str], float], asked: Search
) -> tuple[PlanSettings, tuple[PlannedCase, ...], tuple[SkippedCase, ...], SearchPlan | None]:
    """Return how to measure, the first point, what does not fit any more, and the search for the others."""
    request, preset = selection.request, selection.preset
    starts = request.starts or preset.starts
    found = plan_search(selection, asked, working, _all_free_bytes(selection), starts)
    plan = None if isinstance(found, SkippedCase) else found
    settings = PlanSettings(
        preset=request.preset,
        budget_s=0.0 if plan is None else plan.search.most_points() * plan.seconds,
        starts=starts,
        target_relative_half_width=preset.target_relative_half_width,
        repeat_on_interference=False,
        search=None if plan is None else plan.settings,
    )
    beyond = found if isinstance(found, SkippedCase) else found.too_many
    first = () if plan is None else (plan.first,)
    return settings, first, () if beyond is None else (beyond,), plan


def _candidates(selection: Selection, working: dict[tuple[str, str], float]) -> list[Candidate]:
    """Return every combination, in the order in which a person wants the answers: small models first."""
    request, preset = selection.request, selection.preset
    if selection.serving is not None:
        return served_candidates(selection, working)
    return [
        Candidate(
            device,
            engine,
            model,
            formats,
            scenario.point(preset.variant, batch),
            selection.options[engine.name],
            depth,
            request.parallel,
            group if len(group) > 1 else (),
        )
        for group in selection.groups
        for device in group[:1]
        for engine in selection.engines.values()
        if (device.key, engine.name) in working
        for model in selection.models.values()
        for formats in selection.formats_of(model, selection.options[engine.name])
        for scenario in selection.scenarios
        for batch in request.batches or scenario.batches or preset.batches
        for depth in depths_of(request, model)
    ]


def _all_free_bytes(selection: Selection) -> dict[str, int | None]:
    return {device.key: _free_bytes(selection, device) for device in selection.devices}


def _free_bytes(selection: Selection, device: Device) -> int | None:
    memory = selection.backends[device.backend].memory(device)
    return device.memory_total_bytes if isinstance(memory, Unavailable) else memory.free_bytes


def _model_record(model: ResolvedModel) -> ModelRecord:
    return ModelRecord(
        name=model.name,
        weights=model.weights,
        source=model.source,
        architecture=asdict(model.architecture),
        details=dict(model.details),
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
