"""``aiprof energy``: what a load took on other machines, from recordings joined by clock."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from profiler.cli.durations import Duration

if TYPE_CHECKING:
    from profiler.measure.joined_energy import Joined

NOTHING = 4


@click.command(short_help="Say what energy a load took on other machines, from recordings of `aiprof power`.")
@click.argument("run", metavar="RUN")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--clock-error", "clock_error_s", type=Duration(), default="50ms", show_default=True,
    help="How far the wall clocks of two machines may be apart; the bound holds it.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document in base units.")
def command(run: str, files: tuple[Path, ...], clock_error_s: float, as_json: bool) -> int:
    """Join the loads of RUN with recordings of the machines that served them.

    \b
    node1$ aiprof power --record node1.parquet
    node2$ aiprof power --record node2.parquet
    client$ aiprof load http://node1:8000 --scenario chat --concurrency 64 --out run
    client$ aiprof energy run node1.parquet node2.parquet

    Start the recordings before the load and end them (Ctrl-C) after it. The run is not changed.

    Exit codes: 0 energies were found, 2 there is no such run or recording, 4 not one could be had.
    """  # noqa: D301  (\b is click's mark for lines that stay as they are)
    from profiler.measure.joined_energy import join
    from profiler.results.find import resolve_run
    from profiler.results.read import read_run
    from profiler.sensors.recording import read_recording

    recordings = [(path.stem, read_recording(path)) for path in files]
    found = join(read_run(resolve_run(run)).cases, recordings, clock_error_s)
    simulated = any(one.header.simulated for _, one in recordings) or any(one.case.simulated for one in found)
    if as_json:
        import json

        document = {
            "simulated": simulated,
            "clock_error_s": clock_error_s,
            "cases": [_plain(one) for one in found],
        }
        click.echo(json.dumps(document, indent=1, allow_nan=False))
    else:
        _print(found, simulated=simulated)
    known = any(part.energy.joules is not None for one in found for part in one.parts)
    return 0 if known else NOTHING


def _plain(one: Joined) -> dict[str, Any]:
    return {
        "case_id": one.case.spec.case_id,
        "load": one.case.spec.load_label,
        "seconds": one.seconds,
        "output_tokens": one.tokens,
        "notes": list(one.notes),
        "reason": None if one.reason is None else str(one.reason),
        "parts": [
            {
                "recording": part.recording,
                "sensor": part.info.key,
                "device": part.info.device,
                "scope": part.info.scope,
                "energy_j": part.energy.joules,
                "energy_bound_j": part.energy.bound_j,
                "mean_power_w": part.energy.mean_power_w,
                "method": part.energy.method,
                "flags": list(part.energy.flags),
                "reason": None if part.energy.reason is None else str(part.energy.reason),
            }
            for part in one.parts
        ],
        "sums": [
            {
                "what": total.what,
                "scope": total.scope,
                "parts": total.parts,
                "energy_j": total.joules,
                "energy_bound_j": total.bound_j,
                "energy_per_output_token_j": total.per_token_j,
                "reason": None if total.reason is None else str(total.reason),
            }
            for total in one.sums
        ],
    }


def _print(found: list[Joined], *, simulated: bool) -> None:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from profiler.cli.devices_view import console_for_pipes
    from profiler.render.units import UNKNOWN, format_seconds

    console = console_for_pipes()
    if simulated:
        console.print(Text("SIMULATED: no hardware stands behind these numbers", "bold yellow"))
    for one in found:
        spec = one.case.spec
        title = f"{spec.scenario} · {spec.model_label} · {spec.load_label}"
        console.print(Text(f"{title} · {format_seconds(one.seconds)}" if one.seconds else title, "bold"))
        if one.reason is not None:
            console.print(Padding(Text(str(one.reason), "yellow"), (0, 0, 0, 2)))
            continue
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for heading in ("recording", "device", "covers"):
            table.add_column(heading, overflow="fold")
        for heading in ("power", "energy"):
            table.add_column(heading, justify="right", no_wrap=True)
        for part in one.parts:
            energy, watts = part.energy, part.energy.mean_power_w
            shown = (
                (UNKNOWN, UNKNOWN)
                if watts is None
                else (_watts(watts), _joules(energy.joules, energy.bound_j))
            )
            table.add_row(part.recording, part.info.device, part.info.scope, *shown)
        console.print(Padding(table, (0, 0, 0, 2)))
        reasons = {str(part.energy.reason): part for part in one.parts if part.energy.reason is not None}
        for text, part in reasons.items():
            console.print(Padding(Text(f"{part.recording}: {text}", "yellow"), (0, 0, 0, 2)), soft_wrap=True)
        for total in one.sums:
            console.print(Padding(Text(_sum_words(total)), (0, 0, 0, 2)), soft_wrap=True)
        if "clock_changed" in one.notes:
            note = (
                "a wall clock was set or slewed meanwhile by more than --clock-error: the window may be off"
            )
            console.print(Padding(Text(note, "yellow"), (0, 0, 0, 2)), soft_wrap=True)


def _sum_words(total: Any) -> str:
    head = f"all {total.what} ({total.scope}, {total.parts})"
    if total.joules is None:
        return f"{head}: no sum: {total.reason}"
    words = f"{head}: {_joules(total.joules, total.bound_j)}"
    return words if total.per_token_j is None else f"{words}, {total.per_token_j:.3g} J per output token"


def _watts(value: float) -> str:
    return f"{value:,.0f} W"


def _joules(value: float | None, bound: float | None) -> str:
    if value is None or bound is None:
        return "–"
    share = f" ±{bound / value:.1%}" if value else ""
    return f"{value:,.0f} J{share}"
