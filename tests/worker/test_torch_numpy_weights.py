"""The random weights made with numpy are those made with PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.worker.numpy_weights import NumpyWeights
from profiler.worker.random_weights import RandomWeights

pytestmark = pytest.mark.torch
KINDS: dict[str, tuple[Any, Any]] = {
    "fp32": (np.float32, torch.float32),
    "fp16": (np.float16, torch.float16),
    "bf16": (np.uint16, torch.bfloat16),
}


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**63),
    name=st.sampled_from(["model.embed_tokens.weight", "model.norm.weight", "up_proj.weight"]),
    count=st.sampled_from([1, 2, 7, 131_072, 131_077, 300_001]),
    dtype=st.sampled_from(sorted(KINDS)),
)
def test_bit_for_bit(seed: int, name: str, count: int, dtype: str) -> None:
    ours, theirs = KINDS[dtype]
    found, expected = np.empty(count, ours), torch.empty(count, dtype=theirs)
    NumpyWeights(seed).fill(name, found, dtype)
    RandomWeights(seed, "cpu").fill(name, expected)
    assert found.tobytes() == expected.view(torch.uint8).numpy().tobytes()
