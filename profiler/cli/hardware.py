"""``aiprof hardware``: the catalogue of accelerators, and where each number of one stands."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table

    from profiler.hardware.part import Hardware, Sourced


@click.command("hardware")
@click.argument("name", required=False, metavar="[NAME]")
@click.option(
    "--hardware-file",
    "files",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE|FOLDER",
    help="YAML with parts of your own, or a folder of such files; repeatable.",
)
@click.option("--measured", metavar="RUN", help="Replace datasheet numbers of NAME by a run's ceilings.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON in base units.")
def command(name: str | None, files: tuple[Path, ...], measured: str | None, as_json: bool) -> None:
    """Show the catalogue of accelerators, or every number of one with its source."""
    from profiler.errors import UsageError
    from profiler.hardware.catalogue import get_hardware, with_user_files

    parts = with_user_files(files)
    if name is None:
        if measured is not None:
            raise UsageError("--measured needs the NAME of the part that the run measured")
        if as_json:
            _print_json([_as_json(part) for part in parts.values()])
        else:
            _print(_overview(parts.values()), dispensable=("vendor", "int8", "TDP", "fp8"))
        return
    part = get_hardware(name, parts)
    if measured is not None:
        part = _measured(part, measured)
    if as_json:
        _print_json(_as_json(part))
    else:
        _print(_everything(part), 110)


def _measured(part: Hardware, text: str) -> Hardware:
    from profiler.hardware.measured import with_measured_ceilings
    from profiler.results.find import read_runs, resolve_run

    runs, messages = read_runs([resolve_run(text)])
    for message in messages:
        click.echo(f"aiprof: {message}", err=True)
    return with_measured_ceilings(part, runs[0])


def _as_json(part: Hardware) -> dict[str, Any]:
    def figure(value: Sourced | None) -> dict[str, Any] | None:
        if value is None:
            return None
        return {
            "value": value.value,
            "unit": value.unit,
            "source": value.origin.name,
            "url": value.origin.url,
            "licence": value.origin.licence,
            "date": value.date,
            "confidence": value.confidence,
            "note": value.note,
        }

    return {
        "name": part.name,
        "title": part.title,
        "vendor": part.vendor,
        "kind": part.kind,
        "aliases": list(part.aliases),
        "driver_names": list(part.driver_names),
        "memory_bytes": figure(part.memory_bytes),
        "memory_bandwidth_bytes_per_s": figure(part.memory_bandwidth_bytes_per_s),
        "flops": {dtype: figure(value) for dtype, value in part.flops.items()},
        "lacks": dict(part.lacks),
        "tdp_w": figure(part.tdp_w),
        "links": [
            {
                "name": link.name,
                "reach": link.reach,
                "both_directions_bytes_per_s": figure(link.both_directions_bytes_per_s),
            }
            for link in part.links
        ],
        "unknown": dict(part.unknown),
        "export": part.export,
        "datasheet": part.datasheet,
        "notes": part.notes,
        "shipped": part.shipped,
        "measured": sorted(part.measured),
    }


def _overview(parts: Iterable[Hardware]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD,
        caption="dense peaks as documented, nothing measured here; – is unknown, no is known to be missing;\n"
        "`aiprof hardware NAME` shows every number with its source",
        caption_justify="left",
    )
    table.add_column("hardware", no_wrap=True)
    table.add_column("vendor", no_wrap=True)
    for heading in ("memory", "bandwidth", "bf16", "fp8", "int8", "TDP"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("confidence", no_wrap=True)
    for part in parts:
        table.add_row(
            part.name,
            part.vendor,
            _shown(part.memory_bytes),
            _shown(part.memory_bandwidth_bytes_per_s),
            *(_flops(part, dtype) for dtype in ("bf16", "fp8", "int8")),
            _shown(part.tdp_w),
            _weakest(part) + ("" if part.shipped else ", your file"),
        )
    return table


def _everything(part: Hardware) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from profiler.results.read import printable

    table = Table(box=box.SIMPLE, show_header=False)
    table.add_column("what", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("where it stands", overflow="fold")
    rows = list(_rows(part))
    counts = Counter(source for _, _, source in rows if source)
    # What several numbers share is written once, below them.
    numbers = {source: f"[{n}]" for n, source in enumerate((s for s in counts if counts[s] > 1), 1)}
    for what, value, source in rows:
        table.add_row(what, Text(printable(value)), Text(printable(numbers.get(source, source))))
    for source, number in numbers.items():
        table.add_row(Text(number), Text(printable(source)), "")
    return table


def _rows(part: Hardware) -> Iterable[tuple[str, str, str]]:
    yield "hardware", f"{part.title} ({part.name})", "your own file" if not part.shipped else "catalogue"
    if part.aliases:
        yield "also", ", ".join(part.aliases), ""
    if part.driver_names:
        yield "drivers say", ", ".join(part.driver_names), ""
    single = (
        ("memory", part.memory_bytes, "memory"),
        ("memory bandwidth", part.memory_bandwidth_bytes_per_s, "memory_bandwidth"),
        ("TDP", part.tdp_w, "tdp"),
    )
    for what, value, field in single:
        yield what, *_figure(value, part.why_unknown(field))
    for dtype, value in part.flops.items():
        yield f"{dtype}, dense", _flops(part, dtype), _figure(value, "")[1]
    for dtype, reason in part.lacks.items():
        yield f"{dtype}, dense", "no", reason
    if not part.flops:
        yield "matrix products", "unknown", part.why_unknown("flops")
    for link in part.links:
        shown, source = _figure(link.both_directions_bytes_per_s, "")
        yield f"{link.name} ({link.reach})", f"{shown}, both directions", source
    if not part.links:
        yield "links", "unknown", part.why_unknown("links")
    if part.export:
        yield "export", part.export, "as the sources say; not legal advice"
    if part.datasheet:
        yield "datasheet", part.datasheet, ""
    if part.notes:
        yield "notes", part.notes, ""


def _figure(value: Sourced | None, reason: str) -> tuple[str, str]:
    if value is None:
        return "unknown", reason
    origin = value.origin
    source = f"{origin.name}, {origin.date}, {value.confidence} confidence"
    extra = [part for part in (origin.url, value.note) if part]
    return _shown(value), "; ".join([source, *extra])


def _shown(value: Sourced | None) -> str:
    from profiler.render.units import UNKNOWN, format_bytes, format_rate

    if value is None:
        return UNKNOWN
    if value.unit == "bytes":
        return format_bytes(value.value)
    if value.unit == "W":
        return f"{value.value:,.0f} W"
    return format_rate(value.value, "B" if value.unit == "bytes/s" else "FLOP")


def _flops(part: Hardware, dtype: str) -> str:
    if dtype in part.lacks:
        return "no"
    shown = _shown(part.flops.get(dtype))
    return shown.replace("FLOP/s", "OP/s") if dtype.startswith("int") else shown


def _weakest(part: Hardware) -> str:
    order = ("low", "medium", "high", "measured")
    figures = [part.memory_bytes, part.memory_bandwidth_bytes_per_s, *part.flops.values()]
    known = [value.confidence for value in figures if value is not None]
    return min(known, key=order.index, default="–")


def _print_json(document: Any) -> None:
    click.echo(json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False))


def _print(table: Table, piped_width: int = 100_000, dispensable: Sequence[str] = ()) -> None:
    from rich.console import Console

    from profiler.render.fit import fit

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = piped_width  # a file or a pipe has no width of its own
    gone = fit(table, console, dispensable)
    if gone:
        table.caption = f"{table.caption}\nleft out for want of room: {', '.join(gone)}"
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())
