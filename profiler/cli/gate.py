"""``aiprof gate``: a buyer's policy against runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from profiler.analysis.candidates import Candidate


@click.command(short_help="Turn a buyer's requirements into pass, fail or undecided.")
@click.argument("policy", metavar="POLICY.yaml", type=click.Path(path_type=Path))
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown for a pull request.")
@click.option(
    "--junit", metavar="FILE", type=click.Path(path_type=Path), help="Also write JUnit XML to FILE."
)
@click.option(
    "--predict",
    "elsewhere",
    multiple=True,
    metavar="HARDWARE[:COUNT]",
    help="Another candidate: the same cases predicted there; counts only with `allow: [predicted]`.",
)
def command(
    policy: Path,
    runs: tuple[str, ...],
    as_json: bool,
    as_markdown: bool,
    junit: Path | None,
    elsewhere: tuple[str, ...],
) -> int:
    """Turn a buyer's requirements into pass, fail or undecided.

    Every device in the RUNs is a candidate, and all of them must pass unless the policy says
    `candidates: any`. docs/gate.md describes policies; docs/examples holds some.

    Exit codes: 0 pass, 1 fail, 2 a bad file, 3 undecided, 4 nothing to judge.
    """
    from profiler.errors import UsageError

    if as_json and as_markdown:
        raise UsageError("choose one of --json and --markdown")
    from profiler.analysis.gate import judge
    from profiler.analysis.policy_file import load_policy
    from profiler.cli.given import given_path, read_given

    given, _ = read_given(map(given_path, runs))
    predicted: tuple[Candidate, ...] = ()
    if elsewhere:
        from profiler.analysis.predict.candidate import candidate

        predicted = tuple(candidate(given, text) for text in elsewhere)
    verdict = judge(load_policy(policy), given, predicted=predicted)
    if junit is not None:
        from profiler.render.gate_files import junit_xml
        from profiler.results.export import write_whole

        write_whole(junit, junit_xml(verdict).encode())
    if as_json:
        import json

        from profiler.render.gate import verdict_document

        click.echo(json.dumps(verdict_document(verdict), indent=1, allow_nan=False, ensure_ascii=False))
    elif as_markdown:
        from profiler.render.gate_files import markdown

        click.echo(markdown(verdict), nl=False)
    else:
        from rich.console import Console

        from profiler.render.gate import print_verdict

        print_verdict(verdict, Console(highlight=False))
    return verdict.exit_code
