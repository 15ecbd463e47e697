"""MLPs: the dense one, and the mixture of experts with its router.

Shapes: N tokens (B sequences times T tokens), E routed experts of inner width I, k of them for each
token. How a token's experts are reached depends on the device, see :func:`routed_experts`.
"""

from __future__ import annotations

import functools
from typing import Any, Iterator

import torch
import torch.nn.functional as F  # noqa: N812  the name everybody knows it by

from .elementwise import swiglu
from .parameters import Parameters

Named = Iterator[tuple[str, Any]]

# Above this many tokens, computing every expert for every token is no longer free beside reading it.
_EVERY_EXPERT_TOKENS = 256


class DenseMlp:
    """SwiGLU with gate and up in one projection; ``name`` is that of the module below the layer."""

    def __init__(self, hidden: int, inner: int, parameters: Parameters, name: str = "mlp") -> None:
        self._name = name
        self._gate_up, self._down = parameters.linear(2 * inner, hidden), parameters.linear(hidden, inner)
        self._gate: Any = swiglu

    def tensors(self) -> Named:
        """Yield (name below the layer, view to fill)."""
        gate, up = self._gate_up.weight.chunk(2)
        yield f"{self._name}.gate_proj.weight", gate
        yield f"{self._name}.up_proj.weight", up
        yield f"{self._name}.down_proj.weight", self._down.weight

    def fused(self, norm: Any, eps: float) -> Any:
        """Return ``f(stream)`` that norms, computes and adds in one native call, or None."""
        kernels = self._gate_up.native
        if kernels is None or self._down.native is None:
            return None
        return kernels.mlp(norm, self._gate_up.weight, self._down.weight, eps)

    def gate_natively(self, kernels: Any) -> bool:
        """Let ``kernels`` gate what a prompt puts between the products; None takes it back."""
        self._gate = swiglu if kernels is None else kernels.gate
        return kernels is not None

    def __call__(self, x: Any) -> Any:
        """Return the MLP of ``[..., hidden]``."""
        return self._down((self._gate if x.shape[-2] > 1 else swiglu)(self._gate_up(x)))


class MixtureOfExperts:
    """Routed experts, plus for some models a shared one that every token goes through."""

    def __init__(self, architecture: dict[str, Any], parameters: Parameters) -> None:
        moe, hidden = architecture["experts"], architecture["hidden_size"]
        self._router = Router(moe, hidden, parameters)
        self.routed = routed_experts(moe["count"], hidden, moe["intermediate_size"], parameters)
        shared = moe["shared"] * moe["intermediate_size"]
        self._shared = DenseMlp(hidden, shared, parameters, "mlp.shared_experts") if shared else None

    def tensors(self) -> Named:
        """Yield (name below the layer, view to fill)."""
        yield from self._router.tensors()
        yield from self.routed.tensors()
        if self._shared is not None:
            yield from self._shared.tensors()

    def fused(self, norm: Any, eps: float) -> None:
        """There is no native call for the whole of it, only for its products."""

    def gate_natively(self, kernels: Any) -> bool:
        """Experts are gated by PyTorch's operators."""
        return False

    def __call__(self, x: Any) -> Any:
        """Return the MLP of ``[B, T, hidden]``."""
        tokens = x.flatten(0, 1)
        mixed = self.routed(tokens, *self._router(tokens)).view_as(x)
        return mixed if self._shared is None else mixed + self._shared(x)


class Router:
    """Chooses each token's experts as transformers does, by the same operations, so that ties fall alike.

    Softmax scores take the k best (Qwen3-MoE). Sigmoid scores (DeepSeek-V3, arXiv:2412.19437, section
    2.1.2) add a bias that only the choice sees, and choose within the groups whose two best experts
    score highest together.
    """

    def __init__(self, moe: dict[str, Any], hidden: int, parameters: Parameters) -> None:
        self._moe = moe
        self._weight = parameters.tensor(moe["count"], hidden)
        # In float32 whatever the rest is: in 16 bits it would decide other choices.
        biased = moe["routing_bias"]
        self._bias = parameters.tensor(moe["count"], dtype=torch.float32) if biased else None

    def tensors(self) -> Named:
        """Yield (name below the layer, view to fill)."""
        yield "mlp.gate.weight", self._weight
        if self._bias is not None:
            yield "mlp.gate.e_score_correction_bias", self._bias

    def __call__(self, x: Any) -> tuple[Any, Any]:
        """Return (weights ``[N, k]`` of ``x``'s dtype, experts ``[N, k]``) for tokens ``[N, hidden]``."""
        moe = self._moe
        if moe["scoring"] == "sigmoid":
            scores = F.linear(x.float(), self._weight.float()).sigmoid()
        else:
            scores = torch.softmax(F.linear(x, self._weight), -1, dtype=torch.float32)
        ranked = scores if self._bias is None else scores + self._bias
        if moe["groups"] > 1:
            ranked = self._within_groups(ranked)
        chosen = torch.topk(ranked, moe["per_token"], dim=-1, sorted=False)[1]
        weights = scores.gather(1, chosen)
        if moe["normalise"]:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return (weights * moe["scale"]).to(x.dtype), chosen

    def _within_groups(self, ranked: Any) -> Any:
        """Return ``[N, E]`` with minus infinity outside each token's best groups."""
        groups = ranked.unflatten(-1, (self._moe["groups"], -1))
        best = groups.topk(min(2, groups.shape[-1]), dim=-1)[0].sum(-1)
        kept = torch.topk(best, self._moe["groups_per_token"], dim=-1, sorted=False)[1]
        outside = torch.ones_like(best, dtype=torch.bool).scatter_(1, kept, False)
        return groups.masked_fill(outside.unsqueeze(-1), float("-inf")).flatten(1)


def routed_experts(count: int, hidden: int, inner: int, parameters: Parameters) -> Any:
    """Return the experts in the form that suits the device.

    A CPU reads the choice without waiting for anybody, so it loops over the experts that were chosen,
    each a matrix product that can be packed. An accelerator must not stop a decode step to tell the
    host what was chosen; its experts are stacked, and the choice stays on the device.
    """
    if parameters.device.type == "cpu":
        return SeparateExperts(count, hidden, inner, parameters)
    return StackedExperts(count, hidden, inner, parameters)


class SeparateExperts:
    """Experts one by one: those that any token chose, each once, with all of its tokens."""

    def __init__(self, count: int, hidden: int, inner: int, parameters: Parameters) -> None:
        names = (f"mlp.experts.{expert}" for expert in range(count))
        self._experts = [DenseMlp(hidden, inner, parameters, name) for name in names]
        self.kind = "one after the other"

    def tensors(self) -> Named:
        """Yield (name below the layer, view to fill)."""
        for expert in self._experts:
            yield from expert.tensors()

    def __call__(self, x: Any, weights: Any, chosen: Any) -> Any:
        """Return ``[N, hidden]``, the weighted sum of each token's experts."""
        return _each_apart(self._experts, x, weights, chosen)


class StackedExperts:
    """Experts in two tensors, reached without the host knowing which of them were chosen.

    Where PyTorch has grouped products on the device, they read exactly the experts that were chosen.
    Elsewhere, when few were chosen, their weights are gathered: three times their bytes move
    instead of once, unless a compiler fuses the gathering into the product. When more were chosen
    than a third of all, every expert is computed for every token and weighted with 0 where it was
    not chosen: the weights are read once, and the operations are free beside that. Only above 256
    tokens at once, as in a prefill, the host waits for the choice.
    """

    def __init__(self, count: int, hidden: int, inner: int, parameters: Parameters) -> None:
        self._gate_up = parameters.tensor(count, 2 * inner, hidden)
        self._down = parameters.tensor(count, hidden, inner)
        self._numbers = torch.arange(count, device=parameters.storage)
        fault = grouped_fault(parameters.dtype, parameters.device, hidden, inner)
        self._grouped = fault is None
        self.kind = "grouped products" if fault is None else f"gathered, or all at once: {fault}"

    def tensors(self) -> Named:
        """Yield (name below the layer, view to fill)."""
        for expert, (gate_up, down) in enumerate(zip(self._gate_up, self._down)):  # noqa: B905
            gate, up = gate_up.chunk(2)
            yield f"mlp.experts.{expert}.gate_proj.weight", gate
            yield f"mlp.experts.{expert}.up_proj.weight", up
            yield f"mlp.experts.{expert}.down_proj.weight", down

    def __call__(self, x: Any, weights: Any, chosen: Any) -> Any:
        """Return ``[N, hidden]``, the weighted sum of each token's experts."""
        if self._grouped:
            return self._in_groups(x, weights, chosen)
        if 3 * chosen.numel() <= len(self._gate_up):
            return self._gathered(x, weights, chosen)
        if len(x) <= _EVERY_EXPERT_TOKENS:
            return self._every(x, weights, chosen)
        return _each_apart(
            [functools.partial(self._one, e) for e in range(len(self._down))], x, weights, chosen
        )

    def _in_groups(self, x: Any, weights: Any, chosen: Any) -> Any:
        experts, order = chosen.flatten().sort(stable=True)
        ends = torch.searchsorted(experts, self._numbers, right=True, out_int32=True)
        inner = swiglu(_grouped_product(x[order // chosen.shape[1]], self._gate_up, ends))
        return _summed(_grouped_product(inner, self._down, ends), order, weights)

    def _gathered(self, x: Any, weights: Any, chosen: Any) -> Any:
        experts = chosen.flatten()
        pairs = x.unsqueeze(1).expand(-1, chosen.shape[1], -1).reshape(len(experts), -1, 1)
        inner = swiglu(torch.bmm(self._gate_up[experts], pairs).squeeze(-1))
        pairs = torch.bmm(self._down[experts], inner.unsqueeze(-1)).squeeze(-1)
        return _weighted(pairs, weights)

    def _every(self, x: Any, weights: Any, chosen: Any) -> Any:
        shares = x.new_zeros(len(x), len(self._down)).scatter_(1, chosen, weights).t().unsqueeze(-1)
        inner = swiglu(torch.matmul(x, self._gate_up.transpose(1, 2)))
        # Not by the product with 0 alone: an expert that overflows for a foreign token would leave a NaN.
        inner = (inner * shares).masked_fill_(shares == 0, 0)
        return torch.bmm(inner, self._down.transpose(1, 2)).sum(0)

    def _one(self, expert: int, x: Any) -> Any:
        return F.linear(swiglu(F.linear(x, self._gate_up[expert])), self._down[expert])


def _each_apart(experts: list[Any], x: Any, weights: Any, chosen: Any) -> Any:
    """Call each expert that was chosen once; the host has to know the choice."""
    order = chosen.flatten().argsort(stable=True)
    counts = torch.bincount(chosen.flatten(), minlength=len(experts)).tolist()
    used = [(expert, count) for expert, count in zip(experts, counts) if count]  # noqa: B905
    rows = x[order // chosen.shape[1]].split([count for _, count in used])
    pairs = torch.cat([expert(part) for (expert, _), part in zip(used, rows)])  # noqa: B905
    return _summed(pairs, order, weights)


def _summed(pairs: Any, order: Any, weights: Any) -> Any:
    """Like :func:`_weighted`, for pairs sorted by expert; ``order`` says where each belongs."""
    return _weighted(torch.empty_like(pairs).index_copy_(0, order, pairs), weights)


def _weighted(pairs: Any, weights: Any) -> Any:
    """Return ``[N, hidden]`` of ``[N k, hidden]``: sums over each token's experts, in float32 inside."""
    return torch.bmm(weights.unsqueeze(1), pairs.unflatten(0, weights.shape)).squeeze(1)


def _grouped_product(rows: Any, weights: Any, ends: Any) -> Any:
    """Multiply rows ``[N k, columns]``, sorted by expert, by each one's ``[outputs, columns]`` transposed.

    ``ends``, ``[E]`` int32, says where each expert's rows end.
    """
    product = getattr(F, "grouped_mm", None) or torch._grouped_mm  # public since PyTorch 2.10
    return product(rows, weights.transpose(1, 2), offs=ends)


@functools.lru_cache(maxsize=8)
def grouped_fault(dtype: Any, device: Any, hidden: int, inner: int) -> str | None:
    """Return why grouped products cannot be used on ``device``, or None when they can.

    Where PyTorch lacks a kernel for the device it loops and waits for the device, which the sample
    below finds out.
    """
    if device.type != "cuda" or dtype != torch.bfloat16:
        return f"no grouped products in {str(dtype).split('.')[-1]} on {device.type}"
    if hidden % 8 or inner % 8:
        return "grouped products need widths that are multiples of 8"
    rows, weights = torch.randn(5, 64, device=device), torch.randn(3, 16, 64, device=device)
    rows, weights, ends = rows.to(dtype), weights.to(dtype), torch.tensor([2, 2, 5], device=device).int()
    expected = torch.cat((rows[:2] @ weights[0].t(), rows[2:] @ weights[2].t()))
    mode = torch.cuda.get_sync_debug_mode()
    try:
        product = _grouped_product(rows, weights, ends)
        torch.cuda.set_sync_debug_mode("error")
        _grouped_product(rows, weights, ends)
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        return f"grouped products: {str(error).splitlines()[0]}"
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    close = torch.allclose(product.float(), expected.float(), atol=0.1, rtol=0.02)
    return None if close else "grouped products computed a wrong sample"
