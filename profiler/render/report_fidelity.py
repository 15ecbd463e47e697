"""The table of fidelity checks: what each engine was held against, and how far off it was."""

from __future__ import annotations

from collections.abc import Sequence

from profiler.render.report_subjects import Entry, format_label
from profiler.render.report_view import Cell, Column, Row, Table
from profiler.results.schema import Fidelity

NOTE = (
    "Whether the engine computed the model that it claims, checked before the first case of each row. "
    "Divergence is of its next-token distributions from an fp32 reference's, on average over positions."
)


def fidelity_table(entries: Sequence[Entry]) -> Table | None:
    """Return one row for each engine, model, formats and device that was checked; None without any."""
    rows: dict[tuple[str, ...], Row] = {}
    for entry in entries:
        found, spec = entry.case.fidelity, entry.spec
        if found is None:
            continue
        who = (entry.subject.label, spec.model, format_label(spec), spec.engine)
        rows.setdefault(
            (*who, found.verdict, str(found.reason)), Row(tuple(map(Cell, (*who, *_figures(found)))))
        )
    if not rows:
        return None
    heads = ("box", "model", "formats", "engine", "verdict", "divergence", "limit", "same likeliest token")
    columns = (*map(Column, heads), Column("run for it"), Column("why"))
    return Table("fidelity", "Fidelity", columns, tuple(rows.values()), NOTE)


def _what_ran(found: Fidelity) -> str:
    """Return what was run for a check, and over which devices where that is not one."""
    spread = None if found.parallel is None else f"spread as {found.parallel}"
    parts = (found.artefact.text if found.artefact else None, spread, found.spread_reason)
    return "; ".join(part for part in parts if part) or "–"


def _figures(found: Fidelity) -> tuple[str, ...]:
    figures, limits = found.figures, found.limits
    kl = figures.mean_kl if figures else None
    same = figures.top1_agreement if figures else None
    return (
        found.verdict.replace("_", " "),
        "–" if kl is None else f"{kl:.2g} nats",
        "–" if limits is None or kl is None else f"{limits.mean_kl:.2g} nats",
        "–" if same is None or figures is None else f"{same:.0%} of {figures.positions}",
        _what_ran(found),
        found.reason or "",
    )
