"""The torch engine on a GPU: decode eager, captured and compiled against the measured bandwidth, and checks.

    benchmarks/gpu_check.sh out                                          # on a box with a GPU
    python benchmarks/gpu_check.py --device cpu --models qwen2.5-0.5b    # what a CPU can show of it

One part that fails is a line in the table, and the others go on; after --seconds nothing new is begun.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from profiler.models.accounting import decode_step_bytes
from profiler.models.architecture import Architecture
from profiler.models.catalogue import catalogue
from profiler.models.formats import formats_for
from profiler.worker import torch_devices
from profiler.worker.protocol import EngineError
from profiler.worker.torch_engine import TorchEngine

MODELS: Final = ("qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-7b")
MBU_TARGETS: Final = {"qwen2.5-1.5b": 0.6, "qwen2.5-7b": 0.8}
PROMPT, OUTPUT, LONG_PROMPT = 128, 128, 512
TRIALS: Final = 5


class Check:
    """One engine in this process, a deadline, and everything found."""

    def __init__(self, device: str, seconds: float) -> None:
        self.engine, self.device = TorchEngine(), device
        self.deadline = time.monotonic() + seconds
        self.rows: list[dict[str, Any]] = []
        self.found: dict[str, Any] = {"device": device, "engine": self.engine.hello({})["engine"]}

    def part(self, name: str, measure: Callable[[], dict[str, Any]]) -> None:
        """Run one part, keep its row, whatever happens to it."""
        began = time.monotonic()
        if began > self.deadline:
            row: dict[str, Any] = {"result": "not reached in the time given"}
        else:
            try:
                row = measure()
            except Exception as error:  # one part must not take the others along
                row = {"result": f"failed: {type(error).__name__}: {str(error).splitlines()[:1]}"}
        row = {"part": name, **row, "seconds": round(time.monotonic() - began, 1)}
        self.rows.append(row)
        shown = ", ".join(f"{key} {value}" for key, value in row.items() if key not in ("part", "details"))
        print(f"| {name} | {shown} |", flush=True)

    def load(
        self, arch: Architecture, precision: str, tokens: tuple[int, int], **options: Any
    ) -> dict[str, Any]:
        """Load random weights for trials of (prompt, output) tokens."""
        formats = dict.fromkeys(("weight_format", "compute_dtype", "kv_dtype"), precision)
        return self.engine.load(
            {
                "architecture": json.loads(json.dumps(asdict(arch))),
                "weights": {"kind": "random", "seed": 1},
                "device": self.device,
                "formats": formats,
                "max_batch": 1,
                "max_tokens": sum(tokens),
                "prompt_tokens": tokens[0],
                "output_tokens": tokens[1],
                "options": options,
            }
        )

    def run(self, arch: Architecture, prompt: int, output: int) -> dict[str, Any]:
        """Run one trial with new random tokens."""
        ids = [random.randrange(arch.vocab_size) for _ in range(prompt)]
        return self.engine.run({"prompt_ids": [ids], "output_tokens": output})

    def bandwidth(self) -> dict[str, Any]:
        """Measure the read bandwidth that MBU is against."""
        request = {"kind": "read_bandwidth", "device": self.device, "bytes": 1 << 30, "repeats": 5}
        answer = self.engine.probe(request)
        self.found["read_bytes_per_s"] = max(answer["bytes_per_s"])
        return {"GB/s": round(max(answer["bytes_per_s"]) / 1e9, 1), "method": answer["method"]}

    def decode(self, name: str, arch: Architecture, step: str) -> dict[str, Any]:
        """Measure decode with one kind of step."""
        options = {} if step == "eager" and self.device == "cpu" else {"step": step}
        loaded = self.load(arch, "bf16", (PROMPT, OUTPUT), **options)
        self.run(arch, PROMPT, OUTPUT)
        speeds = []
        for _ in range(TRIALS):
            run = self.run(arch, PROMPT, OUTPUT)
            speeds.append((OUTPUT - 1) * 1e9 / (run["last_token_ns"] - run["first_token_ns"]))
        needed = decode_step_bytes(arch, formats_for("bf16"), 1, PROMPT + OUTPUT // 2)
        moved = needed.weights_read + needed.kv_read + needed.kv_written
        mbu = median(speeds) * moved / self.found["read_bytes_per_s"]
        row = {
            "tokens/s": round(median(speeds), 1),
            "MBU": f"{100 * mbu:.0f}%",
            "load_s": round(loaded["load_s"], 2),
            "compile_s": loaded["compile_s"],
            "details": loaded["details"],
        }
        if name in MBU_TARGETS and step == "compiled":
            row["target"] = (
                f"{100 * MBU_TARGETS[name]:.0f}% {'reached' if mbu >= MBU_TARGETS[name] else 'missed'}"
            )
        return row

    def prefill(self, arch: Architecture) -> dict[str, Any]:
        """Measure the prefill of a longer prompt."""
        self.load(arch, "bf16", (LONG_PROMPT, 1))
        self.run(arch, LONG_PROMPT, 1)
        runs = [self.run(arch, LONG_PROMPT, 1) for _ in range(TRIALS)]
        seconds = median((run["first_token_ns"] - run["submit_ns"]) / 1e9 for run in runs)
        return {"tokens/s": round(LONG_PROMPT / seconds)}

    def logits(self, arch: Architecture) -> dict[str, Any]:
        """Compare with the CPU: fp32, two layers with the widths of the model, a prompt and ten steps."""
        import torch

        torch.backends.cuda.matmul.allow_tf32 = False
        small = replace(arch, layers=2)
        ids = [[(7 * place) % 1000 for place in range(PROMPT)]]
        logits = {}
        for device in ("cpu", self.device):
            self.device, kept = device, self.device
            self.load(small, "fp32", (PROMPT, 16), **({"linear": "plain"} if device == "cpu" else {}))
            self.device = kept
            with torch.inference_mode():
                model = self.engine._model
                on_device = torch.tensor(ids, device=device)
                found = [model.forward(on_device, 0)]
                for position in range(PROMPT, PROMPT + 10):
                    found.append(model.forward(on_device[:, position - PROMPT :][:, :1], position))
                logits[device] = torch.stack(found).float().cpu()
        expected = logits.pop("cpu")
        error = max((float((other - expected).abs().max()) for other in logits.values()), default=0.0)
        verdict = "ok" if error < 1e-3 else "WRONG"
        return {"largest difference": f"{error:.2g}", "largest logit": f"{float(expected.abs().max()):.2g}",
                "result": verdict}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--seconds", type=float, default=360.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    architectures = {name: catalogue()[name].architecture for name in arguments.models}
    try:
        torch_devices.require(arguments.device)
    except EngineError as error:
        print(f"nothing to check: {error.message}")
        return
    check = Check(arguments.device, arguments.seconds)
    print(f"{check.found['engine']['details']['build']} on {arguments.device}\n\n| part | found |\n|---|---|")
    smallest = next(iter(architectures.values()))
    check.part("read bandwidth", check.bandwidth)
    check.part("logits against the CPU", lambda: check.logits(smallest))
    steps = ("eager",) if arguments.device == "cpu" else ("eager", "captured", "compiled")
    for name, arch in architectures.items():
        for step in steps:
            check.part(f"{name} decode, {step}", lambda n=name, a=arch, s=step: check.decode(n, a, s))  # type: ignore[misc]
        check.part(f"{name} prefill {LONG_PROMPT}", lambda a=arch: check.prefill(a))  # type: ignore[misc]
        if arguments.json:  # after each model: a run that is cut off keeps what it has
            arguments.json.write_text(
                json.dumps({**check.found, "rows": check.rows}, indent=1, default=str) + "\n"
            )
    if arguments.json:
        arguments.json.write_text(
            json.dumps({**check.found, "rows": check.rows}, indent=1, default=str) + "\n"
        )


if __name__ == "__main__":
    main()
