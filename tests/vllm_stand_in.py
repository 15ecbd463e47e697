"""A small model as a folder, and the stand-in for ``vllm serve`` for processes that are started here."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

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
