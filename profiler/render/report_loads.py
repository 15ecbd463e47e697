"""Loads on servers as a table: how long requests waited, what came out, and what kept the limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from profiler.render.charts_shared import IDENTITY, identity
from profiler.render.report_numbers import measured_cell, unit_for
from profiler.render.report_subjects import Family
from profiler.render.report_view import DASH, Cell, Column, Row, Table, condensed

MAX_LOADS: Final = 200
_COLUMNS: Final = (
    ("ttft_p50_s", "TTFT p50", "s"),
    ("ttft_p99_observed_s", "TTFT p99", "s"),
    ("ttft_p99_s", "TTFT p99 at most", "s"),
    ("tpot_p50_s", "TPOT p50", "s"),
    ("tpot_p99_observed_s", "TPOT p99", "s"),
    ("e2e_p50_s", "e2e p50", "s"),
    ("e2e_p99_observed_s", "e2e p99", "s"),
    ("output_tokens_per_s_steady", "output, steady", "tokens/s"),
    ("goodput_requests_per_s", "goodput", "requests/s"),
    ("slo_attainment", "kept limits", "ratio"),
    ("speculative_acceptance", "guesses accepted", "ratio"),
)


def loads_table(families: Sequence[Family]) -> Table:
    """Return the finished loads; columns that none of them has are left out."""
    found = [(family, entry) for family in families if family.over != "batch" for entry in family.entries]
    shown = found[:MAX_LOADS]
    kept = [
        (name, text, unit_for(base, [entry.value(name) for _, entry in shown]))
        for name, text, base in _COLUMNS
        if any(entry.measured(name) is not None for _, entry in shown)
    ]
    columns = [
        *IDENTITY[:-1],
        Column("load", "", True),
        Column("requests", "", True),
        Column("failed", "", True),
    ]
    columns += [Column(text, unit.text, True) for _, text, unit in kept]
    rows: list[Row] = []
    for family, entry in shown:
        served = entry.case.served
        counts = (
            (DASH, DASH) if served is None else (f"{served.requests:,}", f"{served.requests - served.ok:,}")
        )
        measured = entry.case.measurements
        cells = [measured_cell(measured.get(name), unit, titles=False) for name, _, unit in kept]
        rows.append(Row((*identity(family, entry), *map(Cell, counts), *cells)))
    note = (
        "p50 and p99 are percentiles of the requests of this load; “at most” is an upper bound of the "
        "percentile at 99% confidence, from 662 requests on. ± is half of a 95% interval that holds within "
        "this one load. Failed requests count as infinitely slow."
    )
    if len(found) > len(shown):
        note += f" The first {len(shown):,} of {len(found):,} loads."
    return condensed(Table("loads", "Loads on servers", tuple(columns), tuple(rows), note))
