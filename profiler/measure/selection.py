"""What a request names: found, checked, and refused with all faults at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from profiler import registry
from profiler.backends.base import Backend, BackendReport, Device
from profiler.backends.discover import discover, select_device
from profiler.engines.base import Engine, Serving
from profiler.errors import InputFileError, NothingMeasuredError, UsageError
from profiler.load.slo import parse_slos
from profiler.measure.device_group import device_group
from profiler.measure.request import Preset, SweepRequest
from profiler.models.catalogue import ResolvedModel, resolve_model
from profiler.models.formats import Formats, formats_for
from profiler.models.parallel import why_not
from profiler.models.slices import Depth, slice_depths
from profiler.workload.scenario import Scenario, find_scenario


@dataclass(frozen=True)
class Selection:
    """What the request names, found and checked.

    Attributes:
        devices: all that the sweep uses; every case takes all of them where a model is spread over several,
            else one.
        serving: how servers of the engine's own are driven, or None for offline cases.
    """

    request: SweepRequest
    preset: Preset
    models: dict[str, ResolvedModel]
    formats: dict[str, Formats]
    scenarios: tuple[Scenario, ...]
    engines: dict[str, Engine]
    options: dict[str, dict[str, Any]]
    devices: tuple[Device, ...]
    serving: Serving | None
    reports: dict[str, BackendReport]
    backends: dict[str, Backend]

    def formats_of(self, model: ResolvedModel, options: Mapping[str, Any] | None = None) -> list[Formats]:
        """Return the formats to run a model in: those of its file, else those that were asked for.

        Args:
            model: one of ``models``.
            options: of the engine; ``kv_dtype`` among them decides what the cache is kept in.
        """
        found = [model.formats] if model.formats is not None else list(self.formats.values())
        cache = (options or {}).get("kv_dtype")
        return found if cache is None else [replace(formats, kv_dtype=cache) for formats in found]

    @property
    def groups(self) -> tuple[tuple[Device, ...], ...]:
        """The devices of each case: all of them where a model is spread over several, else one."""
        if self.request.parallel.is_one:
            return tuple((device,) for device in self.devices)
        return (self.devices,)


def select(request: SweepRequest, *, allow_download: bool = False) -> Selection:
    """Find everything the request names.

    Raises:
        UsageError: something is unknown; the message has one line per fault, all of them.
        NothingMeasuredError: there is no device to measure on.
    """
    given = request.precisions
    request, preset = request.with_preset()
    faults = _Faults()
    models = [faults.collect(resolve_model, name, allow_download) for name in request.models]
    faults.collect(_formats_are_free, given, models)
    for model in models:
        if model is not None:
            faults.collect(depths_of, request, model)
    formats = {name: faults.collect(formats_for, name) for name in request.precisions}
    scenarios = [faults.collect(find_scenario, name) for name in request.scenarios]
    engines = {name: faults.collect(registry.load, "engines", name) for name in request.engines}
    options = {
        name: faults.collect(_options, engine, dict(request.engine_options))
        for name, engine in engines.items()
        if engine is not None
    }
    reports = discover()
    simulated = bool(engines) and all(engine is not None and engine.simulated for engine in engines.values())
    wanted = request.devices or (("fake",) if simulated else ())
    devices = faults.collect(select_device, wanted, reports) or []
    serving = faults.collect(_serving, request, engines)
    faults.collect(_go_together, request, engines, serving)
    faults.raise_if_any()
    _refuse_if_none_divides(request, [model for model in models if model is not None])
    backends = {device.backend: registry.load("backends", device.backend) for device in devices}
    if not request.parallel.is_one:
        devices = list(device_group(request.parallel, devices, reports, backends[devices[0].backend]))
    return Selection(
        request=request,
        preset=preset,
        models={model.name: model for model in models if model is not None},
        formats={name: found for name, found in formats.items() if found is not None},
        scenarios=tuple(scenario for scenario in scenarios if scenario is not None),
        engines=engines,
        options={name: found for name, found in options.items() if found is not None},
        devices=tuple(devices),
        serving=serving,
        reports={report.backend: report for report in reports},
        backends=backends,
    )


def _options(engine: Engine, given: dict[str, str]) -> dict[str, Any]:
    """Return the options of an engine, parsed.

    Raises:
        UsageError: one is unknown or does not parse, or is for loads and the engine makes none.
    """
    loads = [key for key in ("slo", "search", "from", "to") if key in given]
    if loads and not (hasattr(engine, "serving") or getattr(engine, "serves", False)):
        raise UsageError(
            f"--{loads[0]}: engine {engine.name} makes no loads; --engine vllm starts a server for them, "
            "`aiprof load URL --search concurrency` drives one that runs"
        )
    return engine.options(given)


def _formats_are_free(given: Sequence[str], models: Sequence[ResolvedModel | None]) -> None:
    """Refuse ``--precision`` where only files that have their formats are asked for.

    Raises:
        UsageError: with the formats that they have.
    """
    fixed = [model for model in models if model is not None and model.formats is not None]
    if given and fixed and len(fixed) == len(models):
        says = ", ".join(
            f"{model.name} is in {model.formats.weight_format}" for model in fixed if model.formats
        )
        raise UsageError(f"--precision: a GGUF file has formats of its own ({says}); leave it out")


def _wants_loads(request: SweepRequest) -> bool:
    """Whether users are given, or have to be found: by name, or by limits of percentiles."""
    options = request.engine_options
    limits = parse_slos([text for text in options.get("slo", "").split(",") if text])
    return bool(request.batches or "search" in options) or any(one.percentile is not None for one in limits)


def _serving(request: SweepRequest, engines: Mapping[str, Any]) -> Serving | None:
    """Return how the sweep's server is driven, None where cases are offline.

    Raises:
        UsageError: a server beside other engines, or options that do not fit.
    """
    able = [engine for engine in engines.values() if hasattr(engine, "serving")]
    if not able:
        return None
    asked = _wants_loads(request) and len(engines) == 1
    found: Serving | None = able[0].serving(dict(request.engine_options), asked=asked)
    if found is not None and len(engines) > 1:
        raise UsageError(
            f"--engine {able[0].name} serves alone: leave the other engines out, or give "
            "--engine-option mode=offline"
        )
    return found


def _go_together(request: SweepRequest, engines: Mapping[str, Any], serving: Serving | None) -> None:
    """Refuse what does not go together with several devices, or with a server.

    Raises:
        UsageError: with the flag.
    """
    if not request.parallel.is_one:
        for name, engine in engines.items():
            if engine is not None and not getattr(engine, "runs_parallel", False):
                raise UsageError(
                    f"{request.parallel}: engine {name} runs on one device; --engine vllm spreads a model "
                    "over several"
                )
    if serving is not None:
        for flag, value in (("--soak", request.soak_s), ("--layers", request.layers)):
            if value is not None:
                raise UsageError(f"{flag} is for offline cases: add --engine-option mode=offline")


def _refuse_if_none_divides(request: SweepRequest, models: Sequence[ResolvedModel]) -> None:
    """Refuse before anything is probed what no model can be spread over; others are left out of the plan.

    Raises:
        UsageError: with the reason for each model.
    """
    faults = {model.name: why_not(model.architecture, request.parallel) for model in models}
    if all(fault is not None for fault in faults.values()):
        raise UsageError("\n".join(f"{name}: {fault}" for name, fault in faults.items()))


def depths_of(request: SweepRequest, model: ResolvedModel) -> Sequence[Depth | None]:
    """Return the depths of a model to run; None stands for the whole of it."""
    return (None,) if request.layers is None else slice_depths(model.architecture, request.layers, model.name)


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
            raise UsageError("\n".join(dict.fromkeys(self.lines)))
        if self.nothing is not None:
            raise self.nothing
