"""Prices per million tokens in the terminal, as Markdown and as JSON."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from profiler.analysis.cost import PricedCase
from profiler.analysis.cost_compare import AgainstApi, BreakEven, CostReport, WorkCosts
from profiler.analysis.cost_sensitivity import Sensitivity, interval_95
from profiler.analysis.cost_types import VARIABLE, Box
from profiler.render.figures import UNKNOWN, figure, interval, number
from profiler.render.gate_files import escaped
from profiler.results.read import printable

WIDTH = 100
WORKS_SHOWN = 6
_COLUMNS = ("box", "USD / M output", "USD / M input", "output tok/USD", "USD/h")


def cost_document(report: CostReport) -> dict[str, Any]:
    """Return everything as JSON values."""
    return {
        "costs": report.name,
        "output_share": report.output_share,
        "boxes": {name: _box_document(box) for name, box in report.boxes},
        "works": [_work_document(work) for work in report.works],
        "notes": list(report.notes),
    }


def _box_document(box: Box) -> dict[str, Any]:
    fields = dataclasses.asdict(box) | {"common": sorted(box.common)}
    return fields | {"left_out": list(box.left_out), "lacking": list(box.lacking)}


def _work_document(work: WorkCosts) -> dict[str, Any]:
    document = dataclasses.asdict(work)
    document["cases"] = [_case_document(case) for case in work.cases]
    return document


def _case_document(case: PricedCase) -> dict[str, Any]:
    ends = interval_95(case)
    return {
        "candidate": case.candidate,
        "box": case.box,
        "case": case.case,
        "case_id": case.case_id,
        "output_tokens_per_s": case.output_tokens_per_s.value,
        "usd_per_million_output_tokens": case.output.value,
        "ci95": None if ends is None else list(ends),
        "usd_per_million_input_tokens": case.input.value,
        "output_tokens_per_usd": case.output_tokens_per_usd,
        "reason": case.output.reason,
        "input_reason": case.input.reason,
        "power": case.output.note,
        "usd_per_hour": None
        if case.hourly is None
        else dataclasses.asdict(case.hourly) | {"total_usd": case.hourly.total_usd},
        "labels": list(case.labels),
    }


def print_costs(report: CostReport, console: Console) -> None:
    """Print prices, what they rest on, break-even and what would change the order."""
    width = min(console.width, WIDTH) if console.is_terminal else 80
    console.width = width
    console.print(Text(printable(f"Costs: {report.name}"), style="bold"))
    console.print(Text(split_text(report)))
    for work in report.works[:WORKS_SHOWN]:
        console.print()
        console.print(Text(printable(work.case), style="bold"))
        console.print(_table(work.cases))
        for line in work_lines(work):
            _print_wrapped(line, console, width)
    hidden = len(report.works) - WORKS_SHOWN
    if hidden > 0:
        console.print(Text(f"\nand {hidden} more workloads; --json has them all", style="dim"))
    console.print(Text("\nWhat it rests on", style="bold"))
    for line in assumption_lines(report):
        _print_wrapped(line, console, width)


def _print_wrapped(line: str, console: Console, width: int) -> None:
    for piece in textwrap.wrap(printable(line), width - 2, initial_indent="  ", subsequent_indent="    "):
        console.print(Text(piece), soft_wrap=True)


def split_text(report: CostReport) -> str:
    """Say which tokens carry the cost."""
    if report.output_share == 1:
        return "all cost is on output tokens"
    return (
        f"{report.output_share:.0%} of the cost is on output tokens, "
        f"{1 - report.output_share:.0%} on input tokens"
    )


def _table(cases: Sequence[PricedCase]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column == "box" else "right", overflow="fold")
    for case in cases:
        table.add_row(*(Text(printable(cell)) for cell in _cells(case)))
    return table


def _cells(case: PricedCase) -> tuple[str, ...]:
    ends = interval_95(case)
    usd = UNKNOWN if case.output.value is None else number(case.output.value)
    if ends is not None and case.output.value is not None:
        usd += f" ({number(ends[0])} to {number(ends[1])})"
    return (
        case.candidate,
        usd,
        UNKNOWN if case.input.value is None else number(case.input.value),
        UNKNOWN if case.output_tokens_per_usd is None else number(case.output_tokens_per_usd),
        UNKNOWN if case.hourly is None else number(case.hourly.total_usd),
    )


def work_lines(work: WorkCosts) -> Iterator[str]:
    """Yield what there is to say of one piece of work below its prices."""
    for case in work.cases:
        if case.output.reason is not None:
            yield f"{case.candidate}: {case.output.reason}"
        notes = [*case.labels, *([case.output.note] if case.output.note else [])]
        if case.output.value is not None and notes:
            yield f"{case.candidate}: {'; '.join(notes)}"
    if work.distinguishable is not None:
        first, second = work.cases[0].candidate, work.cases[1].candidate
        verdict = "is cheaper than" if work.distinguishable else "is not distinguishable from"
        yield f"{first} {verdict} {second} (95% intervals, at these assumptions)"
    yield from (_break_even_text(entry) for entry in work.break_even)
    yield from (_api_text(entry) for entry in work.against_api)
    changing = [entry for entry in work.sensitivity if entry.changes_ranking]
    yield from (_sensitivity_text(entry) for entry in changing)
    if work.sensitivity and len([case for case in work.cases if case.output.value is not None]) > 1:
        steady = [entry for entry in work.sensitivity if not entry.changes_ranking]
        if steady:
            names = ", ".join(dict.fromkeys(entry.assumption for entry in steady))
            yield f"the order stays when these change alone within their ranges: {names}"
    elif work.sensitivity:
        yield from (_sensitivity_text(entry) for entry in work.sensitivity)


def _break_even_text(entry: BreakEven) -> str:
    what = "price" if entry.kind == "price_usd" else "rent per hour"
    if entry.price is None:
        return (
            f"{entry.candidate}: no {what} makes it as cheap as {entry.against}; running costs alone are more"
        )
    ends = interval(entry.low, entry.high, "USD")
    ratio = f", {number(entry.ratio)} times the other's" if entry.ratio is not None else ""
    return (
        f"{entry.candidate}: as cheap as {entry.against} at a {what} of {figure(entry.price, 'USD')}"
        f"{f' ({ends})' if ends else ''}{ratio}; now {figure(entry.now, 'USD')}"
    )


def _api_text(entry: AgainstApi) -> str:
    ends = interval(entry.low, entry.high, "ratio")
    if entry.utilisation is None:
        when = "dearer than it even if always at work"
    else:
        when = f"cheaper than it from a utilisation of {entry.utilisation:.0%}"
    return (
        f"{entry.candidate}: {entry.api} asks {number(entry.ratio)} times its cost"
        f"{f' ({ends})' if ends else ''}; {when}"
    )


def _sensitivity_text(entry: Sensitivity) -> str:
    whose = "all boxes" if entry.shared else entry.of[0]
    spread = "its range" if entry.stated_range else "±20%"
    usd = "; ".join(
        f"{name}: {number(low)} to {number(high)} USD / M output"
        for name, low, high in zip(entry.of, entry.usd_at_low, entry.usd_at_high, strict=True)
    )
    effect = ""
    if entry.changes_ranking:
        effect = f" CHANGES THE ORDER: cheapest is {entry.cheapest_at_low} at the low end, "
        effect += f"{entry.cheapest_at_high} at the high end;"
    return (
        f"{entry.assumption} of {whose}, {number(entry.low)} to {number(entry.high)} ({spread}, "
        f"now {number(entry.base)}):{effect} {usd}"
    )


def assumption_lines(report: CostReport) -> Iterator[str]:
    """Yield what the prices of each box rest on, and what was left out."""
    seen = set()
    for candidate, box in report.boxes:
        head = f"{box.name} ({candidate}): " if box.name != candidate else f"{box.name}: "
        if head in seen:
            continue
        seen.add(head)
        said = {name: getattr(box, name) for name in VARIABLE}
        given = [f"{name} {number(value)}" for name, value in said.items() if value is not None]
        if box.price_usd is not None:
            given.append(f"depreciation {box.depreciation_method}")
        if box.rent_includes_power:
            given.append("rent includes power")
        yield head + "; ".join([*given, *box.left_out])
        if box.source:
            yield f"source of {box.name}: {box.source}"
    if not report.boxes:
        yield "nothing: no box of the cost file matches a device of the runs"
    yield from (f"note: {note}" for note in report.notes)


def cost_markdown(report: CostReport) -> str:
    """Return Markdown for a pull request; names from files cannot break out of their cell."""
    out = [f"## Costs: {escaped(report.name)}", "", f"{split_text(report).capitalize()}.", ""]
    for work in report.works:
        out += [f"### {escaped(work.case)}", "", f"| {' | '.join(_COLUMNS)} |", "|---|---:|---:|---:|---:|"]
        out += [f"| {' | '.join(escaped(cell) for cell in _cells(case))} |" for case in work.cases]
        out += ["", *(f"- {escaped(line)}" for line in work_lines(work)), ""]
    out += ["### What it rests on", "", *(f"- {escaped(line)}" for line in assumption_lines(report))]
    return "\n".join(out) + "\n"
