"""Routing against transformers, and every way to reach the chosen experts against plain arithmetic."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from architectures import DEEPSEEK_V3, QWEN3_MOE
from hypothesis import given
from hypothesis import strategies as st
from transformers import CONFIG_MAPPING
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeTopKRouter

from profiler.models.architecture import Architecture, Experts
from profiler.models.config import to_config
from profiler.worker import experts
from profiler.worker.experts import Router, SeparateExperts, StackedExperts
from profiler.worker.parameters import Parameters

pytestmark = pytest.mark.torch

HIDDEN, INNER, COUNT = 16, 8, 12


def room(dtype: Any = torch.float32) -> Parameters:
    return Parameters(dtype, "cpu", 1, 1)


def filled(router: Router, weight: Any, bias: Any = None) -> Router:
    for name, tensor in router.tensors():
        tensor.copy_(bias if name.endswith("bias") else weight)
    return router


@st.composite
def routings(draw: st.DrawFn) -> tuple[Architecture, Any, Any, Any]:
    """A router of either family with weights that tie often, a bias, and tokens."""
    base = draw(st.sampled_from([QWEN3_MOE, DEEPSEEK_V3]))
    assert base.experts is not None
    grouped = base is DEEPSEEK_V3
    groups = draw(st.integers(1, 4)) if grouped else 1
    used = draw(st.integers(1, groups))
    each = draw(st.integers(2, 5))
    moe = dataclasses.replace(
        base.experts,
        count=groups * each,
        groups=groups,
        groups_per_token=used,
        per_token=draw(st.integers(1, used * each)),
        normalise=draw(st.booleans()),
        scale=draw(st.sampled_from([1.0, 2.5])) if grouped else 1.0,
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1 << 30)))
    # Few distinct values, exact in float32: equal scores are common, and exactly equal.
    weight = torch.randint(-1, 2, (moe.count, HIDDEN), generator=generator).float()
    weight[draw(st.integers(0, moe.count - 1))] = weight[0]
    tokens = torch.randint(-1, 2, (draw(st.integers(1, 5)), HIDDEN), generator=generator).float() / 4
    bias = torch.randint(-6, 3, (moe.count,), generator=generator).float() / 4
    return dataclasses.replace(base, hidden_size=HIDDEN, experts=moe), weight, bias, tokens


def both_routed(arch: Architecture, weight: Any, bias: Any, tokens: Any) -> tuple[Any, Any]:
    """Return what transformers' router and ours give each expert, ``[N, E]``; -1 where it was not chosen."""
    assert arch.experts is not None
    config = CONFIG_MAPPING[arch.family].from_dict(to_config(arch))
    theirs = (DeepseekV3TopkRouter if arch.family == "deepseek_v3" else Qwen3MoeTopKRouter)(config)
    theirs.weight.data = theirs.weight.data.to(weight.dtype)  # and the bias stays in float32
    with torch.inference_mode():
        theirs.weight.copy_(weight)
        if arch.experts.routing_bias:
            theirs.e_score_correction_bias.copy_(bias)
        moe = dataclasses.asdict(arch.experts)
        _, expected, expected_experts = theirs(tokens)
        weights, chosen = filled(Router(moe, arch.hidden_size, room(weight.dtype)), weight, bias)(tokens)
        unchosen = torch.full((len(tokens), arch.experts.count), -1.0)
        return (
            unchosen.scatter(1, expected_experts, expected.float()),
            unchosen.scatter(1, chosen, weights.float()),
        )


@given(routings())
def test_choices_weights_and_ties_are_those_of_transformers(
    routing: tuple[Architecture, Any, Any, Any],
) -> None:
    theirs, ours = both_routed(*routing)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("arch", [QWEN3_MOE, DEEPSEEK_V3], ids=lambda arch: arch.family)
def test_in_16_bits_the_same_experts_are_chosen(arch: Architecture) -> None:
    """DeepSeek scores in float32; in bf16 many of these tokens would go to others."""
    generator = torch.Generator().manual_seed(4)
    weight, tokens = (
        torch.randn(rows, arch.hidden_size, generator=generator).bfloat16() / 4 for rows in (8, 500)
    )
    theirs, ours = both_routed(arch, weight, torch.randn(8, generator=generator) / 8, tokens)
    torch.testing.assert_close(ours, theirs, atol=0.01, rtol=0)


def routed(moe: Experts, logits: list[float], bias: list[float]) -> dict[int, float]:
    """Return expert -> weight of a token whose logits are given."""
    weight = torch.tensor(logits)[:, None]
    router = filled(Router(dataclasses.asdict(moe), 1, room()), weight, torch.tensor(bias))
    weights, chosen = router(torch.ones(1, 1))
    return dict(zip(chosen[0].tolist(), weights[0].tolist(), strict=True))


GROUPED = Experts(
    count=6, per_token=2, intermediate_size=1, groups=3, groups_per_token=1, scoring="sigmoid",
    normalise=True, scale=2.0, routing_bias=True,
)  # fmt: skip


def test_a_group_is_chosen_by_its_two_best_and_keeps_the_best_expert_of_all_out() -> None:
    found = routed(GROUPED, [4.0, -4.0, 1.0, 1.0, 0.0, 0.0], [0.0] * 6)
    assert sorted(found) == [2, 3]
    assert list(found.values()) == pytest.approx([1.0, 1.0])  # normalised to 1, times the scale of 2


def test_the_bias_decides_the_choice_and_nothing_else() -> None:
    found = routed(GROUPED, [0.0, 1.0, 1.0, 1.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    scores = torch.tensor([0.0, 1.0]).sigmoid()
    assert found == pytest.approx(
        {0: float(2 * scores[0] / scores.sum()), 1: float(2 * scores[1] / scores.sum())}
    )


def test_the_routing_bias_stays_in_float32() -> None:
    router = Router(dataclasses.asdict(GROUPED), HIDDEN, room(torch.bfloat16))
    dtypes = {name: tensor.dtype for name, tensor in router.tensors()}
    assert dtypes == {
        "mlp.gate.weight": torch.bfloat16,
        "mlp.gate.e_score_correction_bias": torch.float32,
    }


def make(kind: Any, dtype: Any) -> Any:
    made = kind(COUNT, HIDDEN, INNER, room(dtype))
    for number, (_, tensor) in enumerate(made.tensors()):
        tensor.normal_(generator=torch.Generator().manual_seed(number))
    return made


def expected_sum(moe: Any, x: Any, weights: Any, chosen: Any) -> Any:
    """Token by token and expert by expert, in double precision."""
    tensors = {name: tensor.double() for name, tensor in moe.tensors()}
    result = torch.zeros(x.shape, dtype=torch.float64)
    for token in range(len(x)):
        for weight, expert in zip(weights[token].double(), chosen[token].tolist(), strict=True):
            gate, up, down = (
                tensors[f"mlp.experts.{expert}.{part}_proj.weight"] for part in ("gate", "up", "down")
            )
            inner = torch.nn.functional.silu(gate @ x[token].double()) * (up @ x[token].double())
            result[token] += weight * (down @ inner)
    return result


WAYS = {
    "apart": (SeparateExperts, None, 5, None),
    "gathered": (StackedExperts, "here", 2, "_gathered"),
    "all": (StackedExperts, "here", 5, "_every"),
    "with a wait": (StackedExperts, "here", 257, "_one"),
    "grouped": (StackedExperts, None, 5, "_in_groups"),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_is_the_weighted_sum_of_the_chosen_experts(
    monkeypatch: pytest.MonkeyPatch, way: str, dtype: Any
) -> None:
    kind, fault, tokens, method = WAYS[way]
    monkeypatch.setattr(experts, "grouped_fault", lambda *_: fault)
    moe = make(kind, dtype)
    if method is not None:
        taken = []
        original = getattr(moe, method)

        def watched(*given: Any) -> Any:
            taken.append(method)
            return original(*given)

        monkeypatch.setattr(moe, method, watched)
    generator = torch.Generator().manual_seed(9)
    x = torch.randn(tokens, HIDDEN, generator=generator).to(dtype)
    per_token = 2
    chosen = torch.stack([torch.randperm(COUNT, generator=generator)[:per_token] for _ in range(tokens)])
    weights = torch.rand(tokens, per_token, generator=generator).to(dtype)
    with torch.inference_mode():
        result = moe(x, weights, chosen)
    assert result.dtype == dtype
    assert method is None or taken
    expected = expected_sum(moe, x, weights, chosen)
    error = (result.double() - expected).norm() / expected.norm()
    assert error < (1e-5 if dtype == torch.float32 else 1e-2)


def test_an_expert_that_was_not_chosen_cannot_spoil_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experts, "grouped_fault", lambda *_: "here")
    moe = make(StackedExperts, torch.float32)
    for name, tensor in moe.tensors():
        if ".7." in name:
            tensor.fill_(1e30)  # overflows
    chosen = torch.arange(6).expand(5, 6)
    with torch.inference_mode():
        assert moe(torch.ones(5, HIDDEN), torch.ones(5, 6), chosen).isfinite().all()


def test_the_device_decides_the_form() -> None:
    assert isinstance(experts.routed_experts(2, 8, 8, room()), SeparateExperts)
    parameters = Parameters(torch.bfloat16, torch.device("cuda", 0), 1, 1, planned=True)
    experts.grouped_fault.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experts, "grouped_fault", lambda *_: "no kernel")
        stacked = experts.routed_experts(2, 8, 8, parameters)
    assert isinstance(stacked, StackedExperts)
    assert stacked.kind == "gathered, or all at once: no kernel"


@pytest.mark.parametrize(
    ("dtype", "device", "hidden", "named"),
    [
        (torch.bfloat16, "cpu", 64, "on cpu"),
        (torch.float16, "cuda", 64, "float16"),
        (torch.bfloat16, "cuda", 60, "multiples of 8"),
    ],
)
def test_where_grouped_products_are_not_tried(dtype: Any, device: str, hidden: int, named: str) -> None:
    fault = experts.grouped_fault(dtype, torch.device(device), hidden, 64)
    assert fault is not None
    assert named in fault
