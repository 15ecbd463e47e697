"""Native products and parts for many positions, against PyTorch's operators in double or in bf16."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  the name everybody knows it by
from architectures import LLAMA, QWEN2, QWEN3
from compilers import has_compiler
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.worker import fusing, native
from profiler.worker.decoder import Decoder
from profiler.worker.fusing import FUSED_BOUNDS, error_of_largest
from profiler.worker.kernels import Work
from profiler.worker.native_kernels import Kernels
from profiler.worker.parameters import Parameters
from profiler.worker.random_weights import RandomWeights

BF16 = torch.bfloat16


def _has_many() -> bool:
    found = native.load_library().kernels(BF16) if has_compiler() else None
    return found is not None and found.many


pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(not _has_many(), reason="no C++ compiler, or a CPU without AVX-512 BF16"),
]


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    found = native.load_library().kernels(BF16)
    assert found is not None
    return found


def noise(*shape: int, seed: int = 0) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(BF16)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(9, 140),
    rows=st.integers(12, 90),
    pairs=st.integers(1, 80),
    biased=st.booleans(),
    threads=st.integers(1, 3),
)
def test_a_product_is_that_of_pytorch(
    kernels: Kernels, count: int, rows: int, pairs: int, biased: bool, threads: int
) -> None:
    x, weight = noise(count, 2 * pairs), noise(rows, 2 * pairs, seed=1)
    bias = noise(rows, seed=2) if biased else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: threads)
        found = kernels.linear(x, weight, bias)
    exact = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    assert found.shape == exact.shape
    assert error_of_largest(found.double(), exact) <= 2**-8


def test_panels_larger_than_the_cache_share(kernels: Kernels) -> None:
    """More input than is gone over again for each tile: several passes over the weights."""
    x, weight = noise(200, 6000), noise(40, 6000, seed=1)
    exact = F.linear(x.double(), weight.double())
    assert error_of_largest(kernels.linear(x, weight, None).double(), exact) <= 2**-8


def test_an_infinity_and_a_nan_stay_where_they_are(kernels: Kernels) -> None:
    x, weight = noise(33, 64), noise(20, 64, seed=1)
    x[3, 5], x[17, 0] = float("inf"), float("nan")
    found = kernels.linear(x, weight, None)
    assert not found[3].isfinite().any()
    assert found[17].isnan().all()
    others = [row for row in range(33) if row not in (3, 17)]
    assert torch.equal(found[others], kernels.linear(x.nan_to_num(0, 0, 0), weight, None)[others])


@pytest.mark.parametrize(("rows", "columns"), [(11, 64), (64, 63)])
def test_what_it_cannot_take_is_said(kernels: Kernels, rows: int, columns: int) -> None:
    assert not kernels.takes_many(rows, columns)


def filled(arch: Any, batch: int, tokens: int) -> tuple[Decoder, Parameters]:
    parameters = Parameters(BF16, torch.device("cpu"), batch, tokens)
    decoder = Decoder(dataclasses.asdict(arch), parameters)
    random = RandomWeights(3, "cpu")
    for name, tensor in decoder.tensors():
        random.fill(name, tensor)
    return decoder, parameters


def lay_out_native(parameters: Parameters, kernels: Kernels) -> None:
    matrices = {matrix for _, of_shape in parameters.linears() for matrix in of_shape}
    parameters.lay_out(dict.fromkeys(matrices, "native"), matrices, kernels, parameters.max_batch)


def wide(arch: Any, head_dim: int = 16, inner: int = 90) -> Any:
    return dataclasses.replace(arch, head_dim=head_dim, hidden_size=64, intermediate_size=inner)


@pytest.mark.parametrize("arch", [LLAMA, QWEN2, QWEN3], ids=lambda arch: arch.family)
@pytest.mark.parametrize(
    ("batch", "tokens"), [(1, 2), (1, 16), (1, 17), (2, 32), (3, 33), (9, 40), (1, 100), (2, 129)]
)
def test_a_prompt_and_the_steps_after_it_are_those_of_the_operators(
    kernels: Kernels, arch: Any, batch: int, tokens: int
) -> None:
    arch = wide(arch)
    ids = torch.randint(0, 96, (batch, tokens), generator=torch.Generator().manual_seed(1))
    logits = {}
    with torch.inference_mode():
        for way in ("operators", "native", "scores"):
            decoder, parameters = filled(arch, batch, tokens + 12)
            if way == "native":
                lay_out_native(parameters, kernels)
                assert decoder.fuse() == ["MLP", "attention", "head"]
                assert decoder.fuse_prompts(kernels) == ["MLP", "attention"]
            if way == "scores":
                assert decoder.fuse_prompts(kernels) == ["attention scores", "gating"]
            after = [decoder.forward(ids, 0)]
            after += [decoder.forward(ids[:, at : at + 1], tokens + at) for at in range(2)]
            logits[way] = torch.stack(after).float()
    for way in ("native", "scores"):
        assert error_of_largest(logits[way], logits["operators"]) <= FUSED_BOUNDS[BF16]


def test_long_scores_do_not_overflow(kernels: Kernels) -> None:
    """Scores of hundreds, as real models with large key biases have them."""
    arch = wide(QWEN2)
    ids = torch.randint(0, 96, (1, 70), generator=torch.Generator().manual_seed(1))
    logits = []
    with torch.inference_mode():
        for way in ("operators", "native"):
            decoder, parameters = filled(arch, 1, 80)
            for name, tensor in decoder.tensors():
                if "q_proj.bias" in name or "k_proj.bias" in name:
                    tensor.fill_(20.0)
            if way == "native":
                lay_out_native(parameters, kernels)
                decoder.fuse()
                decoder.fuse_prompts(kernels)
            logits.append(decoder.forward(ids, 0).float())
    assert logits[1].isfinite().all()
    assert error_of_largest(logits[1], logits[0]) <= FUSED_BOUNDS[BF16]


@pytest.mark.parametrize(("head_dim", "inner", "left"), [(8, 90, ["MLP"]), (16, 91, ["attention", "gating"])])
def test_what_does_not_fit_stays_with_the_operators(
    kernels: Kernels, head_dim: int, inner: int, left: list[str]
) -> None:
    with torch.inference_mode():
        decoder, parameters = filled(wide(LLAMA, head_dim, inner), 1, 40)
        lay_out_native(parameters, kernels)
        decoder.fuse()
        assert decoder.fuse_prompts(kernels) == left


def way_of(decoder: Decoder) -> str:
    layer = next(iter(decoder._layers.values()))
    if layer._fused_prompts:
        return "whole"
    return "scores" if getattr(layer._attention, "_native_scores", None) else "operators"


def fused(
    monkeypatch: pytest.MonkeyPatch, kernels: Kernels, fastest: str, products: bool = True
) -> tuple[str, Decoder]:
    """Return what is said, and the decoder, where one way through a prompt takes half of the others' time."""
    monkeypatch.setattr(fusing, "_seconds", lambda decoder, *_: 0.5 if way_of(decoder) == fastest else 1.0)
    with torch.inference_mode():
        decoder, parameters = filled(wide(QWEN2), 1, 80)
        if products:
            lay_out_native(parameters, kernels)
        return fusing.fuse(decoder, parameters, kernels, Work(1, 64, 16))["fused_prompts"], decoder


@pytest.mark.parametrize(
    ("fastest", "said"),
    [("whole", "MLP, attention"), ("scores", "attention scores, gating"), ("operators", "none")],
)
def test_the_fastest_way_through_a_prompt_is_taken(
    monkeypatch: pytest.MonkeyPatch, kernels: Kernels, fastest: str, said: str
) -> None:
    told, decoder = fused(monkeypatch, kernels, fastest)
    times = {"none": 1.0, "attention scores, gating": 1.0, "MLP, attention": 1.0, said: 0.5}
    listed = ", ".join(f"{seconds:.2g} s with {name}" for name, seconds in times.items())
    assert told == f"{said} (a layer took {listed})"
    assert way_of(decoder) == fastest


def test_scores_are_native_where_products_are_not(monkeypatch: pytest.MonkeyPatch, kernels: Kernels) -> None:
    told, decoder = fused(monkeypatch, kernels, "scores", products=False)
    assert told.startswith("attention scores, gating (")
    assert way_of(decoder) == "scores"


def test_a_wrong_prompt_is_not_used(monkeypatch: pytest.MonkeyPatch, kernels: Kernels) -> None:
    right = Kernels.mlp

    def wrong(self: Any, norm: Any, gate_up: Any, down: Any, eps: float) -> Any:
        part = right(self, norm, gate_up, down, eps)
        return dataclasses.replace(part, prompt=lambda stream, position: stream.mul_(1.1))

    monkeypatch.setattr(Kernels, "mlp", wrong)
    told, decoder = fused(monkeypatch, kernels, "whole")
    assert "MLP, attention differs by " in told
    assert way_of(decoder) != "whole"
