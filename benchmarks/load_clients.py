"""Load clients against a server of known truth: what they report, what was true, and what they cost.

    python benchmarks/load_clients.py [--streams 1,50,200,500,1000,2000] [--aiperf PROGRAM] [--no-odd]

TTFT 50 ms, 10 ms per token, 100 tokens, closed loop, four requests per stream, all streams at once, on
loopback: server and client share the machine. The server (truth_server.c; truth_server.py without a C
compiler and for the odd streams, at ten streams each) is started afresh for each row and stamps its own
writes. "of ideal" is the token rate against streams * 100 / 1.04 s; "server late" says by how much the
server missed its own schedule: where it is large, the machine was too small for both. "CPU us/chunk" is
the client's processor time, that of the kernel on its behalf included, per chunk received: it says more
than cores on a busy machine.

Other clients run where an option names their program or PATH has it, and are left out with a line
otherwise; for them processor time counts while requests are on their way.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import truth
from load_peers import PEERS, Load, Peer, PeerError

from profiler.load import latency
from profiler.load.endpoint import Api, parse_endpoint
from profiler.load.fleet import run_job
from profiler.load.job import Job, LoopKind
from profiler.load.prompts import Features, PromptSpec

TOKENS, PROMPT_TOKENS, PER_STREAM = 100, 16, 4
IDEAL_S = 0.05 + 0.01 * (TOKENS - 1)
ODD: tuple[tuple[str, Api], ...] = (
    ("per4", "completions"), ("role", "chat"), ("empty", "completions"),
    ("comments", "completions"), ("utf8", "completions"), ("no-done", "completions"),
)  # fmt: skip
HEADINGS = (
    "client", "streams", "ok", "TTFT ms", "truth", "error %", "p99 ms", "truth", "error %", "TPOT ms",
    "truth", "of ideal %", "cores", "CPU us/chunk", "loop lag p99 ms", "server late p99 ms",
)  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """What a client found, in milliseconds, and its own cost; None where it does not say."""

    ok: str
    ttft_mean: float | None
    ttft_p99: float | None
    tpot_mean: float | None
    cores: float | None
    cpu_us_per_chunk: float | None
    lag_p99: float | None = None


def row(name: str, streams: int, seen: Seen, true: truth.Truth) -> list[str]:
    ttft, ttft_p99 = true.ttft_s.mean() * 1e3, np.quantile(true.ttft_s, 0.99) * 1e3

    def error(value: float | None, truly: float) -> str:
        return "-" if value is None else f"{100 * (value / truly - 1):+.1f}"

    def number(value: float | None, digits: int = 1) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    late = None if true.late_p99_s is None else true.late_p99_s * 1e3
    share = 100 * true.tokens / true.span_s / (streams * TOKENS / IDEAL_S)
    return [
        name, str(streams), seen.ok, number(seen.ttft_mean), number(ttft), error(seen.ttft_mean, ttft),
        number(seen.ttft_p99), number(ttft_p99), error(seen.ttft_p99, ttft_p99), number(seen.tpot_mean, 2),
        number(true.tpot_s.mean() * 1e3, 2), number(share), number(seen.cores, 2),
        number(seen.cpu_us_per_chunk), number(seen.lag_p99), number(late),
    ]  # fmt: skip


def ours(
    server: Sequence[str], loop: LoopKind, streams: int, model: str = "plain", api: Api = "completions"
) -> list[str]:
    with truth.serving(server) as port:
        job = Job(
            endpoints=(parse_endpoint(f"http://127.0.0.1:{port}"),),
            api=api,
            model=model,
            prompts=PromptSpec("load-clients", 0),
            features=Features(),
            prompt_tokens=np.array([PROMPT_TOKENS]),
            output_tokens=np.array([TOKENS]),
            concurrency=streams,
            count=streams * PER_STREAM,
            loop=loop,
        )
        requests, vitals, _ = run_job(job, processes=1 if streams <= 500 else 2)
        true = truth.truth(port)
    ttft = latency.ttft_s(requests)
    ttft = ttft[np.isfinite(ttft)] * 1e3
    cpu_s = sum(one.cpu_s for one in vitals)
    seen = Seen(
        ok=f"{int(requests.ok.sum())}/{streams * PER_STREAM}",
        ttft_mean=float(ttft.mean()),
        ttft_p99=float(np.quantile(ttft, 0.99)),
        tpot_mean=float(np.nanmean(latency.tpot_s(requests))) * 1e3,
        cores=sum(one.cpu_s / one.wall_s for one in vitals),
        cpu_us_per_chunk=1e6 * cpu_s / int(requests["chunks"].sum()),
        lag_p99=float(np.quantile(np.concatenate([np.array(one.lag_s) for one in vitals]), 0.99)) * 1e3,
    )
    name = f"aiprof, {vitals[0].loop}" + (f", {len(vitals)} processes" if len(vitals) > 1 else "")
    return row(name if model == "plain" else f"{name}: {model}", streams, seen, true)


def theirs(server: Sequence[str], peer: Peer, program: str, streams: int) -> list[str]:
    load = Load(streams, streams * PER_STREAM, PROMPT_TOKENS, TOKENS)
    with truth.serving(server) as port:
        try:
            found = peer.run(program, load, port)
        except PeerError as error:
            return [peer.name, str(streams), str(error), *["-"] * (len(HEADINGS) - 3)]
        true = truth.truth(port)
    seen = Seen(
        ok="-" if found.ok is None else f"{found.ok}/{load.requests}",
        ttft_mean=found.ttft_mean_ms,
        ttft_p99=found.ttft_p99_ms,
        tpot_mean=found.tpot_mean_ms,
        cores=found.cores,
        cpu_us_per_chunk=None if found.cpu_s is None else 1e6 * found.cpu_s / true.tokens,
    )
    return row(peer.name, streams, seen, true)


def show(cells: list[str]) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Load clients against a server of known truth.")
    parser.add_argument("--streams", default="1,50,200,500,1000,2000")
    parser.add_argument("--peer-streams", default="50,500", help="for the other clients")
    parser.add_argument("--no-odd", action="store_true", help="leave out the odd streams")
    for peer in PEERS:
        parser.add_argument(
            f"--{peer.option.replace('_', '-')}", metavar="PROGRAM", help=f"{peer.name} (default: on PATH)"
        )
    given = parser.parse_args()
    loops: list[LoopKind] = ["asyncio"]
    if importlib.util.find_spec("uvloop"):
        loops.append("uvloop")
    print("| " + " | ".join(HEADINGS) + " |\n|" + "---|" * len(HEADINGS))
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(truth.compiled()) or truth.IN_PYTHON
        for loop in loops:
            for number in filter(None, given.streams.split(",")):
                show(ours(server, loop, int(number)))
        for peer in PEERS:
            program = getattr(given, peer.option) or shutil.which(peer.program)
            if program is None:
                print(
                    f"{peer.name}: not on PATH, and no --{peer.option.replace('_', '-')} PROGRAM",
                    file=sys.stderr,
                )
                continue
            for number in filter(None, given.peer_streams.split(",")):
                show(theirs(server, peer, program, int(number)))
    if not given.no_odd:
        for model, api in ODD:
            show(ours(truth.IN_PYTHON, "asyncio", 10, model, api))


if __name__ == "__main__":
    main()
