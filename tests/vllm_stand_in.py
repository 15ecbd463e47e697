"""A small model as a folder, stand-ins for ``vllm serve`` and for the worker that says how to start it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from profiler.worker import hf_checkpoint, vllm_model, vllm_server

FAKES = Path(__file__).with_name("fakes")
PATIENCE_S = 120.0
CONFIG = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 128,
    "vocab_size": 512, "tie_word_embeddings": True, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
    "max_position_embeddings": 8192, "hidden_act": "silu",
}  # fmt: skip


def write_model(folder: Path) -> Path:
    """Write ``config.json`` of a tiny model and return its folder."""
    path = folder / "tiny"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    return path


def use_stand_in(folder: Path, patch: pytest.MonkeyPatch, how: str = "") -> Path:
    """Let processes find the stand-in; return the file that it writes its pids to."""
    patch.setenv("PYTHONPATH", str(FAKES))
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    patch.setenv("AIPROF_FAKE_SERVE", how)
    pids = folder / "pids"
    patch.setenv("AIPROF_FAKE_PIDS", str(pids))
    return pids


def alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pids_in(path: Path) -> list[int]:
    """Return the pids that the stand-in wrote."""
    return [int(word) for word in path.read_text().split()]


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for something that must come."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Worker:
    """Answers as the worker of the vllm engine does, without vLLM or PyTorch."""

    def __init__(self, python: str, log_path: Path) -> None:
        self.requests: list[str] = []

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None: ...

    def kill(self) -> None: ...

    def log_tail(self) -> tuple[str, ...]:
        return ("the worker's last line",)

    def request(self, op: str, timeout_s: float, **fields: Any) -> dict[str, Any]:
        if op == "hello":
            entry = {"device": "cpu", "name": "CPU", "uuid": None, "pci_address": None}
            return {"engine": {"version": "1", "details": {"platform": "cpu"}}, "devices": [entry]}
        if op == "probe":
            return {"bytes_per_s": [1e10] * fields["repeats"], "method": "read"}
        assert op == "server"
        plan = vllm_model.plan(fields)
        folder, words = hf_checkpoint.find(fields, without_weights=plan.dummy)
        return {
            **vllm_server.command(plan, folder, ["cpu"]), "weights": words, "fills_memory": plan.fills_memory,
            "weights_bytes": plan.stored_bytes(folder), "kv_token_bytes": plan.kv_token_bytes,
        }  # fmt: skip
