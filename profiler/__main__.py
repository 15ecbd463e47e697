"""The door: ``aiprof``. Turns every way of ending into an exit code and at most one line per fault."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType

import click

from profiler.cli import cli
from profiler.errors import AiprofError

INTERRUPTED = 130
INTERNAL_ERROR = 70


def _interrupted(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit.

    Exit codes: 0 ok; 1 a case failed; 2 usage or a bad input file;
    3 undecided (gate, compare); 4 nothing could be measured;
    70 a bug in aiprof; 130 interrupted, with everything measured so far on disk.
    """
    # Batch systems and `timeout` end programs with SIGTERM: what was started is ended as on Ctrl-C.
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGTERM, _interrupted)
    debug = "--debug" in (sys.argv[1:] if arguments is None else arguments)
    try:
        # Not cli.main(): it ends the process by itself on a closed pipe, with the code of a failed case.
        with cli.make_context("aiprof", list(sys.argv[1:] if arguments is None else arguments)) as context:
            code = cli.invoke(context)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except AiprofError as error:
        if debug:
            raise
        for line in str(error).splitlines():
            click.echo(f"aiprof: {line}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("aiprof: interrupted", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader (head, less) has gone: nothing is wrong. Python would complain at exit otherwise.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if debug:
            raise
        click.echo(f"aiprof: internal error: {type(error).__name__}: {error}", err=True)
        click.echo("aiprof: this is a bug; `aiprof --debug ...` shows where, please report it", err=True)
        sys.exit(INTERNAL_ERROR)


if __name__ == "__main__":
    main()
