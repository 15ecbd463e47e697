"""Load clients against a server of known truth: what they report, what was true, and what they cost.

    python benchmarks/load_clients.py [--streams 1,50,200,500,1000,2000] [--aiperf PYTHON]

TTFT 50 ms, 10 ms per token, 100 tokens, closed loop, four requests per stream, all streams at once, on
loopback: server and client share the machine. The server (truth_server.py) is started afresh for each
row and stamps its own writes. "of ideal" is the token rate against streams * 100 / 1.04 s. The last
rows are the odd streams, at ten streams. AIPerf is run where an interpreter that has it is given.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from profiler.load import latency
from profiler.load.endpoint import Api, parse_endpoint
from profiler.load.fleet import run_job
from profiler.load.job import Job, LoopKind
from profiler.load.prompts import Features, PromptSpec

TOKENS, PER_STREAM = 100, 4
IDEAL_S = 0.05 + 0.01 * (TOKENS - 1)
HEADINGS = (
    "client", "streams", "ok", "TTFT ms", "truth", "error %", "p99 ms", "truth", "error %",
    "TPOT ms", "truth", "of ideal %", "cores", "loop lag p99 ms",
)  # fmt: skip


@contextlib.contextmanager
def truth_server() -> Iterator[int]:
    command = [sys.executable, str(Path(__file__).with_name("truth_server.py"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield int(server.stdout.readline())
        finally:
            server.kill()


def ask(port: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        return json.load(answer)


def row(
    name: str, streams: int, ok: str, found: dict[str, float | None], truth: Any, span_s: float
) -> list[str]:
    ttft, tpot = np.array(truth["ttft_s"]) * 1e3, np.array(truth["tpot_s"]) * 1e3
    true = {"mean": float(ttft.mean()), "p99": float(np.quantile(ttft, 0.99)), "tpot": float(tpot.mean())}

    def error(key: str) -> str:
        value = found[key]
        return "-" if value is None else f"{100 * (value / true[key] - 1):+.1f}"

    def number(value: float | None, digits: int = 1) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    share = 100 * truth["tokens"] / span_s / (streams * TOKENS / IDEAL_S)
    return [
        name, str(streams), ok, number(found["mean"]), number(true["mean"]), error("mean"),
        number(found["p99"]), number(true["p99"]), error("p99"), number(found["tpot"], 2),
        number(true["tpot"], 2), number(share), number(found["cores"], 2), number(found["lag"]),
    ]  # fmt: skip


def ours(loop: LoopKind, streams: int, model: str = "plain", api: Api = "completions") -> list[str]:
    with truth_server() as port:
        job = Job(
            endpoints=(parse_endpoint(f"http://127.0.0.1:{port}"),),
            api=api,
            model=model,
            prompts=PromptSpec("load-clients", 0),
            features=Features(),
            prompt_tokens=np.array([16]),
            output_tokens=np.array([TOKENS]),
            concurrency=streams,
            count=streams * PER_STREAM,
            loop=loop,
        )
        processes = 1 if streams <= 500 else 2
        requests, vitals, _ = run_job(job, processes=processes)
        truth = ask(port, "/truth")
    ttft = latency.ttft_s(requests)
    ttft = ttft[np.isfinite(ttft)] * 1e3
    lags = np.concatenate([np.array(one.lag_s) for one in vitals])
    found: dict[str, float | None] = {
        "mean": float(ttft.mean()),
        "p99": float(np.quantile(ttft, 0.99)),
        "tpot": float(np.nanmean(latency.tpot_s(requests))) * 1e3,
        "cores": sum(one.cpu_s / one.wall_s for one in vitals),
        "lag": float(np.quantile(lags, 0.99)) * 1e3,
    }
    ok = f"{int(requests.ok.sum())}/{streams * PER_STREAM}"
    name = f"aiprof, {vitals[0].loop}" + (f", {len(vitals)} processes" if len(vitals) > 1 else "")
    return row(name if model == "plain" else f"{name}: {model}", streams, ok, found, truth, truth["span_s"])


def aiperf(python: str, streams: int, tokenizer: str) -> list[str]:
    with truth_server() as port, tempfile.TemporaryDirectory() as folder:
        count = streams * PER_STREAM
        command = [
            str(Path(python).with_name("aiperf")), "profile", "--model", "plain",
            "--url", f"http://127.0.0.1:{port}", "--endpoint-type", "completions", "--streaming",
            "--tokenizer", tokenizer, "--concurrency", str(streams), "--request-count", str(count),
            "--synthetic-input-tokens-mean", "16", "--output-tokens-mean", str(TOKENS),
            "--extra-inputs", "ignore_eos:true", "--ui", "none", "--artifact-dir", folder,
        ]  # fmt: skip
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        busy = _cores(child, port)
        reports = sorted(Path(folder).rglob("profile_export_aiperf.json"))
        if child.returncode or not reports:
            return ["AIPerf", str(streams), f"exit code {child.returncode}"]
        report = json.loads(reports[0].read_text())
        truth = ask(port, "/truth")
    found: dict[str, float | None] = {
        "mean": report["time_to_first_token"]["avg"],
        "p99": report["time_to_first_token"]["p99"],
        "tpot": report["inter_token_latency"]["avg"],
        "cores": busy,
        "lag": None,
    }
    ok = f"{int(report['request_count']['avg'])}/{count}"
    return row("AIPerf", streams, ok, found, truth, truth["span_s"])


def _cores(child: subprocess.Popen[bytes], port: int) -> float | None:
    """Return the mean cores of a process tree while requests are on their way."""
    tree = psutil.Process(child.pid)
    seen: list[tuple[float, float]] = []
    while child.poll() is None:
        total = 0.0
        with contextlib.suppress(psutil.Error):
            for one in (tree, *tree.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    times = one.cpu_times()
                    total += times.user + times.system
        if ask(port, "/active")["active"]:
            seen.append((time.monotonic(), total))
        time.sleep(0.25)
    if len(seen) < 2:
        return None
    return (seen[-1][1] - seen[0][1]) / (seen[-1][0] - seen[0][0])


def byte_tokenizer(folder: Path, python: str) -> str:
    """Write a tokenizer of single bytes with the peer's own library: no download."""
    script = (
        "import sys, json; from tokenizers import Tokenizer, models, pre_tokenizers, decoders;"
        "alphabet = sorted(pre_tokenizers.ByteLevel.alphabet());"
        "t = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(['</s>', *alphabet])}, merges=[]));"
        "t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False);"
        "t.decoder = decoders.ByteLevel(); t.save(sys.argv[1] + '/tokenizer.json');"
        "json.dump({'tokenizer_class': 'PreTrainedTokenizerFast', 'eos_token': '</s>',"
        " 'bos_token': '</s>'}, open(sys.argv[1] + '/tokenizer_config.json', 'w'))"
    )
    subprocess.run([python, "-c", script, str(folder)], check=True)
    return str(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="Load clients against a server of known truth.")
    parser.add_argument("--streams", default="1,50,200,500,1000,2000")
    parser.add_argument("--aiperf", help="interpreter of an environment that has AIPerf")
    parser.add_argument("--no-odd", action="store_true", help="leave out the odd streams")
    given = parser.parse_args()
    streams = [int(one) for one in given.streams.split(",")]
    print("| " + " | ".join(HEADINGS) + " |\n|" + "---|" * len(HEADINGS))

    def show(cells: list[str]) -> None:
        print("| " + " | ".join(cells) + " |", flush=True)

    loops: list[LoopKind] = ["asyncio"]
    if importlib.util.find_spec("uvloop"):
        loops.append("uvloop")
    for loop in loops:
        for number in streams:
            show(ours(loop, number))
    if given.aiperf:
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = byte_tokenizer(Path(folder), given.aiperf)
            for number in (one for one in streams if one <= 500):
                show(aiperf(given.aiperf, number, tokenizer))
    if not given.no_odd:
        odd: list[tuple[str, Api]] = [
            ("per4", "completions"), ("role", "chat"), ("empty", "completions"),
            ("comments", "completions"), ("utf8", "completions"), ("no-done", "completions"),
        ]  # fmt: skip
        for model, api in odd:
            show(ours("asyncio", 10, model, api))


if __name__ == "__main__":
    main()
