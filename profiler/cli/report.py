"""``aiprof report``: runs as one page that a person reads and signs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from profiler.errors import UsageError

if TYPE_CHECKING:
    from profiler.render.report_view import Section
    from profiler.results.read import Run


@click.command(short_help="Write one HTML page about one or several runs.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("report.html"),
    show_default=True,
    metavar="FILE",
    help="Where to write the page.",
)
@click.option("--title", metavar="TEXT", help="Heading of the page. [default: the names of the runs]")
@click.option(
    "--interactive", is_flag=True, help="Charts with zoom, and figures under the pointer (1 MB more)."
)
@click.option(
    "--policy",
    type=click.Path(path_type=Path),
    metavar="POLICY.yaml",
    help="Show the verdict of a policy; see `aiprof gate`.",
)
@click.option(
    "--costs",
    type=click.Path(path_type=Path),
    metavar="COSTS.yaml",
    help="Show what a token costs; see `aiprof cost`.",
)
@click.option(
    "--predict",
    "elsewhere",
    multiple=True,
    metavar="HARDWARE[:COUNT]",
    help="Show the same cases as predicted there, marked; repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print where the page is and what it shows as JSON.")
def command(
    runs: tuple[str, ...],
    out: Path,
    title: str | None,
    interactive: bool,
    policy: Path | None,
    costs: Path | None,
    elsewhere: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write one HTML page about one or several runs.

    RUN is a run's folder, its name under ./runs, or a folder of runs. The page holds everything it
    shows: it fetches nothing, opens from a disk without a network, and needs no scripts to be read.
    """
    from profiler.cli.given import given_path, read_given
    from profiler.render.vega_runtime import VegaRuntime

    paths = [given_path(text) for text in runs]
    # Before everything else that takes long, so that it is done beside it.
    runtime = VegaRuntime() if interactive else None

    from profiler.render.report import write_report

    loaded, messages = read_given(paths)
    for message in messages:
        click.echo(f"aiprof: {message}", err=True)
    try:
        write_report(
            loaded,
            out,
            title=title or _title(loaded),
            gate=None if policy is None else _verdict(policy, loaded),
            cost=None if costs is None else _prices(costs, loaded),
            predicted=_predictions(elsewhere, loaded) if elsewhere else None,
            runtime=runtime,
        )
    except OSError as error:
        raise UsageError(f"{out}: cannot be written: {error.strerror}; choose another --out") from error
    if as_json:
        import json

        names = [str(run.path) for run in loaded]
        click.echo(json.dumps({"report": str(out), "runs": names, "bytes": out.stat().st_size}, indent=1))
    else:
        click.echo(f"report: {out}")


def _verdict(path: Path, runs: list[Run]) -> Section:
    from profiler.analysis.gate import judge
    from profiler.analysis.policy_file import load_policy
    from profiler.render.report_verdict import gate_section

    return gate_section(judge(load_policy(path), runs))


def _prices(path: Path, runs: list[Run]) -> Section:
    from profiler.analysis.cost_compare import cost_report
    from profiler.analysis.cost_file import load_costs
    from profiler.render.report_verdict import cost_section

    return cost_section(cost_report(load_costs(path), runs))


def _predictions(selectors: tuple[str, ...], runs: list[Run]) -> Section:
    from profiler.render.report_predicted import predicted_section

    return predicted_section(runs, selectors)


def _title(runs: list[Run]) -> str:
    from profiler.render.report_view import listed

    return listed([run.path.resolve().name for run in runs])
