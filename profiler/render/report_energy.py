"""The table of energies: every case with its joules per token, and what else of the box was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from profiler.render.cells import label
from profiler.render.charts_shared import IDENTITY
from profiler.render.devices import uses
from profiler.render.report_numbers import Unit, figure, measured_cell, unit_for
from profiler.render.report_subjects import Entry, format_label
from profiler.render.report_view import DASH, Cell, Column, Row, Table, condensed
from profiler.results.schema import EnergyRecord

MAX_ROWS: Final = 200
_COLUMNS: Final = (
    ("energy_per_output_token_j", "per output token"),
    ("net_energy_per_output_token_j", "net of idle"),
    ("prefill_energy_per_token_j", "prefill, per prompt token"),
    ("decode_energy_per_token_j", "decode, per token"),
    ("power_mean_w", "mean power"),
    ("power_max_1s_w", "highest second"),
    ("idle_power_w", "idle, model loaded"),
)


def energy_table(entries: Sequence[Entry]) -> Table:
    """Return the figures of every case that has any; no rows where none has."""
    with_any = [entry for entry in entries if any(entry.measured(name) for name, _ in _COLUMNS)][:MAX_ROWS]
    units = {name: unit_for(_base(name), [entry.value(name) for entry in with_any]) for name, _ in _COLUMNS}
    columns = (
        *IDENTITY,
        Column("covers"),
        *(Column(text, units[name].text, True) for name, text in _COLUMNS),
    )
    rows = [_row(entry, units) for entry in with_any]
    note = (
        "± is the bound within which the true energy lies as far as sampling goes, with the spread of "
        "several starts added. Gross, except where it says net. Pauses between requests are taken out."
    )
    return condensed(Table("energies", "Energy and power of the device", columns, tuple(rows), note))


def box_table(entries: Sequence[Entry]) -> Table:
    """Return what the meters of the box showed beside the device: CPU, memory, the wall."""
    rows: list[Row] = []
    for entry in entries:
        for item in entry.case.energies:
            own = item.covers.partition(":")[0] == "device"
            if item.phase == "trials" and not own and len(rows) < MAX_ROWS:
                rows.append(Row((*_identity(entry), Cell(item.covers), Cell(item.scope), *_watts(item))))
    columns = (
        *IDENTITY, Column("covers"), Column("scope"), Column("mean power", "W", True),
        Column("per output token", "J", True),
    )  # fmt: skip
    note = "These cover parts of each other and of the device, and are never added up."
    return condensed(
        Table("box-energies", "The rest of the box while trials ran", columns, tuple(rows), note)
    )


def devices_table(entries: Sequence[Entry]) -> Table:
    """Return what each device took of the cases that ran on several; no rows where none did."""
    rows: list[Row] = []
    for entry in entries:
        for use in uses(entry.case):
            if len(rows) == MAX_ROWS:
                break
            watts = Cell(DASH, title=use.reason)
            if use.watts is not None:
                watts = Cell(figure(use.watts), f"±{use.relative_bound or 0.0:.1%}")
            per_token = DASH if use.joules_per_token is None else figure(use.joules_per_token)
            memory = DASH if use.memory_bytes is None else figure(use.memory_bytes / 2**30)
            rows.append(Row((*_identity(entry), Cell(use.key), watts, Cell(per_token), Cell(memory))))
    columns = (
        *IDENTITY, Column("device"), Column("mean power", "W", True),
        Column("per output token", "J", True), Column("most memory in use", "GiB", True),
    )  # fmt: skip
    note = "Devices of one case work at the same time. Their sum is the case's own power and energy above."
    return condensed(Table("devices", "Each device of cases on several", columns, tuple(rows), note))


def _watts(item: EnergyRecord) -> tuple[Cell, Cell]:
    if item.joules is None or item.bound_j is None or not item.active_s > 0:
        why = item.reason.text if item.reason is not None else ""
        return Cell(DASH, title=why), Cell(DASH, title=why)
    interval = f"±{item.bound_j / item.joules:.1%}"
    per_token = Cell(figure(item.joules / item.tokens), interval) if item.tokens else Cell(DASH)
    return Cell(figure(item.joules / item.active_s), interval), per_token


def _row(entry: Entry, units: dict[str, Unit]) -> Row:
    found = entry.case.measurements
    scope = next((found[name].scope for name, _ in _COLUMNS if entry.measured(name)), "")
    cells = (measured_cell(found.get(name), units[name], titles=False) for name, _ in _COLUMNS)
    return Row((*_identity(entry), Cell(scope), *cells))


def _identity(entry: Entry) -> tuple[Cell, ...]:
    spec = entry.spec
    return (
        Cell(entry.subject.label, link=entry.anchor),
        Cell(spec.model_label),
        Cell(label(spec)),
        Cell(format_label(spec)),
        Cell(entry.level_text),
    )


def _base(name: str) -> str:
    return "W" if name.endswith("_w") else "J/token"
