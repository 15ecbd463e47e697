"""The torch engine beside llama.cpp and transformers: the same shape, interleaved, as Markdown.

    python benchmarks/engines.py --build     # build llama.cpp first (ten minutes, once)
    python benchmarks/engines.py             # the table of docs/measured, about five minutes
    python benchmarks/engines.py --rounds 1  # the same, coarser

Every round runs each row once, after a probe of the read bandwidth, so that a busy minute of the box
hits all of them. Ratios are medians over rounds of the ratio within a round.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import llamacpp_peer

from profiler.engines.process import WorkerProcess
from profiler.models.accounting import decode_step_bytes
from profiler.models.architecture import Architecture
from profiler.models.catalogue import catalogue
from profiler.models.formats import formats_for
from profiler.worker.threads import default_threads

SMALL: Final = "qwen2.5-0.5b"
LARGE: Final = "qwen2.5-1.5b"
FORMATS: Final = {"weight_format": "bf16", "compute_dtype": "bf16", "kv_dtype": "bf16"}
SEED: Final = 1
TIMEOUT_S: Final = 600.0


@dataclass(frozen=True)
class Work:
    """``batch`` sequences of ``prompt`` tokens, continued by ``output``; what counts is decode or prefill."""

    prompt: int
    output: int
    batch: int = 1

    @property
    def name(self) -> str:
        """What the table says."""
        if self.output == 1:
            return f"prefill {self.prompt}"
        return f"decode {self.output} behind {self.prompt}, batch {self.batch}"


DECODE, BATCH, PREFILL, SHORT = Work(128, 128), Work(128, 128, 8), Work(512, 1), Work(32, 1)


@dataclass
class Row:
    """One engine at one piece of work; ``measure`` returns tokens/s."""

    model: str
    work: Work
    engine: str
    measure: Callable[[], float]
    tokens_per_s: list[float] = field(default_factory=list)
    bandwidth: list[float] = field(default_factory=list)


class Ours:
    """A worker with the torch engine and one model, loaded for one piece of work."""

    def __init__(self, stack: ExitStack, arch: Architecture, work: Work, options: dict[str, Any]) -> None:
        log = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "worker.log"
        self.worker = stack.enter_context(WorkerProcess(sys.executable, log))
        self._work, self._vocabulary = work, arch.vocab_size
        self.name = f"{work.name}, {arch.layers} layers of {arch.hidden_size}, {options}"
        self.worker.request("hello", TIMEOUT_S, engine="torch", options=options)
        began = time.perf_counter()
        self.loaded = self.worker.request(
            "load", TIMEOUT_S, start=0, architecture=asdict(arch), weights={"kind": "random", "seed": SEED},
            device="cpu", formats=FORMATS, max_batch=work.batch, max_tokens=work.prompt + work.output,
            prompt_tokens=work.prompt, output_tokens=work.output, options=options,
        )  # fmt: skip
        self.load_s = time.perf_counter() - began
        self.tokens_per_s()  # warm up
        print(f"loaded for {work.name} {options} in {self.load_s:.1f} s", file=sys.stderr, flush=True)

    def tokens_per_s(self) -> float:
        """Run one trial."""
        work = self._work
        prompts = [
            [random.randrange(self._vocabulary) for _ in range(work.prompt)] for _ in range(work.batch)
        ]
        run = self.worker.request("run", TIMEOUT_S, prompt_ids=prompts, output_tokens=work.output)
        if work.output == 1:
            return float(work.batch * work.prompt * 1e9 / (run["first_token_ns"] - run["submit_ns"]))
        steps = work.batch * (work.output - 1)
        return float(steps * 1e9 / (run["last_token_ns"] - run["first_token_ns"]))

    def bandwidth(self) -> float:
        """The probe that brackets every case of a sweep, in bytes/s."""
        request: dict[str, Any] = {"kind": "read_bandwidth", "device": "cpu", "bytes": 1 << 29, "repeats": 3}
        return float(max(self.worker.request("probe", TIMEOUT_S, **request)["bytes_per_s"]))


class Generate:
    """transformers in a process of its own."""

    def __init__(self, stack: ExitStack, arch: Architecture, threads: int) -> None:
        script = Path(__file__).with_name("transformers_generate.py")
        command = [sys.executable, str(script), json.dumps(asdict(arch)), str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        stack.callback(self._process.kill)
        while (line := self._answer()) != "ready\n":
            if not line:
                raise SystemExit("transformers did not start; install the extra `test`")

    def tokens_per_s(self, work: Work) -> float:
        """Generate once with one token and once with all of them."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(work)) + "\n")
        self._process.stdin.flush()
        seconds = json.loads(self._answer())
        if work.output == 1:
            return float(work.batch * work.prompt / seconds["prefill_s"])
        return float(work.batch * (work.output - 1) / seconds["decode_s"])

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def rows_of(stack: ExitStack, threads: int) -> tuple[list[Row], list[Ours]]:
    """Load everything; llama.cpp is a process for each measurement, as its benchmarks are."""
    entries = catalogue()
    small, large = entries[SMALL].architecture, entries[LARGE].architecture
    rows, ours = [], []

    def add(model: str, arch: Architecture, work: Work, engine: str, **options: Any) -> None:
        loaded = Ours(stack, arch, work, {"threads": threads, **options})
        ours.append(loaded)
        rows.append(Row(model, work, engine, loaded.tokens_per_s))

    generate = Generate(stack, small, threads)
    built = not llamacpp_peer.missing_tools()
    model = llamacpp_peer.write_model(SMALL, small, SEED) if built else None
    for work in (DECODE, BATCH, PREFILL, SHORT):
        add(SMALL, small, work, "torch")
        if work == DECODE:
            add(SMALL, small, work, "torch, no compiler", linear="packed")
        rows.append(Row(SMALL, work, "transformers", lambda work=work: generate.tokens_per_s(work)))  # type: ignore[misc]
        if model is not None:
            asked = {
                "prompt": work.prompt,
                "output": work.output if work.output > 1 else 0,
                "batch": work.batch,
            }
            rows.append(Row(SMALL, work, "llama.cpp",
                lambda asked=asked: llamacpp_peer.tokens_per_s(model, threads, **asked)))  # type: ignore[misc]  # fmt: skip
    add(LARGE, large, DECODE, "torch")
    return rows, ours


def ratio(rows: list[Row], work: Work, engine: str, other: str) -> float | None:
    """Median over rounds of how many times faster ``engine`` was than ``other``."""
    by_engine = {row.engine: row for row in rows if row.work == work and row.model == SMALL}
    if engine not in by_engine or other not in by_engine:
        return None
    pairs = zip(by_engine[engine].tokens_per_s, by_engine[other].tokens_per_s, strict=True)
    return median(ours / theirs for ours, theirs in pairs)


TARGETS: Final = (
    (DECODE, "torch, no compiler", "llama.cpp", 0.8, None),
    (DECODE, "torch", "llama.cpp", 0.95, 1.0),
    (DECODE, "torch", "transformers", 1.6, 1.9),
    (BATCH, "torch", "llama.cpp", 0.9, 1.3),
    (PREFILL, "torch", "llama.cpp", 1.25, 1.6),
)


def print_targets(rows: list[Row]) -> None:
    print("\n| work | faster than | times | at least | aim |\n|---|---|---|---|---|")
    for work, engine, other, least, aim in TARGETS:
        times = ratio(rows, work, engine, other)
        shown = "not measured" if times is None else f"{times:.2f}"
        print(f"| {work.name}: {engine} | {other} | {shown} | {least} | {aim or ''} |")
    (large,) = [row for row in rows if row.model == LARGE]
    arch = catalogue()[LARGE].architecture
    step = decode_step_bytes(arch, formats_for("bf16"), 1, DECODE.prompt + DECODE.output // 2)
    ceiling = max(reading for row in rows for reading in row.bandwidth)
    beside = median(
        speed * (step.weights_read + step.kv_read + step.kv_written) / probe
        for speed, probe in zip(large.tokens_per_s, large.bandwidth, strict=True)
    )
    best = max(large.tokens_per_s) * (step.weights_read + step.kv_read + step.kv_written) / ceiling
    print(f"\nDecode MBU of {LARGE}, batch 1: {100 * beside:.0f}% of the probe beside it (median), "
          f"{100 * best:.0f}% of the run's best reading (best). At least 70%, aim 88%.")  # fmt: skip


def print_loads(ours: list[Ours]) -> None:
    """Print what was loaded, in which time: weights, cache, and the choice of kernels by measurement."""
    print("\n| torch engine loaded for | seconds | decode | prompts | whole parts of prompts |")
    print("|---|---|---|---|---|")
    for one in ours:
        details = one.loaded["details"]
        kernels = [{entry[name] for entry in details["kernels"]} for name in ("chosen", "prompt_kernel")]
        named = " | ".join(", ".join(sorted(names)) for names in kernels)
        print(f"| {one.name} | {one.load_s:.1f} | {named} | {details['fused_prompts']} |")
    print("\nSeconds of the load call; 5 s at least, aim 2 s, for the 0.5B model.")


def write(path: Path | None, rows: list[Row]) -> None:
    """Write every figure so far, where a file was asked for."""
    if path is None:
        return
    kept = [
        {
            "model": row.model,
            "work": asdict(row.work),
            "engine": row.engine,
            "tokens_per_s": row.tokens_per_s,
            "read_bytes_per_s": row.bandwidth,
        }
        for row in rows
    ]
    path.write_text(json.dumps(kept, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--build", action="store_true", help="build llama.cpp into the cache if it is not there"
    )
    parser.add_argument("--json", type=Path, help="write every figure here too")
    arguments = parser.parse_args()
    if arguments.build:
        llamacpp_peer.build()
    if llamacpp_peer.missing_tools():
        print("llama.cpp is not built (--build); its rows are left out\n")
    threads = default_threads()
    with ExitStack() as stack:
        rows, ours = rows_of(stack, threads)
        for _ in range(arguments.rounds):
            for row in rows:
                row.bandwidth.append(ours[0].bandwidth())
                row.tokens_per_s.append(row.measure())
                print(
                    f"{row.work.name}, {row.engine}: {row.tokens_per_s[-1]:.1f}", file=sys.stderr, flush=True
                )
            write(arguments.json, rows)  # a run that is cut off keeps its rounds
    print(f"bf16, {threads} threads, {arguments.rounds} rounds\n")
    print("| model | work | engine | tokens/s (median) | least | most | read bandwidth beside, GB/s |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        speeds = row.tokens_per_s
        print(f"| {row.model} | {row.work.name} | {row.engine} | {median(speeds):.1f} | {min(speeds):.1f} "
              f"| {max(speeds):.1f} | {median(row.bandwidth) / 1e9:.1f} |")  # fmt: skip
    print_targets(rows)
    print_loads(ours)


if __name__ == "__main__":
    main()
