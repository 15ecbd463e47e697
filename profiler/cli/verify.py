"""``aiprof verify``: do the figures of a run follow from its raw samples, and are its files unchanged?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from profiler.analysis.verify import Verification

FAILED = 1


@click.command(short_help="Check a run: files unchanged, and every figure made again from the raw samples.")
@click.argument("run", metavar="RUN")
@click.option("--challenge", metavar="TEXT", help="The text that must have been mixed into the prompts.")
@click.option(
    "--trusted",
    type=click.Path(path_type=Path),
    metavar="KEY.pub",
    help="Public Ed25519 key that must have signed the run.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(run: str, challenge: str | None, trusted: Path | None, as_json: bool) -> int:
    """Check a run that somebody hands in.

    Every file must be listed and unchanged, the cases must be chained, and every figure is made once
    more from the raw samples by the code that made it. docs/trust.md says what that proves and what
    it cannot.

    Exit codes: 0 it verifies (an unfinished run: nothing is wrong with what is there), 1 it does not,
    2 there is no such run or key.
    """
    from profiler.analysis.verify import verify_run
    from profiler.render.verify import print_verification, verification_document
    from profiler.results.find import resolve_run

    found: Verification = verify_run(resolve_run(run), challenge=challenge, trusted=trusted)
    if as_json:
        import json

        click.echo(json.dumps(verification_document(found), indent=1, allow_nan=False))
    else:
        from rich.console import Console

        print_verification(found, Console(highlight=False, soft_wrap=True))
    return FAILED if found.state == "failed" else 0
