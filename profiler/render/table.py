"""A run as tables in the terminal."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from profiler.render.cells import Cell
from profiler.render.energy_rows import ENERGY_COLUMNS
from profiler.render.view import EnergyView, MemoryView, Row, RunView

# A terminal is for the gist; the page lists every case.
CASES_PER_FLAG = 2


def run_table(view: RunView) -> RenderableType:
    """Return everything a person wants at the end of a sweep."""
    parts: list[RenderableType] = []
    if view.simulated:
        parts.append(Text("SIMULATED: no hardware stands behind these numbers", style="bold yellow"))
    for group in view.groups:
        parts += [Text(group.title, style="bold"), _group_table(group.rows)]
        parts += [
            Text(f"  {row.label}, batch {row.batch}: {row.failure}", style="red")
            for row in group.rows
            if row.failure
        ]
        parts += [
            Text(f"  {row.label}, batch {row.batch}: {row.extrapolated}")
            for row in group.rows
            if row.extrapolated
        ]
        parts += [
            Text(f"  {row.label}, batch {row.batch}: {line}", style="dim")
            for row in group.rows
            for line in (row.devices, row.speculation)
            if line
        ]
        if group.energy is not None:
            parts += [
                Text(f"Energy of the device ({group.energy.covers}), idle power included", style="bold"),
                _energy_table(group.energy),
            ]
        if group.memory is not None:
            parts += [Text(f"Memory of {group.memory.label}", style="bold"), _memory_table(group.memory)]
    if view.flags:
        parts.append(Text("Flags", style="bold"))
        for shown in view.flags:
            mark = f"{shown.mark} " if shown.mark else ""
            head = Text.assemble(
                (f"{mark}{shown.flag.code}", "yellow"), f": {shown.flag.text}. {shown.flag.hint}."
            )
            parts.append(Padding(head, (0, 0, 0, 2)))
            parts += [Padding(Text(line, style="dim"), (0, 0, 0, 6)) for line in shown.cases[:CASES_PER_FLAG]]
            more = len(shown.cases) - CASES_PER_FLAG
            if more > 0:
                parts.append(Padding(Text(f"and {more} more, see the page", style="dim"), (0, 0, 0, 6)))
    for title, pairs in (("Skipped", view.skipped), ("Not measured", view.missing)):
        if pairs:
            parts.append(Text(title, style="bold"))
            parts += [
                Padding(Text.assemble((name, ""), (f": {reason}", "dim")), (0, 0, 0, 2))
                for name, reason in pairs
            ]
    parts.append(Text(view.headline))
    return Group(*parts)


def _group_table(rows: tuple[Row, ...]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("workload", no_wrap=True)
    # In two lines, so that everything fits into 80 columns.
    for heading in ("batch", "prefill\ntok/s", "MFU", "decode\ntok/s", "MBU", "TTFT", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", style="yellow")
    for row in rows:
        if row.failure:
            table.add_row(row.label, row.batch, Text("failed", style="red"))
            continue
        table.add_row(
            row.label,
            row.batch,
            _rate(row.prefill),
            row.mfu.text,
            _rate(row.decode),
            row.mbu.text,
            Text(row.ttft.text),
            Text(row.memory.text),
            row.marks,
        )
    return table


def _memory_table(view: MemoryView) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("", no_wrap=True)
    for heading in ("measured", "predicted"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("source", style="dim", overflow="fold")
    for what, measured, predicted, source in view.rows:
        table.add_row(what, measured, predicted, Text(source))
    return table


def _energy_table(view: EnergyView) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("workload", no_wrap=True)
    table.add_column("batch", justify="right", no_wrap=True)
    for _, heading in ENERGY_COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, batch, cells in view.rows:
        table.add_row(name, batch, *(_rate(cell) for cell in cells))
    return table


def _rate(cell: Cell) -> Text:
    """The unit stands in the heading; the interval is dimmed beside the figure."""
    figure = cell.text.removesuffix(" tokens/s")
    return Text.assemble(figure, (f" {cell.interval}" if cell.interval else "", "dim"))


def print_run(view: RunView, console: Console) -> None:
    """Print a run."""
    console.print(run_table(view))
