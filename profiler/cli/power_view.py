"""Live power for people, and the summary of the time that was watched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from profiler.cli.devices_sensors import show
from profiler.cli.devices_view import console_for_pipes
from profiler.render.units import UNKNOWN, format_bytes, format_seconds
from profiler.sensors.base import Kind
from profiler.sensors.power_watch import PowerWatch

_STATES: tuple[tuple[Kind, str], ...] = (("clock", "clock"), ("temperature", "temp"), ("memory", "memory"))


@contextmanager
def live_view(follow: PowerWatch, wanted: bool) -> Iterator[None]:
    """Show the table on a terminal while the block runs; elsewhere say what is being done."""
    console = Console(stderr=True)
    if wanted and console.is_terminal:
        view = _View(follow)
        with Live(view, console=console, refresh_per_second=2, transient=True):
            yield
        return
    names = ", ".join(line.name for line in follow.lines)
    console.print(Text(f"reading {names}; Ctrl-C ends it with a summary"), soft_wrap=True)
    yield


class _View:
    """A table that is made anew whenever it is drawn."""

    def __init__(self, follow: PowerWatch) -> None:
        self._follow = follow

    def __rich__(self) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        title = f"{format_seconds(round(self._follow.seconds))}, Ctrl-C ends it with a summary"
        table.title, table.title_justify, table.title_style = title, "left", "dim"
        table.add_column("device", overflow="fold", min_width=12)
        table.add_column("power", justify="right", no_wrap=True)
        table.add_column("max", justify="right", no_wrap=True)
        kinds = [one for one in _STATES if any(one[0] in line.states for line in self._follow.lines)]
        for _, heading in kinds:
            table.add_column(heading, justify="right", no_wrap=True)
        for line in self._follow.lines:
            tally = self._follow.tallies[line.meter.key]
            now = Text(_watts(tally.power_w), "bold")
            if tally.missing is not None:
                now = Text(tally.missing.removesuffix("_at").replace("_", " "), "yellow")
            cells = [now, Text(_watts(tally.max_power_w))]
            for kind, _ in kinds:
                value = self._follow.state(line, kind)
                unit = line.states[kind].unit if kind in line.states else ""
                cells.append(Text(UNKNOWN if value is None else show(value, unit)))
            name = Text(line.name)
            if line.meter.simulated:
                name.append(" SIMULATED", "bold yellow")
            table.add_row(name, *cells)
        return table


def summary(follow: PowerWatch, seconds: float, record: Path | None) -> dict[str, Any]:
    """Return what was seen, in base units.

    Args:
        follow: finished.
        seconds: how long it was watched.
        record: the file that was written, or None.
    """
    meters = []
    for line in follow.lines:
        tally, info = follow.tallies[line.meter.key], line.meter
        known = tally.reason is None and tally.seconds > 0
        meters.append(
            {
                "name": line.name,
                "device": line.device,
                "sensor": info.key,
                "scope": info.scope,
                "simulated": info.simulated,
                "mean_power_w": tally.mean_power_w if known else None,
                "max_power_w": tally.max_power_w,
                "max_power_is": "mean of a second" if info.kind == "energy_counter" else "one reading",
                "energy_j": tally.joules if known else None,
                "energy_bound_j": tally.bound_j if known else None,
                "energy_seconds": tally.seconds if known else None,
                "method": tally.method if known else "none",
                "flags": sorted(tally.flags),
                "reason": None if known else str(tally.reason or "it was not watched long enough"),
                "last": {kind: follow.state(line, kind) for kind in line.states},
            }
        )
    return {
        "seconds": seconds,
        "simulated": any(meter["simulated"] for meter in meters),
        "file": None if record is None else str(record),
        "meters": meters,
    }


def print_summary(document: dict[str, Any]) -> None:
    """Print the summary: one line per meter, and why one has no energy."""
    console = console_for_pipes()
    if document["simulated"]:
        console.print(Text("SIMULATED: no hardware stands behind these numbers", "bold yellow"))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(f"over {format_seconds(document['seconds'])}", overflow="fold", min_width=12)
    for heading in ("mean", "max", "energy"):
        table.add_column(heading, justify="right", no_wrap=True)
    for meter in document["meters"]:
        energy = Text(UNKNOWN)
        if meter["energy_j"] is not None:
            share = meter["energy_bound_j"] / meter["energy_j"] if meter["energy_j"] else 0.0
            energy = Text.assemble(_joules(meter["energy_j"]), (f" ±{share:.1%}", "dim"))
        table.add_row(meter["name"], _watts(meter["mean_power_w"]), _watts(meter["max_power_w"]), energy)
    console.print(table)
    for meter in document["meters"]:
        if meter["reason"]:
            console.print(Text.assemble(f"{meter['name']}: ", (meter["reason"], "yellow")))
        if meter["flags"]:
            console.print(Text(f"{meter['name']}: {', '.join(meter['flags'])} (docs/metrics.md)", "dim"))
    if document["file"]:
        size = Path(document["file"]).stat().st_size
        console.print(Text(f"{document['file']}: {format_bytes(size)}"), soft_wrap=True)


def _watts(value: float | None) -> str:
    return UNKNOWN if value is None else show(value, "W")


def _joules(value: float) -> str:
    return (
        f"{value / 3.6e6:.3g} kWh"
        if value >= 3.6e6
        else f"{value / 1e3:.3g} kJ"
        if value >= 1e4
        else f"{value:.0f} J"
    )
