"""``aiprof load``: drive a server by URL and record how it does."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from profiler.errors import AiprofError, UsageError

if TYPE_CHECKING:
    from profiler.load.plan import Shape, Trace
    from profiler.load.request import LoadRequest, Point
    from profiler.load.run import Stage
    from profiler.load.search import Search
    from profiler.load.slo import Slo
    from profiler.results.read import Run

INTERRUPTED = 130
POINT_S = 120.0
"""Budget of a point of a search, unless --seconds says another."""
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)?")
_UNIT_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


class Duration(click.ParamType[float]):
    """A time such as ``500ms``, ``90s``, ``5m`` or ``1h``, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds, or refuse with what would be understood."""
        if isinstance(value, float):
            return value
        match = _DURATION.fullmatch(str(value).strip())
        if match is None or float(match[1]) <= 0:
            self.fail(f"'{value}' is not a duration; write 90s, 5m or 1h", param, ctx)
        return float(match[1]) * _UNIT_SECONDS[match[2]]


class Numbers(click.ParamType[tuple[float, ...]]):
    """Numbers above 0, separated by commas."""

    name = "numbers"

    def __init__(self, *, whole: bool) -> None:
        self._whole = whole

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Return the numbers, or refuse with what would be understood."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(int(part) if self._whole else float(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if not numbers or not all(0 < number < 1e6 for number in numbers):
            example = "1,8,64" if self._whole else "0.5,2,8"
            self.fail(f"'{value}': write numbers above 0 with commas between, e.g. {example}", param, ctx)
        return numbers


@click.command(short_help="Drive a server by URL and record latency, throughput and goodput.")
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@click.option("--model", metavar="NAME", help="Model on the server (default: the only one it lists).")
@click.option("--api", type=click.Choice(["completions", "chat"]), default="completions", show_default=True)
@click.option("--scenario", metavar="NAME|FILE", help="Lengths of a scenario; see `aiprof scenarios`.")
@click.option("--prompt-tokens", type=click.IntRange(1, 10_000_000), help="Prompt length of every request.")
@click.option("--output-tokens", type=click.IntRange(1, 10_000_000), help="Output length of every request.")
@click.option("--concurrency", type=Numbers(whole=True), metavar="1,8,64", help="Closed loop: users at once.")
@click.option("--rate", type=Numbers(whole=False), metavar="0.5,2", help="Open loop: requests per second.")
@click.option(
    "--arrivals", type=click.Choice(["poisson", "gamma", "constant"]), help="Default: the scenario's."
)
@click.option(
    "--cv", type=click.FloatRange(0, 100), help="Burstiness: coefficient of variation of gaps (gamma)."
)
@click.option(
    "--ramp-to", type=click.FloatRange(0, 1e6), help="Open loop: go evenly from --rate to this rate."
)
@click.option("--trace", type=click.Path(path_type=Path), help="Replay Azure CSV or Mooncake JSON lines.")
@click.option("--requests", type=click.IntRange(1, 1_000_000), help="Requests per case.")
@click.option("--seconds", type=Duration(), metavar="60s|5m", help="Send for this long per case.")
@click.option("--warm-up", type=click.IntRange(0, 100_000), help="Requests before each case, not counted.")
@click.option(
    "--ramp", "ramp_s", type=Duration(), help="Closed loop: spread the starts of users over this time."
)
@click.option(
    "--shared-prefix", type=click.IntRange(0, 10_000_000), default=0, help="Leading tokens in common."
)
@click.option("--slo", "slos", multiple=True, metavar="ttft_p99=0.5s", help="Limit; may be repeated.")
@click.option(
    "--slo-preset", metavar="mlperf-llama2-70b", help="Limits of an MLPerf model; any other name lists them."
)
@click.option(
    "--search",
    "over",
    type=click.Choice(["concurrency", "rate"]),
    help="Find the highest users or rate that keep the limits (default with limits of percentiles alone).",
)
@click.option("--from", "low", type=click.FloatRange(1e-3, 1e6), help="Search: begin here (default: 1).")
@click.option("--to", "high", type=click.FloatRange(1e-3, 1e6), help="Search: end here (default: 1024).")
@click.option("--dry-run", is_flag=True, help="Say how long it will take at most, and send nothing.")
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, help="Of prompts, lengths and arrivals."
)
@click.option("--vocab-size", type=click.IntRange(200, 2**31), help="Draw token ids below this.")
@click.option("--tokenizer", metavar="FOLDER", help="Count tokens with this, for servers that do not.")
@click.option("--name", metavar="TEXT", help="What stands behind the URL, for the record: '8xH100, vLLM'.")
@click.option(
    "--speculative",
    metavar="METHOD",
    help="Recorded: the server decodes speculatively (mtp, eagle3, …).",
)
@click.option("--processes", type=click.IntRange(1, 256), help="Load processes (default: by the load).")
@click.option(
    "--timeout", "total_s", type=Duration(), default="600s", help="A request is given up after this."
)
@click.option(
    "--idle-timeout", "idle_s", type=Duration(), default="120s", help="... or so long without a byte."
)
@click.option(
    "--api-key-env", metavar="NAME", default="AIPROF_API_KEY", show_default=True,
    help="Environment variable that holds the API key.",
)  # fmt: skip
@click.option("--ca-file", metavar="FILE", help="Certificates to trust instead of the system's.")
@click.option("--loop", type=click.Choice(["auto", "asyncio", "uvloop"]), default="auto", hidden=True)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the run (default: runs/<time>-load-…)."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
@click.option("--quiet", is_flag=True, help="No progress.")
def command(
    urls: tuple[str, ...], out: Path | None, as_json: bool, quiet: bool, dry_run: bool, **flags: Any
) -> int:
    """Drive a server that already runs and leave a run that report, export and gate can read.

    URL is that of any OpenAI-compatible server, e.g. http://localhost:8000. An API key is taken from
    the environment variable AIPROF_API_KEY and never recorded.

    \b
    aiprof load http://localhost:8000 --scenario chat --concurrency 1,8,64 --requests 700
    aiprof load http://localhost:8000 --prompt-tokens 512 --output-tokens 128 --rate 2 --seconds 5m \\
        --slo ttft_p99=0.5s --slo tpot_p99=50ms
    aiprof load http://localhost:8000 --scenario chat --search concurrency --slo-preset mlperf-llama3.1-8b
    """  # noqa: D301  (\b is click's mark for lines that stay as they are)
    signal.signal(signal.SIGTERM, _as_interrupt)
    from rich.console import Console

    from profiler.load.run import Load

    request = _request(urls, flags)
    if dry_run:
        return _show_expected(request, as_json=as_json)
    path = out or _default_path(request)
    status = None if quiet else Console(stderr=True, highlight=False)
    interrupted = False
    try:
        if status is None:
            Load(request).run(path)
        else:
            with status.status("asking the server what it understands") as line:
                Load(request, lambda stage: line.update(_words(stage))).run(path)
    except KeyboardInterrupt:
        interrupted = True
    except AiprofError:
        if not (path / "run.json").exists():
            raise
        _show(path, as_json=as_json)
        raise
    if interrupted and not (path / "run.json").exists():
        raise KeyboardInterrupt
    code = _show(path, as_json=as_json)
    if interrupted:
        click.echo(f"interrupted: what was measured is in {path}", err=True)
        return INTERRUPTED
    return code


def _request(urls: tuple[str, ...], flags: dict[str, Any]) -> LoadRequest:
    """Return the request that the flags describe.

    Raises:
        UsageError: flags that do not go together.
    """
    from profiler.load.endpoint import parse_endpoint
    from profiler.load.job import Limits
    from profiler.load.plan import read_trace
    from profiler.load.request import LoadRequest
    from profiler.load.slo_presets import slos_of

    endpoints = tuple(parse_endpoint(url) for url in urls)
    if any(one.scheme == "http" and one.reach == "public" for one in endpoints):
        click.echo(
            "warning: plain http over a network: prompts and the API key can be read on the way", err=True
        )
    trace = read_trace(flags["trace"]) if flags["trace"] is not None else None
    slos = slos_of(flags["slos"], flags["slo_preset"])
    search = _search(flags, slos)
    if sum(flags[name] is not None for name in ("concurrency", "rate", "trace")) != (search is None):
        raise UsageError(
            "give one of --concurrency 1,8 (users at once), --rate 2 (requests/s), --trace FILE, "
            "or --search with limits such as --slo ttft_p99=0.5s"
        )
    if flags["requests"] is not None and flags["seconds"] is not None and search is None:
        raise UsageError("give either --requests or --seconds")
    shape = _shape(flags, trace)
    points = () if search is not None else _points(flags, trace)
    requests, seconds = flags["requests"], flags["seconds"]
    if search is not None:
        seconds = seconds or POINT_S
    elif requests is None and seconds is None and trace is None:
        seconds = 60.0
    if flags["ramp_to"] is not None and seconds is None:
        raise UsageError("--ramp-to needs --seconds: how long the way from one rate to the other takes")
    return LoadRequest(
        endpoints=endpoints,
        model=flags["model"],
        api=flags["api"],
        shape=shape,
        points=points,
        requests=requests,
        seconds=seconds,
        warm_up=flags["warm_up"],
        ramp_s=flags["ramp_s"] or 0.0,
        slos=slos,
        search=search,
        seed=flags["seed"],
        shared_prefix_tokens=flags["shared_prefix"],
        trace=trace,
        vocab_size=flags["vocab_size"],
        tokenizer=flags["tokenizer"],
        name=flags["name"],
        processes=flags["processes"],
        limits=replace(Limits(), total_s=flags["total_s"], idle_s=flags["idle_s"]),
        key_variable=flags["api_key_env"],
        ca_file=flags["ca_file"],
        loop=flags["loop"],
        speculative=flags["speculative"],
        command=_command(urls, flags),
    )


def _command(urls: tuple[str, ...], flags: dict[str, Any]) -> tuple[str, ...]:
    """Return the flags for the record; URLs and files say whose machine it is and are left out."""
    private = {"tokenizer", "ca_file", "trace", "api_key_env", "name"}
    names = {"ramp_s": "ramp", "total_s": "timeout", "idle_s": "idle-timeout", "slos": "slo"}
    names |= {"over": "search"}
    names |= {"low": "from", "high": "to"}
    made = ["load", *("URL" for _ in urls)]
    for name, value in flags.items():
        if value in (None, (), 0) or name in private:
            continue
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        made += [f"--{names.get(name, name).replace('_', '-')}", text]
    return tuple(made)


def _shape(flags: dict[str, Any], trace: Trace | None) -> Shape:
    from profiler.load.plan import fixed_shape, served_shape, trace_shape
    from profiler.workload.scenario import find_scenario

    lengths = (flags["prompt_tokens"], flags["output_tokens"])
    if trace is not None:
        if any(lengths) or flags["scenario"]:
            raise UsageError("a trace brings its own lengths; leave out --scenario and lengths")
        return trace_shape(trace)
    if flags["scenario"] is not None:
        if any(lengths):
            raise UsageError("give either --scenario or --prompt-tokens and --output-tokens")
        return served_shape(find_scenario(flags["scenario"]), flags["seed"])
    if not all(lengths):
        raise UsageError("give --scenario NAME, or both --prompt-tokens and --output-tokens")
    return fixed_shape(*lengths)


def _search(flags: dict[str, Any], slos: Sequence[Slo]) -> Search | None:
    """Return the search that is asked for, by name or by limits without a load; None without."""
    from profiler.load.search import Search

    driven = any(flags[name] is not None for name in ("concurrency", "rate", "trace"))
    limits = [slo for slo in slos if slo.percentile is not None]
    if flags["over"] is None and (driven or not limits):
        if flags["low"] is not None or flags["high"] is not None:
            raise UsageError("--from and --to go with --search")
        return None
    if driven or flags["ramp_to"] is not None:
        raise UsageError(
            "--search chooses the load itself; leave out --concurrency, --rate, --ramp-to and --trace"
        )
    if not limits:
        raise UsageError("--search needs limits of percentiles: --slo ttft_p99=0.5s, or --slo-preset")
    over = flags["over"] or "concurrency"
    low, high = flags["low"] or 1.0, flags["high"] or 1024.0
    if low > high or (over == "concurrency" and low < 1):
        raise UsageError(f"--from {low:g} --to {high:g}: write the lower end first, users from 1 on")
    if over == "concurrency":
        if flags["arrivals"] or flags["cv"] is not None:
            raise UsageError("--arrivals and --cv go with --search rate")
        return Search("concurrency", float(int(low)), float(int(high)))
    process, cv = _arrivals(flags)
    return Search("rate", low, high, process, cv)


def _points(flags: dict[str, Any], trace: Trace | None) -> tuple[Point, ...]:
    from profiler.load.request import Point

    if flags["concurrency"] is not None:
        if flags["arrivals"] or flags["cv"] is not None or flags["ramp_to"] is not None:
            raise UsageError("--arrivals, --cv and --ramp-to go with --rate")
        return tuple(Point(concurrency=int(number)) for number in flags["concurrency"])
    if trace is not None:
        rate = (len(trace.at_s) - 1) / trace.at_s[-1] if trace.at_s[-1] > 0 else float(len(trace.at_s))
        return (Point(process="trace", rate_per_s=float(rate)),)
    if flags["ramp_to"] is not None:
        return tuple(
            Point(process="ramp", rate_per_s=rate, rate_end_per_s=flags["ramp_to"], cv=0.0)
            for rate in flags["rate"]
        )
    process, cv = _arrivals(flags)
    return tuple(Point(process=process, rate_per_s=rate, cv=cv) for rate in flags["rate"])


def _arrivals(flags: dict[str, Any]) -> tuple[str, float]:
    """Return kind and coefficient of variation of the arrivals of an open loop."""
    from profiler.workload.scenario import find_scenario

    process, cv = flags["arrivals"] or "poisson", flags["cv"]
    if flags["arrivals"] is None and cv is None and flags["scenario"] is not None:
        served = find_scenario(flags["scenario"]).served
        if served is not None:
            process, cv = served.arrivals.process, served.arrivals.cv
    if flags["arrivals"] is None and flags["cv"] is not None:
        process = "gamma"
    if cv is None:
        if process == "gamma":
            raise UsageError("--arrivals gamma needs --cv, e.g. 2 for bursty arrivals")
        cv = {"poisson": 1.0, "constant": 0.0}[process]
    return process, cv


def _show_expected(request: LoadRequest, *, as_json: bool) -> int:
    """Say how many points there will be and how long they may take; nothing is sent."""
    import json

    from profiler.load.expect import expected

    found = expected(request)
    click.echo(json.dumps(found.document(), indent=1) if as_json else found.words())
    return 0


def _show(path: Path, *, as_json: bool) -> int:
    """Print the run and return 0, 1 (a case failed) or 4 (nothing measured)."""
    from profiler.results.read import read_run

    run: Run = read_run(path)
    if as_json:
        import json

        document = {
            "run": str(run.path),
            "complete": run.complete,
            "record": run.record.model_dump(mode="json"),
            "cases": [case.model_dump(mode="json") for case in run.cases],
        }
        click.echo(json.dumps(document, indent=1, allow_nan=False))
    else:
        from rich.console import Console

        from profiler.render.load_table import print_load

        print_load(run, Console(file=sys.stdout, highlight=False))
        click.echo(f"run: {run.path}")
    measured = sum(case.status == "ok" for case in run.cases)
    if measured < len(run.cases) or not run.cases:
        return 1 if measured else 4
    return 0


def _words(stage: Stage) -> str:
    if stage.case is None:
        return {"asking": "asking the server what it understands", "client": "measuring the client"}[
            stage.name
        ]
    at = stage.progress
    done = (
        "warming up"
        if at is None
        else f"{at.ended:,} done, {at.failed:,} failed, {at.in_flight:,} on their way"
    )
    elapsed = "" if at is None else f", {at.elapsed_s:.0f} s"
    of = "" if stage.of is None else f" of {stage.of}"
    return f"{stage.number}{of}: {stage.case.load_label}: {done}{elapsed}"


def _default_path(request: LoadRequest) -> Path:
    slug = re.sub(r"[^a-z0-9.]+", "-", f"load-{request.shape.name}-{request.model or ''}".lower()).strip("-")
    return Path("runs") / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{slug[:60]}"


def _as_interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt
