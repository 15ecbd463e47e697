"""The boxes that the fake engine pretends to be, and how large a model is for them."""

from __future__ import annotations

from typing import Any

# Boxes to try comparisons and reports on. What the engine then reaches is a plausible share of the
# data sheet, invented here: no figure of theirs says anything about the parts they are named after.
# Data sheets: NVIDIA H100 SXM 3.35 TB/s, 989 TFLOP/s, 80 GB; AMD MI300X 5.3 TB/s, 1,307 TFLOP/s, 192 GB
# (makers' product pages); Ascend 910B3 1.6 TB/s, 313 TFLOP/s, 64 GB (CSET compilation of Huawei documents).
DEVICES: dict[str, dict[str, Any]] = {
    "fake-0": {"name": "simulated device"},
    "fake-h100": {
        "name": "simulated H100-like device",
        "memory_bytes": 80e9,
        "read_bandwidth": 0.9 * 3.35e12,
        "matrix_flops": 0.65 * 989e12,
        "overhead_s": 0.0006,
        "start_cv": 0.01,
    },
    "fake-mi300x": {
        "name": "simulated MI300X-like device",
        "memory_bytes": 192e9,
        "read_bandwidth": 0.8 * 5.3e12,
        "matrix_flops": 0.45 * 1307e12,
        "overhead_s": 0.0009,
        "start_cv": 0.015,
    },
    "fake-ascend": {
        "name": "simulated Ascend-like device",
        "memory_bytes": 64e9,
        "read_bandwidth": 0.8 * 1.6e12,
        "matrix_flops": 0.5 * 313e12,
        "overhead_s": 0.0015,
        "start_cv": 0.015,
    },
}


def weight_counts(architecture: dict[str, Any], kept: list[int] | None = None) -> tuple[int, int]:
    """Return (all weights, weights one token uses) of the big matrices; close enough to pretend with.

    ``kept`` are the layers of a slice: (with a dense MLP, with experts).
    """
    hidden, layers = architecture["hidden_size"], architecture["layers"]
    attention = hidden * architecture["head_dim"] * 2 * (architecture["heads"] + architecture["kv_heads"])
    embedding = hidden * architecture["vocab_size"]
    experts = architecture.get("experts")
    one = 3 * hidden * experts["intermediate_size"] if experts else 0
    of_dense = experts["dense_layers"] if experts else layers
    dense, moe = kept or (of_dense, layers - of_dense)
    mlp = active = dense * 3 * hidden * architecture["intermediate_size"]
    if experts:
        mlp += moe * one * (experts["count"] + experts["shared"])
        active += moe * one * (experts["per_token"] + experts["shared"])
    outside = embedding * (1 if architecture["tied_embeddings"] else 2)
    attention *= dense + moe
    return outside + attention + mlp, embedding + attention + active
