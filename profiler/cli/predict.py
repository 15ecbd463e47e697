"""``aiprof predict``: how fast, and whether at all, on hardware that is not here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from profiler.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from profiler.analysis.predict.forecast import Forecast, Predicted
    from profiler.hardware.part import Hardware
    from profiler.results.read import Run

COUNTS = (1, 2, 4, 8)
CONTEXTS = (2048, 8192, 32768, 131072)
POSITIVE = click.IntRange(min=1)


@click.command("predict", short_help="Predict speed, memory and power on hardware that is not here.")
@click.option("--hardware", "names", multiple=True, metavar="NAME", help="The part; repeatable. [required]")
@click.option(
    "--count", "counts", type=POSITIVE, multiple=True, help="Devices; repeatable with --fit. [default: 1]"
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME|FOLDER|ORG/NAME",
    help="The model; repeatable with --fit.",
)
@click.option(
    "--scenario",
    default="chat",
    show_default=True,
    metavar="NAME|FILE",
    help="Lengths of prompts and answers.",
)
@click.option("--prompt-tokens", type=POSITIVE, help="Instead of the scenario's.")
@click.option("--output-tokens", type=POSITIVE, help="Instead of the scenario's.")
@click.option(
    "--concurrency", type=POSITIVE, default=1, show_default=True, help="Users who ask again at once."
)
@click.option("--precision", default="bf16", show_default=True, help="Formats of weights, compute and cache.")
@click.option(
    "--engine", metavar="NAME", help="Engine and generation. [default: vllm; llamacpp on CPUs and Apple]"
)
@click.option("--tensor-parallel", "tensor", type=POSITIVE, help="Ranks that share every matrix.")
@click.option("--pipeline-parallel", "pipeline", type=POSITIVE, help="Stages of layers.")
@click.option("--data-parallel", "data", type=POSITIVE, help="Replicas of attention.")
@click.option("--expert-parallel", "expert", type=POSITIVE, help="Ranks over which experts are spread.")
@click.option(
    "--fit", "only_fit", is_flag=True, help="Show which models fit, with how much context for how many users."
)
@click.option(
    "--scale-from", metavar="RUN", help="Correct by what RUN measured of the same model on another device."
)
@click.option(
    "--measured", metavar="RUN", help="Take the ceilings that RUN measured instead of the datasheet's."
)
@click.option(
    "--costs",
    type=click.Path(path_type=Path),
    metavar="COSTS.yaml",
    help="Price the tokens; see `aiprof cost`.",
)
@click.option(
    "--hardware-file",
    "files",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE|FOLDER",
    help="YAML with parts of your own, or a folder of such files; repeatable.",
)
@click.option("--explain", is_flag=True, help="Show the terms that a step is the sum of, and which binds.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON in base units.")
def command(names: tuple[str, ...], files: tuple[Path, ...], measured: str | None, **options: Any) -> None:
    """Predict speed, memory and power on hardware that is not here.

    Every figure comes with its interval and with what it rests on: factors fitted to published
    measurements of other devices (docs/predicting.md). Nothing here was measured.
    """
    from profiler.hardware.catalogue import get_hardware, with_user_files
    from profiler.hardware.measured import with_measured_ceilings

    catalogue = with_user_files(files)
    if not names and not options["only_fit"]:
        raise UsageError("--hardware is missing; `aiprof hardware` lists the parts")
    parts = [get_hardware(name, catalogue) for name in names] or list(catalogue.values())
    if measured is not None:
        if len(parts) != 1:
            raise UsageError("--measured is about one --hardware")
        parts = [with_measured_ceilings(parts[0], _run(measured))]
    if options["only_fit"]:
        _fits(parts, options)
    else:
        _speeds(parts, options)


def _run(text: str) -> Run:
    from profiler.results.find import read_runs, resolve_run

    runs, messages = read_runs([resolve_run(text)])
    for message in messages:
        click.echo(f"aiprof: {message}", err=True)
    return runs[0]


def _fits(parts: list[Hardware], options: dict[str, Any]) -> None:
    from profiler.analysis.predict.options import fit_table
    from profiler.models.catalogue import catalogue, resolve_model
    from profiler.models.formats import formats_for
    from profiler.render.predict import fit_document, fit_view

    models = {name: resolve_model(name).architecture for name in options["models"]}
    models = models or {name: entry.architecture for name, entry in catalogue().items()}
    counts = options["counts"] or COUNTS
    rows = fit_table(parts, counts, models, formats_for(options["precision"]))
    if options["as_json"]:
        _write_json(fit_document(rows, options["precision"], CONTEXTS))
    else:
        _print([fit_view(rows, options["precision"], CONTEXTS)])


def _speeds(parts: list[Hardware], options: dict[str, Any]) -> None:
    from profiler.render.predict import forecast_document, forecast_view

    if len(options["models"]) != 1:
        raise UsageError("give one --model; `aiprof models` lists the catalogue, --fit takes several")
    if len(options["counts"]) > 1:
        raise UsageError("give one --count; --fit takes several")
    (model,) = options["models"]
    made = [_forecast(part, model, options) for part in parts]
    if options["as_json"]:
        documents = [forecast_document(one, model, price) for one, price in made]
        _write_json(documents[0] if len(documents) == 1 else documents)
    else:
        _print([forecast_view(one, model, price, options["explain"]) for one, price in made])


def _forecast(part: Hardware, model: str, options: dict[str, Any]) -> tuple[Forecast, Predicted | str | None]:
    from profiler.analysis.cost_file import load_costs
    from profiler.analysis.predict.deployment import Deployment
    from profiler.analysis.predict.forecast import predict
    from profiler.analysis.predict.options import Ranks, default_engine, parallel_for, priced
    from profiler.analysis.predict.scale import correction_from
    from profiler.analysis.predict.serving import Load
    from profiler.models.catalogue import resolve_model
    from profiler.models.formats import formats_for
    from profiler.workload.scenario import find_scenario

    architecture = resolve_model(model).architecture
    point = find_scenario(options["scenario"]).point("full", 1)
    load = Load(
        "closed",
        options["prompt_tokens"] or point.prompt_tokens,
        options["output_tokens"] or point.output_tokens,
        options["concurrency"],
    )
    ranks = Ranks(options["tensor"], options["pipeline"], options["data"], options["expert"])
    count = options["counts"][0] if options["counts"] else 1
    parallel = parallel_for(part, architecture, count, ranks)
    deployment = Deployment(part, architecture, formats_for(options["precision"]), parallel)
    scale = options["scale_from"]
    correction = None if scale is None else correction_from(_run(scale), deployment, load)
    forecast = predict(deployment, load, options["engine"] or default_engine(part), correction)
    if forecast.memory.cache_tokens == 0:
        raise UsageError(
            f"{model} in {options['precision']} does not fit on {count} x {part.name}: weights and reserve "
            f"take {(forecast.memory.weights_bytes + forecast.memory.reserved_bytes) / 2**30:.1f} GiB of "
            f"{(forecast.memory.usable_bytes or 0) / 2**30:.1f} GiB usable; more --count, a smaller "
            "--precision, or see --fit"
        )
    costs = options["costs"]
    return forecast, None if costs is None else priced(forecast, load_costs(costs))


def _write_json(document: Any) -> None:
    click.echo(json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False))


def _print(views: list[RenderableType]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 100_000  # a file or a pipe has no width: one line per row, whole
    with console.capture() as captured:
        for view in views:
            console.print(view)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())
