"""Does the way through worker process and protocol cost anything? aiprof against timing by hand.

The same engine class runs twice: in a worker process, asked through the protocol and timed by the
stamps in its answers (what a sweep does), and in this process, with a ``perf_counter`` round the
prefill call and round each decode call. Both stay loaded and take turns (ABAB, the other one idle), in one
sitting, with the same threads and the same prompts. The ratio should be 1 within the spread.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from profiler.engines.process import WorkerProcess
from profiler.models.catalogue import catalogue
from profiler.worker.torch_engine import TorchEngine

MODEL = "qwen2.5-0.5b"
# decode-128 at the lengths of the quick preset.
PROMPT_TOKENS, OUTPUT_TOKENS = 32, 32
WARM_UP_ROUNDS = 2
# PyTorch's threads spin for a while after their last task; the other side must not feel it.
PAUSE_S = 0.3
Times = dict[str, float]


def load_request(architecture: dict[str, Any], threads: int) -> dict[str, Any]:
    return {
        "architecture": architecture,
        "weights": {"kind": "random", "seed": 0},
        "device": "cpu",
        "formats": {"weight_format": "bf16", "compute_dtype": "bf16", "kv_dtype": "bf16"},
        "max_batch": 1,
        "max_tokens": PROMPT_TOKENS + OUTPUT_TOKENS,
        "options": {"threads": threads},
    }


def through_the_worker(worker: WorkerProcess, prompt: list[int]) -> tuple[Times, list[int]]:
    run = worker.request(
        "run", timeout_s=600.0, prompt_ids=[prompt], output_tokens=OUTPUT_TOKENS, return_ids=True
    )
    prefill_s = (run["first_token_ns"] - run["submit_ns"]) / 1e9
    decode_s = (run["last_token_ns"] - run["first_token_ns"]) / 1e9
    return rates(prefill_s, decode_s), run["output_ids"][0]


def by_hand(model: Any, prompt: list[int]) -> tuple[Times, list[int]]:
    tokens, decode_s = [], 0.0
    with torch.inference_mode():
        start = time.perf_counter()
        token = model.step(torch.tensor([prompt]), 0)
        tokens.append(token.item())
        prefill_s = time.perf_counter() - start
        for position in range(PROMPT_TOKENS, PROMPT_TOKENS + OUTPUT_TOKENS - 1):
            start = time.perf_counter()
            token = model.step(token, position)
            tokens.append(token.item())
            decode_s += time.perf_counter() - start
    return rates(prefill_s, decode_s), tokens


def rates(prefill_s: float, decode_s: float) -> Times:
    return {
        "prefill_tokens_per_s": PROMPT_TOKENS / prefill_s,
        "decode_tokens_per_s": (OUTPUT_TOKENS - 1) / decode_s,
    }


def measure(rounds: int, threads: int, log: Path) -> tuple[list[Times], list[Times]]:
    """Return the rates of (worker, by hand), one entry per round."""
    architecture = catalogue()[MODEL].architecture
    request = load_request(dataclasses.asdict(architecture), threads)
    prompts = random.Random(0)
    worker_rates, hand_rates = [], []
    engine = TorchEngine()
    engine.load(request)
    with WorkerProcess(sys.executable, log) as worker:
        worker.request("hello", timeout_s=120.0, engine="torch")
        worker.request("load", timeout_s=600.0, **request)
        for number in range(-WARM_UP_ROUNDS, rounds):
            prompt = [prompts.randrange(architecture.vocab_size) for _ in range(PROMPT_TOKENS)]
            time.sleep(PAUSE_S)
            worker_rate, worker_ids = through_the_worker(worker, prompt)
            time.sleep(PAUSE_S)
            hand_rate, hand_ids = by_hand(engine._model, prompt)
            if worker_ids != hand_ids:
                raise SystemExit("the two sides computed different tokens: this compares nothing")
            if number >= 0:
                worker_rates.append(worker_rate)
                hand_rates.append(hand_rate)
    return worker_rates, hand_rates


def table(worker_rates: list[Times], hand_rates: list[Times], threads: int) -> Table:
    shown = Table(
        title=f"{MODEL} bf16, {PROMPT_TOKENS}/{OUTPUT_TOKENS}, batch 1, {threads} threads, on the CPU"
    )
    for heading in ("metric", "aiprof", "by hand", "ratio", "ratio per round, 10th to 90th percentile", "n"):
        shown.add_column(heading, justify="left" if heading == "metric" else "right")
    for metric in worker_rates[0]:
        ours, theirs = [rate[metric] for rate in worker_rates], [rate[metric] for rate in hand_rates]
        deciles = statistics.quantiles([a / b for a, b in zip(ours, theirs, strict=True)], n=10)
        ratio = statistics.median(ours) / statistics.median(theirs)
        shown.add_row(
            metric,
            f"{statistics.median(ours):.2f}",
            f"{statistics.median(theirs):.2f}",
            f"{ratio:.3f}",
            f"{deciles[0]:.3f} to {deciles[-1]:.3f}",
            str(len(ours)),
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=20, help="pairs of trials (at least 2; default 20)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        worker_rates, hand_rates = measure(max(2, given.rounds), given.threads, Path(folder) / "worker.log")
    Console().print(table(worker_rates, hand_rates, given.threads))


if __name__ == "__main__":
    main()
