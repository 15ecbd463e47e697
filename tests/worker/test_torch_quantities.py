"""Predicted quantities against what the engine allocates and touches.

Every tensor that an operator reads or writes passes through PyTorch's dispatcher. What it touches of
the weights and of the cache is added up there, and must be what the accounting counts: nothing here
knows how the decoder works.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from architectures import DEEPSEEK_V3, LLAMA, QWEN2, QWEN3, QWEN3_MOE
from torch.utils._python_dispatch import TorchDispatchMode

from profiler.models.accounting import (
    decode_step_bytes,
    expected_distinct_experts,
    kv_cache_bytes,
    weights_bytes,
)
from profiler.models.architecture import Architecture
from profiler.models.formats import formats_for
from profiler.models.work import trial_work
from profiler.worker.decoder import Decoder
from profiler.worker.experts import Router
from profiler.worker.parameters import Parameters
from profiler.worker.torch_engine import TorchEngine

pytestmark = pytest.mark.torch

FAMILIES = {arch.family: arch for arch in (LLAMA, QWEN2, QWEN3, QWEN3_MOE, DEEPSEEK_V3)}
FAMILIES["llama, tied"] = replace(LLAMA, tied_embeddings=True)
FAMILIES["deepseek_v3, whole queries"] = replace(
    DEEPSEEK_V3,
    latent_attention=replace(DEEPSEEK_V3.latent_attention, query_rank=None),  # type: ignore[type-var]
)
# Aliases only: they read and write nothing.
_VIEWS = {"view", "t", "transpose", "permute", "slice", "split", "split_with_sizes", "select", "expand",
          "unsqueeze", "squeeze", "detach", "alias", "as_strided", "unbind", "_unsafe_view", "empty_like",
          "_reshape_alias", "chunk", "unflatten"}  # fmt: skip


class Touched(TorchDispatchMode):  # type: ignore[misc]  # torch is not typed for mypy here
    """Counts the bytes that operators touch inside given allocations, every byte once for each kind.

    Attributes:
        weights: bytes of weights read.
        cache_read: bytes of the cache read.
        cache_written: bytes of the cache written.
    """

    def __init__(self, weights: dict[int, int], cache: dict[int, int]) -> None:
        super().__init__()
        self._allocated = {"weights": weights, "cache": cache}
        self._seen: dict[str, set[tuple[int, int]]] = {"weights": set(), "read": set(), "written": set()}

    @property
    def weights(self) -> int:
        return sum(4 for _ in self._seen["weights"])

    @property
    def cache_read(self) -> int:
        return sum(4 for _ in self._seen["read"])

    @property
    def cache_written(self) -> int:
        return sum(4 for _ in self._seen["written"])

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._overloadpacket.__name__
        result = func(*args, **(kwargs or {}))
        if name not in _VIEWS:
            written = args[0] if name.endswith("_") and args else None
            for tensor in _tensors((args, kwargs)):
                self._touch(tensor, name, args, written=tensor is written)
        return result

    def _touch(self, tensor: Any, name: str, args: Any, *, written: bool) -> None:
        storage = tensor.untyped_storage().data_ptr()
        for kind, allocated in self._allocated.items():
            if storage not in allocated:
                continue
            if name == "embedding":
                tensor = tensor[args[1].flatten().unique()]
                rows = args[1].flatten().unique().tolist()
                width = args[0].shape[1]
                places = {row * width + column for row in rows for column in range(width)}
            else:
                places = set(_places(tensor))
            into = "weights" if kind == "weights" else ("written" if written else "read")
            self._seen[into] |= {(storage, place) for place in places}


def _tensors(value: Any) -> Iterator[Any]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _places(tensor: Any) -> list[int]:
    """Return the places in its storage that a tensor of any strides stands on."""
    places = torch.tensor([tensor.storage_offset()])
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        places = (places.unsqueeze(1) + torch.arange(size) * stride).flatten()
    found: list[int] = places.unique().tolist()
    return found


def decoder(arch: Architecture, batch: int, tokens: int) -> tuple[Decoder, Parameters, Touched]:
    torch.manual_seed(0)
    parameters = Parameters(torch.float32, "cpu", batch, tokens)
    model = Decoder(asdict(arch), parameters)
    weights = {}
    for _, tensor in model.tensors():
        tensor.normal_(0.0, 0.3)
        weights[tensor.untyped_storage().data_ptr()] = 1
    cache = {part.untyped_storage().data_ptr(): 1 for part in parameters._cache}
    return model, parameters, Touched(weights, cache)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_decode_step_touches_the_bytes_that_are_counted(name: str) -> None:
    """One sequence: its experts are exactly ``per_token`` of each layer, so that nothing is expected."""
    arch, formats = FAMILIES[name], formats_for("fp32")
    model, _, touched = decoder(arch, 1, 12)
    with torch.inference_mode():
        token = model.step(torch.tensor([[3, 1, 4, 1, 5]]), 0)
        with touched:
            model.step(token, 5)
    counted = decode_step_bytes(arch, formats, 1, 6)
    assert touched.weights == counted.weights_read
    assert touched.cache_read == counted.kv_read
    assert touched.cache_written == counted.kv_written


@pytest.mark.parametrize("name", [name for name, arch in FAMILIES.items() if arch.experts is None])
def test_a_batch_reads_dense_weights_once_and_each_cache(name: str) -> None:
    arch, formats = FAMILIES[name], formats_for("fp32")
    model, _, touched = decoder(arch, 3, 12)
    with torch.inference_mode():
        model.step(torch.tensor([[3, 1, 4], [1, 5, 9], [2, 6, 5]]), 0)
        with touched:
            model.step(torch.tensor([[7], [8], [9]]), 3)
    counted = decode_step_bytes(arch, formats, 3, 4)
    assert touched.weights == counted.weights_read
    assert touched.cache_read == counted.kv_read
    assert touched.cache_written == counted.kv_written


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prefill_touches_what_is_counted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of experts as many as were really chosen: the accounting expects a number, for even routing."""
    arch, formats = FAMILIES[name], formats_for("fp32")
    model, _, touched = decoder(arch, 1, 12)
    choose, distinct = Router.__call__, []

    def counting(self: Router, x: Any) -> Any:
        weights, chosen = choose(self, x)
        distinct.append(len(set(chosen.flatten().tolist())))
        return weights, chosen

    monkeypatch.setattr(Router, "__call__", counting)
    with torch.inference_mode(), touched:
        model.step(torch.arange(9).unsqueeze(0), 0)
    written = kv_cache_bytes(arch, "fp32", 9, 1)
    assert touched.cache_written == written
    counted = trial_work(arch, formats, 9, 1, 1).prefill_bytes - written
    if arch.experts is not None:
        moe, layers = arch.experts, arch.layers - arch.experts.dense_layers
        assert len(distinct) == layers
        one = 3 * arch.hidden_size * moe.intermediate_size * 4
        expected = layers * expected_distinct_experts(moe.count, moe.per_token, 9)
        counted += round((sum(distinct) - expected) * one)
    assert touched.weights == pytest.approx(counted, abs=1)


def wide(arch: Architecture) -> Architecture:
    """Return widths that are multiples of 64 as in real models, so that padding is as rare as there."""
    latent, experts = arch.latent_attention, arch.experts
    if latent is not None:
        rank = None if latent.query_rank is None else 64
        latent = replace(
            latent, query_rank=rank, kv_rank=64, rope_head_dim=64, nope_head_dim=64, value_head_dim=64
        )
    return replace(
        arch,
        vocab_size=512,
        hidden_size=128,
        intermediate_size=192,
        head_dim=64 if latent is None else 128,
        latent_attention=latent,
        experts=None if experts is None else replace(experts, intermediate_size=64),
    )


@pytest.mark.parametrize("linear", ["plain", "packed"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_predicted_memory_is_what_the_engine_allocates(name: str, precision: str, linear: str) -> None:
    """Within 1%: packed matrices are padded. A second copy of a tied head is told apart."""
    arch = wide(FAMILIES[name])
    engine, formats = TorchEngine(), formats_for(precision)
    request = {
        "architecture": asdict(arch),
        "weights": {"kind": "random", "seed": 0},
        "device": "cpu",
        "formats": asdict(formats),
        "max_batch": 2,
        "max_tokens": 32,
        "options": {"linear": linear, "threads": 1},
    }
    loaded = engine.load(request)
    assert loaded["weights_bytes"] == pytest.approx(weights_bytes(arch, formats), rel=0.01)
    assert loaded["kv_cache_bytes"] == kv_cache_bytes(arch, formats.kv_dtype, 32, 2)
    copies = loaded["weight_copies_bytes"]
    if linear == "packed" and arch.tied_embeddings:
        head = arch.vocab_size * arch.hidden_size * (4 if precision == "fp32" else 2)
        assert copies == pytest.approx(head, rel=0.01)
    else:
        assert copies == 0
