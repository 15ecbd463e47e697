"""``aiprof compare``: which boxes really differ, by how much, and how sure that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from profiler.errors import UsageError, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from profiler.analysis.compare import Comparison
    from profiler.analysis.compare_threshold import ThresholdReport
    from profiler.results.read import Run


class Percentage(click.ParamType[float]):
    """A share such as ``3%``, as a fraction from 0 to below 1."""

    name = "percentage"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the fraction, or refuse with what would be understood."""
        if isinstance(value, float):
            return value
        text = str(value).strip()
        try:
            number = float(text.removesuffix("%"))
        except ValueError:
            number = -1.0
        if not text.endswith("%") or not 0 <= number < 100:
            self.fail(f"'{value}' is not a percentage from 0% to below 100%; write 3%", param, ctx)
        return number / 100


@click.command(short_help="Say which boxes really differ, by how much, and how sure that is.")
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True)
@click.option("--baseline", metavar="RUN", help="Compare all others with this run (default: the first).")
@click.option(
    "--match",
    type=click.Choice(("same-formats", "same-fidelity")),
    default="same-formats",
    show_default=True,
    help="Same number formats, or the fastest format of each box that computes faithfully.",
)
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="Compare only this metric.")
@click.option("--pool", is_flag=True, help="Take runs with equal devices, engines and versions as one box.")
@click.option(
    "--threshold", type=Percentage(), metavar="3%", help="Exit with 1 when something is slower by more."
)
@click.option("--strict", is_flag=True, help="With --threshold: exit with 3 when anything is undecided.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document with every metric.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown for a pull request.")
def command(
    runs: tuple[str, ...],
    baseline: str | None,
    match: str,
    metrics: tuple[str, ...],
    pool: bool,
    threshold: float | None,
    strict: bool,
    as_json: bool,
    as_markdown: bool,
) -> int:
    """Say which boxes really differ, by how much, and how sure that is.

    RUN is a run's folder, its name under ./runs, or a folder of runs. The first run is the one that
    the others are compared with. Differences are judged over starts: with one start per case nothing
    is decided. Loads of `aiprof load` are judged over loads: make each several times, and add --pool.

    Exit codes with --threshold: 0 no regression was found, 1 a regression beyond it is certain or a
    case that worked now fails, 3 nothing could be judged (with --strict: not everything).
    """
    if as_json and as_markdown:
        raise UsageError("choose one of --json and --markdown")
    if strict and threshold is None:
        raise UsageError("--strict goes with --threshold")

    from profiler.analysis.compare import METRICS, compare_runs
    from profiler.analysis.compare_threshold import DEFAULT_METRICS, judge_threshold

    _check_metrics(metrics, judged=threshold is not None)
    loaded, index, messages = _loaded(runs, baseline)
    for message in messages:
        click.echo(f"aiprof: {message}", err=True)
    comparison = compare_runs(
        loaded,
        baseline=index,
        match="same-fidelity" if match == "same-fidelity" else "same-formats",
        pool=pool,
        metrics=metrics or METRICS,
    )
    report = None
    if threshold is not None:
        report = judge_threshold(comparison, threshold, metrics or DEFAULT_METRICS)
    if as_json:
        from pydantic_core import to_json

        document = {**vars(comparison), "threshold": report, "warnings": messages}
        # Ten times as fast as json.dumps, which counts for hundreds of cases.
        click.echo(to_json(document, indent=1).decode())
    else:
        _print(comparison, metrics, report, as_markdown=as_markdown)
    return 0 if report is None else report.exit_code(strict=strict)


def _check_metrics(metrics: Sequence[str], *, judged: bool) -> None:
    from profiler.analysis.compare import METRICS
    from profiler.analysis.compare_threshold import REPLICATED

    known = REPLICATED if judged else METRICS
    for name in metrics:
        if name not in known:
            what = "metric with an interval over starts" if judged else "metric to compare"
            raise UsageError(f"--metric: {unknown(what, name, known)}")


def _loaded(texts: Sequence[str], baseline: str | None) -> tuple[list[Run], int, list[str]]:
    """Read the runs; a baseline that is not among them is put first."""
    from profiler.cli.given import given_path, read_given
    from profiler.results.find import resolve_run

    paths = [given_path(text) for text in texts]
    reference = resolve_run(baseline) if baseline is not None else None
    loaded, messages = read_given(paths if reference is None else [*paths, reference])
    if reference is None:
        return loaded, 0, messages
    found = [run.path.resolve() for run in loaded].index(reference.resolve())
    return loaded, found, messages


def _print(
    comparison: Comparison, metrics: Sequence[str], report: ThresholdReport | None, *, as_markdown: bool
) -> None:
    from profiler.render.compare_words import DEFAULT_METRICS

    names = metrics or DEFAULT_METRICS
    if as_markdown:
        from profiler.render.compare_markdown import comparison_markdown

        click.echo(comparison_markdown(comparison, names, report), nl=False)
        return
    from rich.console import Console

    from profiler.render.compare import comparison_text

    console = Console(highlight=False)
    width = console.width if console.is_terminal else 100_000
    text = comparison_text(comparison, names, report, width)
    if console.is_terminal:
        console.print(text, soft_wrap=True)
    else:
        click.echo(text.plain)
