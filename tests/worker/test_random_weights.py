"""The random weights against a second implementation in plain Python, golden digests and statistics."""

from __future__ import annotations

import hashlib
import struct
from statistics import NormalDist
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.worker import random_weights
from profiler.worker.protocol import EngineError
from profiler.worker.random_weights import RandomWeights, check_device

pytestmark = pytest.mark.torch

GATE = "model.layers.3.mlp.gate_proj.weight"
# SHA-256 of the first 100,003 values' little-endian bytes. A change here changes every record's work.
GOLDEN = {
    (
        "bf16",
        0,
        "model.embed_tokens.weight",
    ): "36ab4e84170ae465649277fbd93a76919126824f066463fce22b9ab6caa5bb0e",
    ("bf16", 7, GATE): "98e7d7ad9466eed31e0d19c712d10344013ba508bba8d5b86e67f616c8008f3a",
    ("fp16", 7, GATE): "58a765f28f4954125899089ec54b6ae3a597579993de99f6b7f3c13fcf60979c",
    ("fp32", 7, GATE): "4b19c8a14036d44b65e4513b97d6985eac27e702ae86fefbacc9d3dd8a259b8b",
}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def made(seed: int, name: str, count: int, dtype: Any = torch.float32) -> Any:
    values = torch.empty(count, dtype=dtype)
    RandomWeights(seed, "cpu").fill(name, values)
    return values


def reference_value(seed: int, name: str, index: int) -> float:
    """One value as the module's recipe says it, with Python's unbounded integers."""
    digest = hashlib.sha256(f"aiprof-weights-1|{seed}|{name}".encode()).digest()
    key_0, key_1 = struct.unpack("<II", digest[:8])
    x = (index // 2 + key_0) % 2**32
    x ^= x >> 16
    x = (x * 0x7FEB352D + key_1) % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    x ^= x >> 16
    j = x >> 16 if index % 2 else x & 0xFFFF
    value = 0.02 * NormalDist().inv_cdf((j + 0.5) / 65536)
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


@settings(max_examples=60)
@given(
    seed=st.integers(min_value=0, max_value=2**63),
    name=st.text(st.characters(codec="utf-8"), max_size=30),
    count=st.integers(1, 70),
)
def test_every_value_is_the_recipe(seed: int, name: str, count: int) -> None:
    values = made(seed, name + ".weight", count).tolist()
    assert values == [reference_value(seed, name + ".weight", index) for index in range(count)]


def test_values_beyond_a_chunk_are_the_recipe() -> None:
    count = 2 * 65536 * 2 + 5
    values = made(3, GATE, count)
    for index in (0, 131071, 131072, 131073, 262143, 262144, count - 1):
        assert values[index].item() == reference_value(3, GATE, index)


@pytest.mark.parametrize(("dtype", "seed", "name"), GOLDEN, ids=str)
def test_golden_digests(dtype: str, seed: int, name: str) -> None:
    values = made(seed, name, 100_003, DTYPES[dtype])
    assert hashlib.sha256(bytes(values.view(torch.uint8).tolist())).hexdigest() == GOLDEN[dtype, seed, name]


@pytest.mark.parametrize("chunk", [1, 3, 1024, 1 << 20])
def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    expected = made(1, GATE, 3001)
    monkeypatch.setitem(random_weights._CHUNK, "cpu", chunk)
    assert torch.equal(made(1, GATE, 3001), expected)


def test_fusion_does_not_matter() -> None:
    weights = RandomWeights(1, "cpu")
    fused = torch.zeros(30, 12, dtype=torch.bfloat16)
    weights.fill("a.q_proj.weight", fused[:16])
    weights.fill("a.k_proj.weight", fused[16:23])
    expected = torch.cat((made(1, "a.q_proj.weight", 16 * 12), made(1, "a.k_proj.weight", 7 * 12)))
    assert torch.equal(fused[:23].flatten(), expected.to(torch.bfloat16))
    assert not fused[23:].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_are_float32_rounded(dtype: Any) -> None:
    assert torch.equal(made(1, GATE, 5001, dtype), made(1, GATE, 5001).to(dtype))


def test_the_distribution_is_normal_with_standard_deviation_0_02() -> None:
    values = made(11, GATE, 1 << 21).double()
    count = values.numel()
    assert abs(values.mean()) < 5 * 0.02 / count**0.5
    assert abs(values.std() / 0.02 - 1) < 5 / (2 * count) ** 0.5 + 1e-4
    for sigmas in (0.5, 1.0, 2.0, 3.0):
        share = 2 * NormalDist().cdf(-sigmas)
        outside = (values.abs() > 0.02 * sigmas).double().mean()
        assert abs(outside - share) < 5 * (share / count) ** 0.5 + 1e-5


def test_no_visible_correlation() -> None:
    """Between neighbours, the halves of one hash, rows, tensors, layers and seeds: |r| < 5/sqrt(n)."""
    values, count = made(11, GATE, 1 << 20).double() / 0.02, 1 << 20
    others = [made(11, GATE.replace("3", "4"), count), made(12, GATE, count), made(11, "model.norms", count)]
    pairs = [(values, other.double() / 0.02) for other in others]
    pairs += [(values[lag:], values[:-lag]) for lag in (1, 2, 3, 64, 896, 1024, 4864, 65536)]
    pairs.append((values[0::2], values[1::2]))
    for one, other in list(pairs):
        pairs.append((one.square() - 1, other.square() - 1))  # spread that moves together
    for one, other in pairs:
        size = one.numel() ** 0.5
        assert abs((one * other).mean() / (one.std() * other.std())) < 5 / size


def test_no_tensor_is_another_one_shifted() -> None:
    """Without the second key every tensor would be a window of one sequence."""
    one, other = (
        made(0, "a", 4096).tolist(),
        set(zip(*[iter(made(0, "b", 1 << 21).tolist())] * 2, strict=True)),
    )
    shared = sum(pair in other for pair in zip(one[0::2], one[1::2], strict=True))
    assert shared <= 10  # 2048 pairs, 2^20 in 2^32: 0.5 expected


def test_norms_are_one() -> None:
    for name in ("model.norm.weight", "model.layers.0.self_attn.q_norm.weight", "a.input_layernorm.weight"):
        assert (made(1, name, 9) == 1).all()
    assert not (made(1, "model.layers.0.self_attn.q_proj.bias", 9) == 1).any()


def test_a_tensor_longer_than_the_counter_is_refused() -> None:
    endless = torch.empty(1, dtype=torch.bfloat16).expand((1 << 33) + 1)
    with pytest.raises(EngineError) as caught:
        RandomWeights(0, "cpu").fill("a", endless)
    assert caught.value.kind == "unsupported"


def test_a_device_with_other_arithmetic_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Saturating(RandomWeights):
        def fill(self, name: str, destination: Any) -> None:
            super().fill(name, destination)
            if self._broken:
                destination[17] = 0

        def __init__(self, seed: int, device: Any) -> None:
            super().__init__(seed, "cpu")
            self._broken = device != "cpu"

    monkeypatch.setattr(random_weights, "RandomWeights", Saturating)
    monkeypatch.setattr(torch, "empty", lambda *size, dtype, device: torch.zeros(*size, dtype=dtype))
    with pytest.raises(EngineError) as caught:
        check_device("cuda", torch.float32)
    assert caught.value.kind == "device"
    check_device("cpu", torch.float32)
