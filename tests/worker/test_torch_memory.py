"""How much memory a load takes at its peak, in a process of its own."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from architectures import DEEPSEEK_V3, QWEN3_MOE
from torch_formats import BF16

from profiler.models.architecture import Architecture, LatentAttention
from profiler.models.tensors import shapes
from profiler.worker import host_memory, main

pytestmark = pytest.mark.torch

MIB = 1 << 20
# The kernels' own code and scratch space, and what the C library keeps of freed memory.
OVERHEAD = 160 * MIB


def larger(arch: Architecture) -> Architecture:
    """A model of about 500 MiB in bf16, most of it in experts."""
    assert arch.experts is not None
    moe = dataclasses.replace(arch.experts, count=64, intermediate_size=512, per_token=4)
    latent = arch.latent_attention and LatentAttention(
        query_rank=256, kv_rank=128, rope_head_dim=32, nope_head_dim=64, value_head_dim=64
    )
    return dataclasses.replace(
        arch,
        vocab_size=16384,
        hidden_size=768,
        layers=4,
        heads=8,
        kv_heads=8 if latent else 2,
        head_dim=96,
        intermediate_size=1024,
        experts=moe,
        latent_attention=latent,
    )


@contextmanager
def worker() -> Iterator[Any]:
    """Start a worker as the conductor does and yield a function that asks it."""
    command = [sys.executable, str(main.__file__), str(os.getpid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:

        def ask(op: str, **fields: Any) -> Any:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps({"id": 1, "op": op, **fields}).encode() + b"\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            assert answer["ok"], answer
            return answer["result"]

        yield ask
        ask("bye")


@pytest.mark.skipif(not host_memory.reset_peak(), reason="the kernel keeps no peak to reset")
@pytest.mark.parametrize(
    ("arch", "stored", "linear"),
    [
        (QWEN3_MOE, False, "packed"),
        (DEEPSEEK_V3, False, "plain"),
        (DEEPSEEK_V3, False, "packed"),
        (DEEPSEEK_V3, True, "packed"),
    ],
    ids=["qwen3_moe packed", "deepseek_v3 plain", "deepseek_v3 packed", "deepseek_v3 from files, packed"],
)
def test_loading_never_holds_two_copies(
    arch: Architecture, stored: bool, linear: str, tmp_path: Path
) -> None:
    arch = larger(arch)
    weights: dict[str, Any] = {"kind": "random", "seed": 1}
    if stored:
        tensors = {name: torch.zeros(shape, dtype=torch.bfloat16) for name, shape in shapes(arch).items()}
        safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
        weights = {"kind": "folder", "path": str(tmp_path)}
    with worker() as ask:
        ask("hello", engine="torch", options={})
        before = ask("memory")["process_rss_bytes"]
        loaded = ask(
            "load",
            architecture=dataclasses.asdict(arch),
            weights=weights,
            device="cpu",
            formats=BF16,
            max_batch=1,
            max_tokens=64,
            options={"linear": linear, "threads": 1},
        )
        peak = ask("memory")["peak_process_bytes"] - before
    assert loaded["weights_bytes"] > 400 * MIB
    largest = 2 * arch.vocab_size * arch.hidden_size
    assert peak < loaded["weights_bytes"] + loaded["kv_cache_bytes"] + largest + OVERHEAD
