"""The command line. A command's module is imported only when that command runs.

``aiprof --help`` must stay fast, so this module imports click and nothing else; the one-line helps
stand in the table below (tests/cli/test_main.py holds them against the commands).
"""

from __future__ import annotations

from importlib import import_module

import click

from profiler import __version__

COMMANDS = {
    "sweep": "Profile this box: run the standard workloads and record how it does.",
    "load": "Drive a server by URL and record latency, throughput and goodput.",
    "devices": "Show this box's devices, what can be measured on them and how well, and what is missing.",
    "power": "Show or record the power, clocks and temperatures of this box.",
    "energy": "Say what energy a load took on other machines, from recordings of `aiprof power`.",
    "ceilings": "Measure what the devices can do at most, and what that means for a model.",
    "models": "Show the catalogue of models, or everything that follows from one model's architecture.",
    "hardware": "Show the catalogue of accelerators, or every number of one with its source.",
    "scenarios": "Show the standard workloads, or everything about one of them.",
    "runs": "List the runs on disk, or the cases of one run.",
    "report": "Write one HTML page about one or several runs.",
    "compare": "Say which boxes really differ, by how much, and how sure that is.",
    "cost": "Put a price on a million tokens, with what it rests on.",
    "predict": "Predict speed, memory and power on hardware that is not here.",
    "verify": "Check a run: files unchanged, and every figure made again from the raw samples.",
    "sign": "Sign a run with an Ed25519 key, so that others can see who vouches for it.",
    "gate": "Turn a buyer's requirements into pass, fail or undecided.",
    "export": "Write the results of runs as CSV, Parquet or JSON.",
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command, or None when there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"profiler.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but name the nearest command for an unknown one."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            from profiler.errors import unknown

            ctx.fail(unknown("command", args[0], COMMANDS))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table without importing the commands."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"aiprof {__version__} ({__file__.removesuffix('/cli/__init__.py')})")
        ctx.exit()


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_version,
    help="Show the version and where it lies.",
)
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Measure what a machine really does with open LLMs.

    Start with `aiprof sweep`: it profiles this box and leaves a run that can be compared, reported
    and checked later.
    """
    ctx.obj = {"debug": debug}
