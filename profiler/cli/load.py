"""``aiprof load``: drive a server by URL and record how it does."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from profiler.cli.durations import Duration
from profiler.cli.load_flags import Numbers, request_of
from profiler.errors import AiprofError

if TYPE_CHECKING:
    from profiler.load.request import LoadRequest
    from profiler.load.run import Beside, Stage
    from profiler.results.read import Run

INTERRUPTED = 130


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
@click.option(
    "--device", metavar="cuda:0",
    help="The server runs on this device of this box: record its energy, memory and state, too.",
)  # fmt: skip
@click.option("--name", metavar="TEXT", help="What stands behind the URL, for the record: '8xH100, vLLM'.")
@click.option(
    "--speculative",
    metavar="METHOD",
    help="Recorded: the server decodes speculatively (mtp, eagle3, …).",
)
@click.option(
    "--weights",
    metavar="FOLDER|FILE",
    help="Safetensors or GGUF of what the server runs: answers are held against an fp32 reference of them.",
)
@click.option("--precision", help="Number format that it claims (default: that of the weights).")
@click.option("--no-fidelity", is_flag=True, help="Leave out the check of the answers; the record says so.")
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
    urls: tuple[str, ...],
    out: Path | None,
    as_json: bool,
    quiet: bool,
    dry_run: bool,
    device: str | None,
    **flags: Any,
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

    request = request_of(urls, flags, device)
    if dry_run:
        return _show_expected(request, as_json=as_json)
    path = out or _default_path(request)
    status = None if quiet else Console(stderr=True, highlight=False)
    interrupted = False
    try:
        with _beside(device) as beside:
            if status is None:
                Load(request, None, beside).run(path)
            else:
                with status.status("asking the server what it understands") as line:
                    Load(request, lambda stage: line.update(_words(stage)), beside).run(path)
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


@contextmanager
def _beside(selector: str | None) -> Iterator[Beside | None]:
    """Yield what looks at the device that the server is said to run on."""
    if selector is None:
        yield None
        return
    from profiler.backends.discover import discover, select_device
    from profiler.measure.served_watch import BesideLoad

    (device,) = select_device([selector], discover())
    with BesideLoad(device) as beside:
        yield beside


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
        return {
            "asking": "asking the server what it understands",
            "client": "measuring the client",
            "checking": "looking at the server's answers",
        }[stage.name]
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
