"""``aiprof sweep``: profile this box."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from profiler.cli.durations import Duration
from profiler.cli.sweep_loads import fold_load_flags, show_loads, with_load_flags
from profiler.errors import AiprofError, UsageError

if TYPE_CHECKING:
    from profiler.measure.prepare import Prepared
    from profiler.measure.request import SweepRequest
    from profiler.results.read import Run

INTERRUPTED = 130
ENDPOINT = "endpoint"
_CHALLENGE = re.compile(r"[A-Za-z0-9._:-]{8,200}")


def _options(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise click.BadParameter(f"'{text}' is not KEY=VALUE")
    return dict(text.split("=", 1) for text in texts)


def _challenge(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    if text is not None and not _CHALLENGE.fullmatch(text):
        raise click.BadParameter("must be 8 to 200 letters, digits or . _ : - (nobody may guess it)")
    return text


@click.command(short_help="Profile this box: run the standard workloads and record how it does.")
@click.option("--preset", help="quick (default), standard or full; the other flags override its parts.")
@click.option(
    "--scenario", "scenarios", multiple=True, metavar="NAME|FILE", help="Workload; see `aiprof scenarios`."
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME|FOLDER|FILE.gguf|ORG/NAME",
    help="Model; see `aiprof models`.",
)
@click.option("--engine", "engines", multiple=True, help="Software that runs the model (default: torch).")
@click.option(
    "--device", "devices", multiple=True, metavar="cpu|cuda|cuda:1|UUID|PCI", help="See `aiprof devices`."
)
@click.option("--precision", "precisions", multiple=True, help="Number format: bf16, fp16, fp32, …")
@click.option(
    "--concurrency",
    "batches",
    multiple=True,
    type=click.IntRange(1, 65536),
    help="Requests that run together; for vllm, users of a server that is started for them.",
)
@click.option(
    "--budget", "budget_s", type=Duration(), metavar="90s|5m|1h", help="Wall time of the whole sweep."
)
@click.option(
    "--soak",
    "soak_s",
    type=Duration(),
    metavar="30m|2h",
    help="Hold one case this long: does it keep its speed?",
)
@click.option(
    "--starts", type=click.IntRange(1, 100), help="Fresh processes per case; 3 or more for evidence."
)
@click.option(
    "--layers",
    type=click.IntRange(min=2),
    metavar="N",
    help="Run slices of N layers of a model that does not fit, and extrapolate.",
)
@click.option("--tp", type=click.IntRange(1, 1024), metavar="N", help="Spread each matrix over N devices.")
@click.option("--pp", type=click.IntRange(1, 1024), metavar="N", help="Spread the layers over N devices.")
@click.option("--dp", type=click.IntRange(1, 1024), metavar="N", help="Run N copies for different requests.")
@click.option("--ep", type=click.IntRange(1, 1024), metavar="N", help="Spread the experts over N devices.")
@click.option("--seed", type=int, help="Seed of prompts and random weights (default: 0).")
@click.option(
    "--challenge",
    callback=_challenge,
    metavar="TEXT",
    help="A verifier's text, mixed into prompts and random weights; see docs/trust.md.",
)
@click.option("--python", metavar="PATH", help="Interpreter that has the engine (default: aiprof's own).")
@click.option(
    "--engine-option",
    "engine_options",
    multiple=True,
    callback=_options,
    metavar="KEY=VALUE",
    help="For the engine.",
)
@with_load_flags
@click.option(
    "--no-fidelity",
    is_flag=True,
    help="Leave out the check that the engine computes the model it claims; the record says so.",
)
@click.option("--allow-download", is_flag=True, help="Let ORG/NAME be fetched from the model hub.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the run (default: runs/<time>-<what>)."
)
@click.option("--resume", type=str, metavar="RUN", help="Finish an unfinished run; nothing is repeated.")
@click.option("--dry-run", is_flag=True, help="Show the plan with predicted memory and time, and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
@click.option("--quiet", is_flag=True, help="No progress.")
def command(
    out: Path | None,
    resume: str | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    allow_download: bool,
    **flags: Any,
) -> int:
    """Profile this box and leave a run: raw samples, a record and a page to read.

    Without flags this takes about three minutes. The tables go to stdout, progress to stderr.
    """
    signal.signal(signal.SIGTERM, _as_interrupt)
    fold_load_flags(flags)
    given = {
        name: value for name, value in flags.items() if value not in (None, (), {}) and value is not False
    }
    if resume is not None:
        if out is not None or dry_run:
            raise UsageError("--resume continues a run where it is; it goes with neither --out nor --dry-run")
        return _resume(resume, given, as_json=as_json, quiet=quiet, allow_download=allow_download)
    from profiler.measure.request import SweepRequest
    from profiler.measure.sweep import Sweep
    from profiler.render.progress import Progress

    request = SweepRequest(**given)
    path = out or _default_path(request)
    with Progress(_console(stderr=True), quiet=quiet) as progress:
        if ENDPOINT in request.engines:
            from profiler.measure.served_sweep import ServedSweep

            served = ServedSweep(request, progress.show, allow_download=allow_download)
            if dry_run:
                progress.stop()
                return show_loads(served.requests(), as_json=as_json)
            return _finish(lambda: served.run(path), path, progress.stop, as_json=as_json)
        sweep = Sweep(request, progress.show, allow_download=allow_download)
        if dry_run:
            prepared = sweep.plan()
            progress.stop()
            return _show_plan(prepared, as_json=as_json)
        return _finish(lambda: sweep.run(path), path, progress.stop, as_json=as_json)


def _resume(text: str, given: Mapping[str, Any], *, as_json: bool, quiet: bool, allow_download: bool) -> int:
    """Continue a run with the flags it was made with; other flags must agree with them."""
    from profiler.errors import ResumeRefusedError
    from profiler.measure.request import SweepRequest
    from profiler.measure.sweep import Sweep
    from profiler.render.progress import Progress
    from profiler.results.find import resolve_run
    from profiler.results.read import read_run

    path = resolve_run(text)
    run = read_run(path)
    if run.complete:
        click.echo(f"{path}: already complete, nothing to resume", err=True)
        return _show(run, as_json=as_json)
    request = SweepRequest.from_arguments(run.record.command)
    if ENDPOINT in request.engines:
        # The record does not say where the server is.
        options = {**request.engine_options, **given.get("engine_options", {})}
        given = {name: value for name, value in given.items() if name != "engine_options"}
        request = replace(request, engine_options=options)
    differing = request.differences(SweepRequest(**given), only=tuple(given))
    if differing:
        raise ResumeRefusedError("\n".join([f"{path}: was made with other flags:", *differing]))
    with Progress(_console(stderr=True), quiet=quiet) as progress:
        if ENDPOINT in request.engines:
            from profiler.measure.served_sweep import ServedSweep

            served = ServedSweep(request, progress.show, allow_download=allow_download)
            return _finish(lambda: served.resume(path, run), path, progress.stop, as_json=as_json)
        sweep = Sweep(request, progress.show, allow_download=allow_download)
        return _finish(lambda: sweep.resume(path, run), path, progress.stop, as_json=as_json)


def _finish(measure: Any, path: Path, stop_progress: Any, *, as_json: bool) -> int:
    """Measure, then show what is on disk however measuring ended, and return the exit code."""
    from profiler.results.read import read_run

    interrupted = failure = None
    try:
        run = measure()
    except KeyboardInterrupt as error:
        interrupted = error
    except AiprofError as error:
        failure = error
    stop_progress()
    if interrupted is not None or failure is not None:
        if not (path / "run.json").exists():
            raise (interrupted or failure)  # type: ignore[misc]
        run = read_run(path)
    code = _show(run, as_json=as_json)
    if failure is not None:
        raise failure
    if interrupted is not None:
        done = f"{len(run.cases)}"
        if run.record.settings.search is None:  # else how many there will be is not known
            done += f" of {len(run.record.cases)}"
        click.echo(f"interrupted: {done} cases are on disk; `aiprof sweep --resume {path}`", err=True)
        return INTERRUPTED
    return code


def _show(run: Run, *, as_json: bool) -> int:
    """Print the run, write its page, and return 0, 1 (a case failed) or 4 (nothing measured)."""
    from profiler.render.report import REPORT_FILE, write_report
    from profiler.render.table import print_run
    from profiler.render.view import run_view
    from profiler.results.checksums import SIGNATURE_FILE
    from profiler.results.store import list_page

    view = run_view(run)
    report: Path | None = None
    try:
        if (run.path / SIGNATURE_FILE).exists():
            raise OSError(None, "the run is signed, its page stays as it is")
        report = write_report([run], run.path / REPORT_FILE, title=run.path.resolve().name)
        list_page(run.path)
    except OSError as error:
        click.echo(f"{run.path / REPORT_FILE}: cannot be written: {error.strerror}", err=True)
    if as_json:
        import json

        document = {
            "run": str(run.path),
            "report": None if report is None else str(report),
            "complete": run.complete,
            "record": run.record.model_dump(mode="json"),
            "cases": [case.model_dump(mode="json") for case in run.cases],
        }
        click.echo(json.dumps(document, indent=1, allow_nan=False))
    else:
        if run.record.cases and all(case.spec.load is not None for case in run.record.cases):
            from profiler.render.load_table import print_load

            print_load(run, _console())
        else:
            print_run(view, _console())
        click.echo(f"run: {run.path}")
        if report is not None:
            click.echo(f"page: {report}")
    measured = sum(case.status == "ok" for case in run.cases)
    if measured < len(run.cases):
        return 1 if measured else 4
    return 0


def _show_plan(prepared: Prepared, *, as_json: bool) -> int:
    from profiler.render.plan import plan_document, print_plan

    if as_json:
        import json

        click.echo(json.dumps(plan_document(prepared), indent=1, allow_nan=False))
    else:
        print_plan(prepared, _console())
    return 0


def _default_path(request: SweepRequest) -> Path:
    """Return ``runs/<UTC time>-<slug>``, where the slug says what was measured."""
    filled, _ = request.with_preset()
    words = [filled.preset, *(Path(model).name for model in filled.models[:2])]
    slug = re.sub(r"[^a-z0-9.]+", "-", "-".join(words).lower()).strip("-")
    return Path("runs") / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{slug[:60]}"


def _console(*, stderr: bool = False) -> Any:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=False)


def _as_interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt
