"""Our ``llamacpp`` engine beside ``llama-bench``, built from the same sources, interleaved in one run.

    python benchmarks/llamacpp.py [--python PYTHON] [--llama-bench PATH] [--rounds 5]
        [--precision bf16 | --model FILE.gguf]

PYTHON (or AIPROF_LLAMACPP_PYTHON) has llama-cpp-python and gguf. Both read the same file, of random weights
(Qwen2.5-0.5B shape) or FILE, with the same threads. ``sampling=none`` is what llama-bench times; ``greedy``
adds choosing the next token. Without PATH it is the one that ``python benchmarks/llamacpp_peer.py`` built, or
that a shell finds.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import random
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import llamacpp_peer

from profiler.engines.process import WorkerProcess
from profiler.models.catalogue import resolve_model
from profiler.models.formats import formats_for

PROMPT, DEPTH, OUTPUT = 512, 128, 64
PREFILLS, DECODES = 3, 8
KV = {"bf16": "bf16", "fp16": "f16", "fp32": "f32"}


def main() -> None:
    arguments = _arguments()
    if not arguments.python or not arguments.llama_bench:
        print("left out: needs --python with llama-cpp-python, and --llama-bench")
        return
    model = resolve_model(arguments.model)
    formats = model.formats or formats_for(arguments.precision)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        rows: dict[str, list[tuple[float, float]]] = {"llama-bench": [], "none": [], "greedy": []}
        for _ in range(arguments.rounds):
            for sampling in ("none", "greedy"):
                rows[sampling].append(_ours(arguments, model, formats, sampling))
            file = model.file or next(Path(cache).glob("aiprof/gguf/*.gguf"))
            rows["llama-bench"].append(_theirs(arguments, file, formats.kv_dtype))
    theirs = [median(values) for values in zip(*rows["llama-bench"], strict=True)]
    print(f"{model.name}, {formats.weight_format}, {arguments.rounds} rounds, medians, tokens/s")
    print(f"{'':24}{'prefill-512':>12}{'ratio':>8}{'decode at 128':>16}{'ratio':>8}")
    for name, values in rows.items():
        prefill, decode = (median(column) for column in zip(*values, strict=True))
        label = name if name == "llama-bench" else f"aiprof, sampling={name}"
        print(f"{label:24}{prefill:12.1f}{prefill / theirs[0]:8.3f}{decode:16.2f}{decode / theirs[1]:8.3f}")


def _ours(arguments: argparse.Namespace, model: Any, formats: Any, sampling: str) -> tuple[float, float]:
    with (
        tempfile.TemporaryDirectory() as folder,
        WorkerProcess(arguments.python, Path(folder) / "worker.log") as worker,
    ):
        worker.request("hello", 120, engine="llamacpp", options={})
        worker.request(
            "load", 600, start=0, architecture=dataclasses.asdict(model.architecture),
            weights=model.real_weights or {"kind": "random", "seed": 0}, device="cpu",
            formats=dataclasses.asdict(formats),
            max_batch=1, max_tokens=1024, options={"threads": arguments.threads, "sampling": sampling},
        )  # fmt: skip

        def run(trial: int, prompt: int, outputs: int) -> dict[str, Any]:
            generator = random.Random(trial)
            prompts = [[generator.randrange(model.architecture.vocab_size) for _ in range(prompt)]]
            return worker.request("run", 600, prompt_ids=prompts, output_tokens=outputs, return_ids=False)

        run(0, PROMPT, 2)
        prompts = [run(trial, PROMPT, 1) for trial in range(1, PREFILLS + 1)]
        outputs = [run(-trial, DEPTH, OUTPUT + 1) for trial in range(1, DECODES + 1)]
    prefill = [PROMPT / ((one["first_token_ns"] - one["submit_ns"]) * 1e-9) for one in prompts]
    decode = [OUTPUT / ((one["last_token_ns"] - one["first_token_ns"]) * 1e-9) for one in outputs]
    return median(prefill), median(decode)


def _theirs(arguments: argparse.Namespace, file: Path, kv_dtype: str) -> tuple[float, float]:
    def bench(prompt: int, output: int, repeats: int) -> float:
        return llamacpp_peer.bench(
            file, arguments.threads, prompt=prompt, output=output,
            kv_type=KV[kv_dtype], repeats=repeats, tool=arguments.llama_bench,
        )  # fmt: skip

    return bench(PROMPT, 0, PREFILLS), bench(DEPTH, OUTPUT, DECODES)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--python", default=os.environ.get("AIPROF_LLAMACPP_PYTHON"))
    parser.add_argument("--llama-bench", default=llamacpp_peer.found("llama-bench"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--model", default="qwen2.5-0.5b", help="a name of the catalogue, or a GGUF file")
    parser.add_argument("--precision", default="bf16", help="of random weights")
    return parser.parse_args()


if __name__ == "__main__":
    main()
