"""Real weights: SmolLM2-135M-Instruct, against transformers in fp32."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch_formats import BF16, FP32

from profiler.models.config import read_config
from profiler.worker.torch_engine import TorchEngine

pytestmark = [pytest.mark.torch, pytest.mark.realweights]

PROMPT = [504, 3575, 282, 4649, 314]  # "The capital of France is"
PARIS = 7042
TOKENS = 16


def continued(folder: Path, formats: dict[str, str]) -> tuple[list[int], dict[str, Any]]:
    engine = TorchEngine()
    loaded = engine.load(
        {
            "architecture": dataclasses.asdict(read_config(folder / "config.json")),
            "weights": {"kind": "folder", "path": str(folder)},
            "device": "cpu",
            "formats": formats,
            "max_batch": 1,
            "max_tokens": len(PROMPT) + TOKENS,
        }
    )
    run = engine.run({"prompt_ids": [PROMPT], "output_tokens": TOKENS, "return_ids": True})
    return run["output_ids"][0], loaded


def test_sixteen_greedy_tokens_are_those_of_transformers(smollm2_folder: Path) -> None:
    ours, loaded = continued(smollm2_folder, FP32)
    assert ours[0] == PARIS
    assert loaded["details"]["converted"] == {"bf16 to fp32": 272}
    reference = transformers.AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype=torch.float32).eval()
    ids = torch.tensor([PROMPT])
    with torch.inference_mode():
        for _ in range(TOKENS):
            ids = torch.cat((ids, reference(ids).logits[:, -1].argmax(-1, keepdim=True)), 1)
    assert ours == ids[0, len(PROMPT) :].tolist()


def test_bf16_knows_the_capital_of_france_too(smollm2_folder: Path) -> None:
    ours, loaded = continued(smollm2_folder, BF16)
    assert ours[0] == PARIS
    assert loaded["details"]["converted"] == {}
