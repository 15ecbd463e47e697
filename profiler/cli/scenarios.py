"""``aiprof scenarios``: the standard workloads, and everything about one of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table

    from profiler.workload.lengths import Quantiles
    from profiler.workload.scenario import Scenario, Served, Variant


@click.command("scenarios")
@click.argument("scenario", metavar="[NAME|FILE]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(scenario: str | None, as_json: bool) -> None:
    """Show the standard workloads, or everything about one of them.

    FILE is a scenario of your own: a YAML file like those in scenarios/, its path with a slash or
    ending in .yaml.
    """
    from profiler.workload.scenario import find_scenario, scenarios

    if scenario is None:
        found = list(scenarios().values())
        if as_json:
            _print_json([_as_json(one) for one in found])
        else:
            _print(_overview(found))
        return
    one = find_scenario(scenario)
    if as_json:
        _print_json(_as_json(one))
    else:
        _print(_everything(one))


def _as_json(scenario: Scenario) -> dict[str, Any]:
    from dataclasses import asdict

    served = None if scenario.served is None else asdict(scenario.served)
    if scenario.served is not None and served is not None:
        for part in ("prompt_tokens", "output_tokens"):
            quantiles: Quantiles = getattr(scenario.served, part)
            served[part] |= {"sampled_mean": quantiles.sampled_mean}
    return {
        "name": scenario.name,
        "version": scenario.version,
        "description": scenario.description,
        "notes": scenario.notes,
        "full": _lengths(scenario, "full"),
        "quick": _lengths(scenario, "quick")
        | {"fraction": _fraction(scenario), "purpose": scenario.quick_purpose},
        "basis": scenario.basis,
        "batches": list(scenario.batches),
        "served": served,
        "offline_only": scenario.offline_only,
        "source": asdict(scenario.source),
    }


def _lengths(scenario: Scenario, variant: Variant) -> dict[str, Any]:
    point = scenario.point(variant, 1)
    return {"prompt_tokens": point.prompt_tokens, "output_tokens": point.output_tokens}


def _fraction(scenario: Scenario) -> str:
    return f"{scenario.quick_fraction.numerator}/{scenario.quick_fraction.denominator}"


def _arrow(scenario: Scenario, variant: Variant) -> str:
    lengths = _lengths(scenario, variant)
    return f"{lengths['prompt_tokens']:,} → {lengths['output_tokens']:,}"


def _overview(scenarios: Iterable[Scenario]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD,
        caption="tokens of prompt → output per request; `aiprof scenarios NAME` shows everything",
        caption_justify="left",
    )
    table.add_column("scenario", no_wrap=True)
    table.add_column("full", justify="right", no_wrap=True)
    table.add_column("quick", justify="right", no_wrap=True)
    table.add_column("stands for", ratio=5)
    table.add_column("source", ratio=4)
    for scenario in scenarios:
        full, quick = _arrow(scenario, "full"), _arrow(scenario, "quick")
        table.add_row(scenario.name, full, quick, Text(scenario.description), Text(scenario.source.name))
    return table


def _everything(scenario: Scenario) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from profiler.results.read import printable

    table = Table(box=box.SIMPLE, show_header=False)
    table.add_column("what", no_wrap=True)
    table.add_column("value", overflow="fold")
    for what, value in _rows(scenario):
        table.add_row(what, Text(printable(value)))
    return table


def _rows(scenario: Scenario) -> Iterable[tuple[str, str]]:
    basis = {"median": "medians of the source", "mean": "means of the source", "defined": "by definition"}
    yield "scenario", f"{scenario.name}, version {scenario.version}"
    yield "stands for", scenario.description
    if scenario.notes:
        yield "notes", scenario.notes
    yield "full", f"{_arrow(scenario, 'full')} tokens of prompt → output ({basis[scenario.basis]})"
    yield "quick", f"{_arrow(scenario, 'quick')}: {_fraction(scenario)} of each, rounded half up, at least 1"
    yield "why", scenario.quick_purpose
    if scenario.batches:
        yield "batch sizes", ", ".join(map(str, scenario.batches))
    if scenario.served is None:
        yield "served", f"no: {scenario.offline_only}"
    else:
        yield from _served_rows(scenario.served)
    yield "source", scenario.source.name
    yield "", scenario.source.url
    yield "licence", scenario.source.licence
    yield "cite", scenario.source.citation


def _served_rows(served: Served) -> Iterable[tuple[str, str]]:
    yield "served prompt", _distribution(served.prompt_tokens)
    yield "served output", _distribution(served.output_tokens)
    known = "not known" if served.correlation is None else f"{served.correlation:g}"
    yield "correlation", f"{known}; {served.correlation_note}"
    arrivals = served.arrivals
    rate = "no rate in the source" if arrivals.rate_per_s is None else f"{arrivals.rate_per_s:g} requests/s"
    measured = "not measured" if arrivals.measured_cv is None else f"measured {arrivals.measured_cv:g}"
    yield "arrivals", f"{arrivals.process}, CV {arrivals.cv:g} ({measured}), {rate}"
    yield "", arrivals.source


def _distribution(quantiles: Quantiles) -> str:
    pairs = zip(quantiles.levels, quantiles.tokens, strict=True)
    shown = ", ".join(f"p{100 * level:g} {tokens:,}" for level, tokens in pairs)
    published = "not published" if quantiles.mean is None else f"{quantiles.mean:,.1f} published"
    return f"{shown}; mean {published}, {quantiles.sampled_mean:,.1f} as drawn"


def _print_json(document: Any) -> None:
    click.echo(json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False))


def _print(table: Table) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 100_000  # a file or a pipe has no width: one line per row, whole
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())
