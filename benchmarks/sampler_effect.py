"""What sampling does to what is measured: decode tokens/s with the sampler running against stopped.

One worker decodes the same work all the time. The sampler reads counters of a made-up powercap tree a
hundred times per second; in every other block it is halted (SIGSTOP). Pairs of blocks are on, off and off,
on by turns; each gives one ratio. A shared host moves the memory bandwidth by tens of per cent within
seconds, so blocks are short (both of a pair see nearly the same host) and pairs many. The centre is the
median of all means of two pairs (Hodges and Lehmann 1963) with the interval of Wilcoxon's signed ranks,
which a pair that straddles such a move cannot shift far. ``--append FILE`` adds the pairs of a run to
those of earlier ones and judges all of them, so that it can be run in pieces.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import NormalDist, median, quantiles
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


# The shape of SmolLM2-135M: loaded in a moment, and still bound by memory bandwidth.
CONFIG = {
    "model_type": "llama",
    "vocab_size": 49_152,
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100_000.0,
    "max_position_embeddings": 8192,
}


class Decoder:
    """A worker with a loaded model that decodes."""

    def __init__(self, worker: Any, folder: Path, prompt: int, output: int, threads: int) -> None:
        from profiler.models.catalogue import resolve_model

        (folder / "config.json").write_text(json.dumps(CONFIG))
        architecture = resolve_model(str(folder), False).architecture
        options = {"threads": threads} if threads else {}
        worker.request("hello", 180.0, engine="torch", options=options)
        formats = {"weight_format": "bf16", "compute_dtype": "bf16", "kv_dtype": "bf16"}
        worker.request(
            "load", 300.0, start=0, architecture=asdict(architecture), weights={"kind": "random", "seed": 0},
            device="cpu", formats=formats, max_batch=1, max_tokens=prompt + output, options=options,
        )  # fmt: skip
        self._worker, self._prompt, self._output = worker, prompt, output
        self._vocabulary = architecture.vocab_size
        self._runs = 0
        self.tokens = 0  # decoded in the last block

    def block(self, seconds: float, after: Callable[[dict[str, Any]], None] | None = None) -> float:
        """Decode for about so long; return tokens per second of the decode windows.

        Args:
            seconds: of decoding.
            after: called with the worker's stamps after each batch of requests.
        """
        from profiler.workload.token_ids import token_ids

        tokens, nanoseconds = 0, 0
        self.tokens = 0
        while nanoseconds < seconds * 1e9:
            self._runs += 1
            ids = token_ids("effect", 0, 0, self._runs, 0, self._prompt, self._vocabulary)
            done = self._worker.request(
                "run", 300.0, prompt_ids=[ids], output_tokens=self._output, return_ids=False
            )
            if after is not None:
                after(done)
            tokens += self._output - 1
            self.tokens = tokens
            nanoseconds += done["last_token_ns"] - done["first_token_ns"]
        return tokens / (nanoseconds * 1e-9)


def measure(arguments: argparse.Namespace) -> list[float]:
    """Return the logarithm of on over off for each pair."""
    from machines import write, zone

    from profiler.engines.process import WorkerProcess
    from profiler.sensors.rapl_sensors import RaplSensors
    from profiler.sensors.sampler import Sampler

    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "root"
        for at in range(arguments.counters):
            write(root, zone(f"intel-rapl:{at}", f"package-{at}", 5_000_000))
        source = RaplSensors(str(root))
        sensors = [info for info in source.probe() if info.unavailable is None]
        with (
            WorkerProcess(sys.executable, Path(name) / "worker.log") as worker,
            Sampler(sensors, {"rapl": source.options()}) as sampler,
        ):
            assert sampler.pid is not None
            decoder = Decoder(worker, Path(name), 32, arguments.tokens, arguments.threads)
            decoder.block(5.0)
            logs = []
            for pair in range(arguments.pairs):
                speeds = {}
                for on in (True, False) if pair % 2 == 0 else (False, True):
                    os.kill(sampler.pid, signal.SIGCONT if on else signal.SIGSTOP)
                    time.sleep(0.02)
                    speeds[on] = decoder.block(arguments.seconds)
                logs.append(math.log(speeds[True] / speeds[False]))
            os.kill(sampler.pid, signal.SIGCONT)
    return logs


def centre(values: list[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Return the Hodges-Lehmann estimate of the centre with its interval by signed ranks.

    The ends are the Walsh averages (means of two values, each with itself too) at the ranks that the normal
    approximation of Wilcoxon's statistic leaves outside, good from about 20 values.
    """
    n = len(values)
    averages = sorted((values[i] + values[j]) / 2 for i in range(n) for j in range(i, n))
    deviation = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    outside = n * (n + 1) / 4 - NormalDist().inv_cdf(0.5 + confidence / 2) * deviation
    rank = max(0, math.floor(outside))
    return median(averages), averages[rank], averages[len(averages) - 1 - rank]


def spread(values: list[float]) -> float:
    """Return the distance between the quartiles."""
    first, _, third = quantiles(values, n=4)
    return third - first


def main() -> None:
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    parser = argparse.ArgumentParser(description="Effect of the sampler on decode tokens/s.")
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=0.15, help="of each block")
    parser.add_argument("--counters", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=0, help="of the worker; by default what it chooses")
    parser.add_argument("--append", type=Path, help="file of earlier pairs, to add to and to judge with")
    arguments = parser.parse_args()
    logs = measure(arguments)
    if arguments.append:
        before = json.loads(arguments.append.read_text()) if arguments.append.exists() else []
        logs = before + logs
        arguments.append.write_text(json.dumps(logs))
    middle, low, high = centre(logs)
    slower = [100 * (1 - math.exp(value)) for value in (middle, high, low)]
    print("| pairs | half of the pairs within % | slower with the sampler % | 95% interval | aim |")
    print("|---:|---:|---:|---:|---:|")
    print(f"| {len(logs)} | {100 * spread(logs):.2f} | {slower[0]:.2f} | {slower[1]:.2f} to {slower[2]:.2f} "
          "| upper end below 2 |")  # fmt: skip


if __name__ == "__main__":
    main()
