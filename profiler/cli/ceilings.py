"""``aiprof ceilings``: what the devices can do, and how fast a model could be on them at most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from profiler.errors import NothingMeasuredError, UsageError

if TYPE_CHECKING:
    from profiler.models.catalogue import ResolvedModel
    from profiler.render.ceilings import ShownBound, ShownDevice
    from profiler.workload.scenario import ScenarioPoint

DEFAULT_BATCHES = (1, 8, 32)


@click.command(short_help="Measure what the devices can do at most, and what that means for a model.")
@click.option(
    "--device", "devices", multiple=True, metavar="cpu|cuda|cuda:1|UUID|PCI", help="See `aiprof devices`."
)
@click.option("--engine", "engine_name", default="torch", show_default=True, help="Software that measures.")
@click.option("--python", metavar="PATH", help="Interpreter that has the engine (default: aiprof's own).")
@click.option("--sustained", is_flag=True, help="Also hold each device busy for half a minute.")
@click.option("--run", "run_name", metavar="RUN", help="Take the ceilings of a run and measure nothing.")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME|FOLDER|ORG/NAME",
    help="Print how fast this model could be at most; see `aiprof models`.",
)
@click.option(
    "--precision", default="bf16", show_default=True, help="Number format of model and of --sustained."
)
@click.option("--scenario", "scenarios", multiple=True, metavar="NAME|FILE", help="Workload (default: all).")
@click.option(
    "--concurrency",
    "batches",
    multiple=True,
    type=click.IntRange(1, 65536),
    help="Requests that run together.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document in base units.")
def command(
    devices: tuple[str, ...],
    engine_name: str,
    python: str | None,
    sustained: bool,
    run_name: str | None,
    models: tuple[str, ...],
    precision: str,
    scenarios: tuple[str, ...],
    batches: tuple[int, ...],
    as_json: bool,
) -> int:
    """Measure what the devices of this box can do at most: bandwidth, matrix products, links.

    Takes under ten seconds per device. With --model it also says how fast each workload could be at
    most, and which ceiling stops it, before anything is run.

    Exit codes: 0 measured, 1 some device could not be measured, 2 bad input, 4 nothing was measured.
    """
    if run_name is not None and (devices or sustained or python):
        raise UsageError("--run measures nothing; it goes with neither --device nor --sustained nor --python")
    if (scenarios or batches) and not models:
        raise UsageError("--scenario and --concurrency are for the bounds of a model: name one with --model")
    wanted = _wanted(models, precision, scenarios, batches)
    if run_name is not None:
        source, shown, failures = _from_run(run_name)
    else:
        source, shown, failures = _measured(devices, engine_name, python, sustained, wanted[1])
    bounds = _bounds(shown, *wanted)
    from profiler.render.ceilings import ceilings_document, print_ceilings

    if as_json:
        import json

        document = ceilings_document(source, shown, bounds, failures)
        click.echo(json.dumps(document, indent=1, allow_nan=False))
    elif shown:
        from rich.console import Console

        console = Console(highlight=False)
        if not console.is_terminal:  # a file or a pipe has no width that could be too small
            console = Console(highlight=False, width=140)
        print_ceilings(source, shown, bounds, console)
    for failure in failures:
        click.echo(f"not measured: {failure}", err=True)
    if not shown:
        raise NothingMeasuredError("no device could be measured (see above)")
    return 1 if failures else 0


def _wanted(
    models: tuple[str, ...], precision: str, scenarios: tuple[str, ...], batches: tuple[int, ...]
) -> tuple[list[ResolvedModel], Any, list[ScenarioPoint]]:
    """Find everything that was named before anything is measured; all faults at once."""
    from profiler.errors import InputFileError
    from profiler.models.catalogue import resolve_model
    from profiler.models.formats import formats_for
    from profiler.workload import scenario

    faults: list[str] = []

    def found(function: Any, name: str) -> Any:
        try:
            return function(name)
        except (UsageError, InputFileError) as error:
            faults.extend(str(error).splitlines())
            return None

    resolved = [found(resolve_model, name) for name in models]
    formats = found(formats_for, precision)
    named = [found(scenario.find_scenario, name) for name in scenarios]
    if faults:
        raise UsageError("\n".join(faults))
    chosen = named or (list(scenario.scenarios().values()) if models else [])
    points = [
        one.point("full", batch) for one in chosen for batch in batches or one.batches or DEFAULT_BATCHES
    ]
    return resolved, formats, points


def _measured(
    selectors: tuple[str, ...], engine_name: str, python: str | None, sustained: bool, formats: Any
) -> tuple[str, list[ShownDevice], list[str]]:
    import sys

    from profiler import registry
    from profiler.backends.discover import discover, select_device
    from profiler.ceilings.box import Asked, measure_box
    from profiler.ceilings.sustained import SUSTAINED_S
    from profiler.render.ceilings import ShownDevice

    engine = registry.load("engines", engine_name)
    wanted = selectors or (("fake",) if engine.simulated else ())
    chosen = select_device(wanted, discover())
    asked = Asked(
        engine=engine,
        options=engine.options({}),
        python=python or sys.executable,
        sustained_s=SUSTAINED_S if sustained else None,
        sustained_dtype=formats.compute_dtype,
        say=lambda line: click.echo(line, err=True),
    )
    found = measure_box(chosen, asked)
    shown = [
        ShownDevice(
            device.key,
            device.name,
            device.memory_total_bytes,
            device.simulated or engine.simulated,
            tuple(one for one in found.ceilings if one.device_key == device.key),
            found.sustained.get(device.key),
        )
        for device in found.devices
    ]
    return f"measured with {engine.name} {found.engine_version}", shown, found.failures


def _from_run(name: str) -> tuple[str, list[ShownDevice], list[str]]:
    from profiler.render.ceilings import ShownDevice
    from profiler.results.find import resolve_run
    from profiler.results.read import read_run

    run = read_run(resolve_run(name))
    record = run.record
    for warning in run.warnings:
        click.echo(warning, err=True)
    shown = [
        ShownDevice(
            device.key,
            device.name,
            device.memory_total_bytes,
            device.simulated or record.simulated,
            tuple(one for one in record.ceilings if one.device_key == device.key),
        )
        for device in record.devices
    ]
    return f"as run {run.path.resolve().name} measured it", shown, []


def _bounds(
    shown: list[ShownDevice], models: list[ResolvedModel], formats: Any, points: list[ScenarioPoint]
) -> list[ShownBound]:
    from profiler.ceilings.upper_bound import upper_bounds
    from profiler.render.ceilings import ShownBound

    found = []
    for device in shown:
        for model in models:
            fitting = [
                point
                for point in points
                if point.prompt_tokens + point.output_tokens <= model.architecture.max_positions
            ]
            bounds = upper_bounds(model.architecture, formats, fitting, device.ceilings, device.key)
            found.append(ShownBound(device, model.name, formats, bounds))
    return found
