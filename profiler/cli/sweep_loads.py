"""What of ``aiprof sweep`` is for servers only: the flags of loads, and what a dry run says of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from profiler.errors import UsageError

if TYPE_CHECKING:
    from profiler.load.request import LoadRequest

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--url", "urls", multiple=True, metavar="URL", help="Engine endpoint: the server."),
    click.option("--slo", "slos", multiple=True, metavar="ttft_p99=0.5s", help="Limit of loads on a server."),
    click.option(
        "--slo-preset",
        metavar="mlperf-llama3.1-8b",
        help="Engines vllm and endpoint: limits of an MLPerf model; any other name lists them.",
    ),
    click.option(
        "--search",
        type=click.Choice(["concurrency", "rate"]),
        is_flag=False,
        flag_value="concurrency",
        help="Engines vllm and endpoint: find the most users, or the highest rate, that keep the limits "
        "(users by default, with limits of percentiles and no --concurrency).",
    ),
    click.option("--from", "low", type=click.FloatRange(1e-3, 1e6), help="Search: begin here (default: 1)."),
    click.option("--to", "high", type=click.FloatRange(1e-3, 1e6), help="Search: end here (default: 1024)."),
)


def with_load_flags(command: Command) -> Command:
    """Give a command the flags of loads."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def fold_load_flags(flags: dict[str, Any]) -> None:
    """Turn the flags of loads into options of the engine, as which they travel and are checked.

    A preset travels as its limits: a run keeps them when it is resumed, whatever the preset says then.

    Raises:
        UsageError: an option is given in both ways, or the preset or a limit beside it cannot be understood.
    """
    preset = flags.pop("slo_preset")
    if preset is not None:
        if "slo" in (flags.get("engine_options") or {}):
            raise UsageError("--slo-preset and --engine-option slo=…: give one (--slo goes with a preset)")
        from profiler.load.slo_presets import slos_of

        flags["slos"] = tuple(map(str, slos_of(flags["slos"], preset)))
    names = {"urls": "url", "slos": "slo", "search": "search", "low": "from", "high": "to"}
    options = dict(flags.get("engine_options") or {})
    for name, option in names.items():
        value = flags.pop(name)
        if value in (None, ()):
            continue
        if option in options:
            raise UsageError(f"--{option} and --engine-option {option}=…: give one")
        options[option] = ",".join(value) if isinstance(value, tuple) else f"{value}"
    flags["engine_options"] = options


def show_loads(requests: Sequence[LoadRequest], *, as_json: bool) -> int:
    """Say which loads a sweep on a server makes and for how long at most; nothing is sent."""
    from profiler.load.expect import expected

    found = [(request, expected(request)) for request in requests]
    hours = sum(each.hours or 0.0 for _, each in found)
    cases = [
        {"scenario": request.shape.name, "concurrency": point.concurrency, "seconds": request.seconds}
        for request in requests
        for point in request.points
    ]
    if as_json:
        import json

        searches = [each.document() for request, each in found if request.search is not None]
        document = {"cases": cases, "searches": searches, "seconds": hours * 3600, "hours": hours}
        click.echo(json.dumps(document, indent=1))
        return 0
    for case in cases:
        click.echo(f"{case['scenario']}: {case['concurrency']} users, {case['seconds']:.0f} s")
    for request, each in found:
        if request.search is not None:
            click.echo(f"{request.shape.name}: {each.words()}")
    if cases:
        click.echo(f"{len(cases)} loads, {hours:.2f} h of sending at most, and the last answers of each")
    return 0
