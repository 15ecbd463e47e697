"""Weights in 8 bits through torchao: what is held, how it multiplies, and what is refused."""

from __future__ import annotations

import builtins
import dataclasses
from typing import Any

import pytest
import torch
from architectures import DEEPSEEK_V3, LLAMA, QWEN2, QWEN3, QWEN3_MOE

from profiler.models.accounting import weights_bytes
from profiler.models.formats import formats_for
from profiler.worker import int8
from profiler.worker.fusing import error_of_largest
from profiler.worker.int8 import Int8Product, int8_fault
from profiler.worker.protocol import EngineError
from profiler.worker.torch_engine import TorchEngine

pytest.importorskip("torchao")
pytestmark = pytest.mark.torch

CPU = torch.device("cpu")
INT8 = {"weight_format": "w8a16-int8", "compute_dtype": "bf16", "kv_dtype": "bf16"}
PROMPTS = [[1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11, 12, 13, 14]]


def loaded(arch: Any, formats: dict[str, str] = INT8) -> tuple[TorchEngine, dict[str, Any]]:
    engine = TorchEngine()
    answer = engine.load(
        {
            "architecture": dataclasses.asdict(arch),
            "weights": {"kind": "random", "seed": 1},
            "device": "cpu",
            "formats": formats,
            "max_batch": 2,
            "max_tokens": 24,
            "prompt_tokens": 7,
            "output_tokens": 4,
        }
    )
    return engine, answer


def noise(*shape: int, seed: int = 0) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_every_way_is_the_product_of_the_rounded_weights(count: int) -> None:
    weight, x = noise(96, 64), noise(count, 64, seed=1)
    scale = weight.float().abs().amax(1, keepdim=True)
    with torch.inference_mode():
        product = Int8Product(weight.clone())
        assert set(product.ways()) == {"torchao", "int8pack_mm"}
        for way in product.ways().values():
            found = way(x).float()
            assert found.shape == (count, 96)
            assert error_of_largest(found, x.float() @ weight.float().t()) <= int8.ROUNDING
            # Each weight is off by at most half a step of its row.
            most = (x.float().abs().sum(1, keepdim=True) * scale.t() / 254) * 1.01
            allowed = most + 2**-7 * found.abs() + 1e-3
            assert ((found - x.float() @ weight.float().t()).abs() <= allowed).all()


def test_a_bias_and_leading_dimensions() -> None:
    weight, x, bias = noise(96, 64), noise(2, 3, 64, seed=1), noise(96, seed=2)
    with torch.inference_mode():
        product = Int8Product(weight)
        assert torch.equal(product(x, bias), product.by_torchao(x.flatten(0, 1)).view(2, 3, 96) + bias)
        product.use(6, "int8pack_mm", "torchao")
        assert torch.equal(product(x, None), product.by_pytorch(x.flatten(0, 1)).view(2, 3, 96))


@pytest.mark.parametrize("arch", [LLAMA, QWEN2, QWEN3], ids=lambda arch: arch.family)
def test_a_model_holds_what_is_predicted_and_answers_like_the_wide_one(arch: Any) -> None:
    arch = dataclasses.replace(arch, hidden_size=64, intermediate_size=96)
    engine, answer = loaded(arch)
    assert answer["weights_bytes"] == weights_bytes(arch, formats_for("w8a16-int8"))
    assert answer["details"]["linear"].startswith("w8a16-int8 by torchao")
    assert len(answer["details"]["kernels"]) == 4  # the head stays wide
    wide, _ = loaded(arch, dict.fromkeys(INT8, "bf16"))
    ids = torch.tensor(PROMPTS)
    with torch.inference_mode():
        found, expected = (one._model.forward(ids, 0).float() for one in (engine, wide))
    assert 0 < error_of_largest(found, expected) <= 0.1
    run = engine.run({"prompt_ids": PROMPTS, "output_tokens": 4, "return_ids": True})
    assert [len(row) for row in run["output_ids"]] == [4, 4]


def test_the_faster_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def best_s(call: Any, x: Any) -> float:
        few = len(x) <= 2
        return 1.0 if (call.__name__ == "by_pytorch") == few else 2.0

    monkeypatch.setattr(int8, "_best_s", best_s)
    engine, answer = loaded(LLAMA)
    assert {entry["chosen"] for entry in answer["details"]["kernels"]} == {"int8pack_mm"}
    assert {entry["prompt_kernel"] for entry in answer["details"]["kernels"]} == {"torchao"}
    product = engine._model._layers[0]._mlp._down.int8
    assert (product.few.__name__, product.many.__name__, product.few_rows) == ("by_pytorch", "by_torchao", 2)


@pytest.mark.parametrize("arch", [QWEN3_MOE, DEEPSEEK_V3], ids=lambda arch: arch.family)
def test_models_that_are_not_quantised_are_refused(arch: Any) -> None:
    with pytest.raises(EngineError, match="unsupported on cpu because only the matrices of dense models"):
        loaded(arch)


def test_without_torchao_the_reason_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *given: Any, **named: Any) -> Any:
        if name.startswith("torchao"):
            raise ImportError("No module named 'torchao'")
        return real(name, *given, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(EngineError, match=r"because torchao is not to be had.*pip install torchao"):
        loaded(LLAMA)


def test_a_device_that_torchao_does_not_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise NotImplementedError("no kernel")

    arch = dataclasses.asdict(LLAMA)
    monkeypatch.setattr(Int8Product, "__call__", fails)
    assert int8_fault(arch, torch.bfloat16, CPU) == "torchao: no kernel"
    monkeypatch.setattr(Int8Product, "__call__", lambda *_: torch.zeros(2, 64))
    assert "off by 1 of the largest value" in (int8_fault(arch, torch.bfloat16, CPU) or "")
