"""``aiprof runs``: what is on disk, and the cases of one run."""

from __future__ import annotations

import json
import shlex
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from profiler.results.read import Run
    from profiler.results.schema import CaseRecord, CaseSpec, PlannedCase

NOTHING = "–"
_CASE_COLUMNS = (
    "model",
    "format",
    "scenario",
    "batch",
    "engine",
    "device",
    "status",
    "prefill tok/s",
    "decode tok/s",
    "notes",
)
# Columns that stay on one line as long as the terminal has room for anything.
_WHOLE = {"when (UTC)", "preset", "state", "model", "format", "scenario", "status"}


@click.command()
@click.argument("run", metavar="[FOLDER|RUN]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(run: str | None, as_json: bool) -> None:
    """List the runs on disk, or the cases of one run.

    Without an argument, or with a FOLDER, lists the runs in ./runs or in FOLDER, newest first.
    RUN is a run's folder or its name under ./runs.
    """
    from profiler.results.find import RUNS_FOLDER, is_run, resolve_run

    folder = Path(run) if run is not None else RUNS_FOLDER
    if run is None or (folder.is_dir() and not is_run(folder) and not is_run(RUNS_FOLDER / folder.name)):
        _list_runs(folder, as_json)
    else:
        _show_run(resolve_run(run), as_json)


def _list_runs(folder: Path, as_json: bool) -> None:
    from profiler.errors import InputFileError
    from profiler.results.find import find_runs
    from profiler.results.read import read_run

    runs: list[Run] = []
    damaged: list[dict[str, Any]] = []
    for path in find_runs(folder):
        try:
            runs.append(read_run(path))
        except InputFileError as error:
            damaged.append({"path": str(path), "damaged": list(error.faults)})
    runs.sort(key=lambda run: datetime.fromisoformat(run.record.created_utc), reverse=True)
    summaries = [_summary(run) for run in runs]
    if as_json:
        _print_json(summaries + damaged)
        return
    if not summaries and not damaged:
        click.echo(f"no runs in {folder} yet; `aiprof sweep` makes one", err=True)
        return
    rows = [_run_row(summary) for summary in summaries]
    rows += [(bad["path"], *[NOTHING] * 4, "damaged") for bad in damaged]
    _print_table(("run", "when (UTC)", "device", "preset", "cases", "state"), rows)
    for summary in summaries:
        if summary["resume"]:
            click.echo(f"incomplete, continue with: {summary['resume']}")
    for bad in damaged:
        more = f" (and {len(bad['damaged']) - 1} more faults)" if len(bad["damaged"]) > 1 else ""
        click.echo(f"damaged: {bad['damaged'][0]}{more}")


def _show_run(path: Path, as_json: bool) -> None:
    from profiler.results.read import printable, read_run

    run = read_run(path)
    for message in run.warnings:
        click.echo(f"aiprof: {message}", err=True)
    summary = _summary(run)
    if as_json:
        _print_json(summary | {"case_list": list(_cases_json(run))})
        return
    name, when, device, preset, cases, state = _run_row(summary)
    click.echo(printable(f"{name}: {when} UTC on {device}, preset {preset}; {cases}; {state}"))
    columns, rows = _without_constant(_CASE_COLUMNS, list(_case_rows(run)), ("engine", "device"))
    _print_table(columns, rows)
    for reason in _reasons(run):
        click.echo(printable(reason))
    if summary["resume"]:
        click.echo(f"incomplete, continue with: {summary['resume']}")


def _summary(run: Run) -> dict[str, Any]:
    record = run.record
    # A case that failed and was measured again after a resume counts as it ended.
    status = {case.spec.case_id: case.status for case in run.cases}
    return {
        "path": str(run.path),
        "run_id": record.run_id,
        "created_utc": record.created_utc,
        "devices": [
            {"key": device.key, "name": device.name, "backend": device.backend} for device in record.devices
        ],
        "preset": record.settings.preset,
        "cases": {
            "planned": len(record.cases),
            "ok": sum(value == "ok" for value in status.values()),
            "failed": sum(value == "failed" for value in status.values()),
            "skipped": len(record.skipped),
        },
        "complete": run.complete,
        "resume": None if run.complete else f"aiprof sweep --resume {shlex.quote(str(run.path))}",
        "simulated": record.simulated or any(case.simulated for case in run.cases),
        "warnings": list(run.warnings),
        "damaged": None,
    }


def _run_row(summary: dict[str, Any]) -> tuple[str, str, str, str, str, str]:
    cases = summary["cases"]
    counted = f"{cases['ok']} ok, {cases['failed']} failed of {cases['planned']}"
    if cases["skipped"]:
        counted += f" (+ {cases['skipped']} skipped)"
    state = "complete" if summary["complete"] else "incomplete"
    return (
        summary["path"],
        summary["created_utc"][:16].replace("T", " "),
        ", ".join(device["name"] for device in summary["devices"]) or NOTHING,
        summary["preset"],
        counted,
        f"{state}, simulated" if summary["simulated"] else state,
    )


def _case_rows(run: Run) -> Iterable[tuple[str, ...]]:
    devices = {device.key: device.name for device in run.record.devices}

    def row(spec: CaseSpec, status: str, case: CaseRecord | None, note: str) -> tuple[str, ...]:
        return (
            spec.model_label,
            spec.formats.weight_format,
            _scenario(spec),
            spec.load_label.removeprefix("batch "),
            spec.engine,
            devices.get(spec.device_key, spec.device_key),
            status,
            _figure(case, "prefill_tokens_per_s"),
            _figure(case, "decode_tokens_per_s"),
            note,
        )

    for case in run.cases:
        codes = list(dict.fromkeys(flag.code for flag in case.flags)) + (
            [case.failure.kind] if case.failure else []
        )
        yield row(case.spec, case.status, case, ", ".join(codes))
    for skipped in run.record.skipped:
        yield row(skipped.spec, "skipped", None, "")
    for planned in _not_run(run):
        yield row(planned.spec, "not run", None, "")


def _scenario(spec: CaseSpec) -> str:
    return spec.scenario if spec.variant == "full" else f"{spec.scenario} ({spec.variant})"


def _not_run(run: Run) -> Iterable[PlannedCase]:
    done = {case.spec.case_id for case in run.cases}
    return [planned for planned in run.record.cases if planned.spec.case_id not in done]


def _reasons(run: Run) -> Iterable[str]:
    def named(spec: CaseSpec) -> str:
        return f"{spec.model_label} {spec.formats.weight_format} {_scenario(spec)} {spec.load_label}"

    for case in run.cases:
        if case.failure is not None:
            yield f"failed: {named(case.spec)}: in {case.failure.stage}: {case.failure.message}"
    for skipped in run.record.skipped:
        yield f"skipped: {named(skipped.spec)}: {skipped.reason}"


def _without_constant(
    columns: Sequence[str], rows: list[tuple[str, ...]], names: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Drop those of the named columns that say the same in every row."""
    keep = [
        index
        for index, column in enumerate(columns)
        if column not in names or len({row[index] for row in rows}) > 1
    ]
    return [columns[index] for index in keep], [[row[index] for index in keep] for row in rows]


def _figure(case: CaseRecord | None, metric: str) -> str:
    measurement = case.measurements.get(metric) if case else None
    if measurement is None or measurement.value is None:
        return NOTHING
    size = abs(measurement.value)
    digits = 0 if size >= 1000 else 1 if size >= 10 else 3
    # A figure of 300 digits is not ours; show that it is odd, not all of it.
    shown = f"{measurement.value:,.{digits}f}" if size < 1e15 else f"{measurement.value:.3g}"
    if measurement.ci95 is not None and size > 0:
        low, high = measurement.ci95
        shown += f" ±{(high / 2 - low / 2) / size:.1%}"
    return shown


def _cases_json(run: Run) -> Iterable[dict[str, Any]]:
    for case in run.cases:
        yield case.model_dump(mode="json", exclude={"prev_sha256", "schema_version", "trials", "starts"})
    for skipped in run.record.skipped:
        yield {"status": "skipped"} | skipped.model_dump(mode="json")
    for planned in _not_run(run):
        yield {"status": "not_run"} | planned.model_dump(mode="json")


def _print_json(document: Any) -> None:
    click.echo(json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False))


def _print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from profiler.results.read import printable

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(
            column,
            overflow="fold",
            no_wrap=column in _WHOLE,
            justify="right" if "tok/s" in column else "left",
        )
    for row in rows:
        # Text, not str: names come from files and must not be read as markup.
        table.add_row(*(Text(printable(cell)) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        # A file or a pipe has no width: one line per row, whole.
        console.width = 100_000
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())
