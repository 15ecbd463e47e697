"""``aiprof cost``: the price of a million tokens on the boxes of runs."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Put a price on a million tokens, with what it rests on.")
@click.argument("costs", metavar="COSTS.yaml", type=click.Path(path_type=Path))
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown for a pull request.")
def command(costs: Path, runs: tuple[str, ...], as_json: bool, as_markdown: bool) -> int:
    """Put a price on a million tokens, with what it rests on.

    There is no figure unless price (or rent), utilisation and power tariff are in COSTS.yaml.
    docs/gate.md describes the file; docs/examples holds one.

    Exit codes: 0 at least one price, 2 a bad file, 4 nothing could be priced.
    """
    from profiler.errors import UsageError

    if as_json and as_markdown:
        raise UsageError("choose one of --json and --markdown")
    from profiler.analysis.cost_compare import cost_report
    from profiler.analysis.cost_file import load_costs
    from profiler.cli.given import given_path, read_given

    report = cost_report(load_costs(costs), read_given(map(given_path, runs))[0])
    if as_json:
        import json

        from profiler.render.cost import cost_document

        click.echo(json.dumps(cost_document(report), indent=1, allow_nan=False, ensure_ascii=False))
    elif as_markdown:
        from profiler.render.cost import cost_markdown

        click.echo(cost_markdown(report), nl=False)
    else:
        from rich.console import Console

        from profiler.render.cost import print_costs

        print_costs(report, Console(highlight=False))
    priced = any(case.output.value is not None for work in report.works for case in work.cases)
    return 0 if priced else 4
