"""The plan of a sweep before anything was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from profiler.render.cells import full_label, label
from profiler.render.devices import name_of
from profiler.render.units import format_bytes, format_seconds
from profiler.results.schema import CaseSpec, PlannedCase, Prediction

if TYPE_CHECKING:
    from profiler.measure.prepare import Prepared


def plan_document(prepared: Prepared) -> dict[str, Any]:
    """Return the plan as JSON values in base units."""
    return {
        "settings": prepared.settings.model_dump(mode="json"),
        "devices": [device.model_dump(mode="json") for device in prepared.devices],
        "engines": [engine.model_dump(mode="json") for engine in prepared.engines],
        "cases": [case.model_dump(mode="json") for case in prepared.cases],
        "skipped": [case.model_dump(mode="json") for case in prepared.skipped],
        "search": None if prepared.search is None else prepared.search.expected.document(),
    }


def print_plan(prepared: Prepared, console: Console) -> None:
    """Print what would run, what each case needs, and what cannot run."""
    settings = prepared.settings
    groups: dict[str, list[PlannedCase]] = {}
    for case in prepared.cases:
        spec = case.spec
        groups.setdefault(
            f"{spec.model_label} · {spec.formats.weight_format} · {spec.engine} · "
            f"{name_of(spec, spec.device_key)}",
            [],
        ).append(case)
    for title, cases in groups.items():
        console.print(Text(title, style="bold"))
        console.print(_plan_table(cases))
    for skipped in prepared.skipped:
        console.print(
            Text.assemble(("skipped ", "yellow"), full_label(skipped.spec), (f": {skipped.reason}", "dim"))
        )
    if prepared.search is not None:
        console.print(prepared.search.expected.words(), soft_wrap=True)
        console.print(
            f"each point is a case with {settings.starts} start(s) of a server for "
            f"{prepared.search.served_words}, the first is shown; nothing was measured but the idle "
            "bandwidth",
            soft_wrap=True,
        )
        return
    planned = sum(case.seconds for case in prepared.cases)
    console.print(
        f"{len(prepared.cases)} cases, {settings.starts} start(s) each, about {format_seconds(planned)} "
        f"of a budget of {format_seconds(settings.budget_s)}; nothing was measured but the idle bandwidth"
    )


def _needs(spec: CaseSpec, predicted: Prediction | None) -> str:
    """Return the memory that a case needs, of several devices on each."""
    if predicted is None:
        return "?"
    if predicted.device_needed_bytes is None or len(spec.all_devices) == 1:
        return format_bytes(predicted.needed_bytes)
    return f"{len(spec.all_devices)} x {format_bytes(predicted.device_needed_bytes)}"


def _plan_table(cases: Sequence[PlannedCase]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("workload", no_wrap=True)
    for heading in ("batch", "tokens", "needs", "a trial", "planned time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for case in cases:
        spec, predicted = case.spec, case.predicted
        table.add_row(
            label(spec),
            spec.load_label.removeprefix("batch "),
            f"{spec.prompt_tokens} + {spec.output_tokens}",
            _needs(spec, predicted),
            "?"
            if predicted is None or predicted.trial_s is None
            else f"~{format_seconds(predicted.trial_s)}",
            format_seconds(case.seconds),
        )
    return table
