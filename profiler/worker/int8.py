"""Weights in 8 bits with a scale for each output, quantised by torchao; activations stay wide.

torchao rounds; the product is its own, or on CPUs PyTorch's ``_weight_int8pack_mm`` on the same integers,
whichever is measured to be faster for one step's rows and for a prompt's (torchao expands the whole matrix
before each product there, unless a compiler fuses the two).
"""

from __future__ import annotations

import time
from typing import Any, Callable

import torch

from .fusing import error_of_largest
from .kernels import CHECK_BOUNDS, PROMPT_ROWS, Work
from .parameters import Linear, Parameters
from .protocol import EngineError
from .torch_support import INT8

ROUNDS = 3
ROUNDING = 0.02
"""Largest difference of a sample's product from that of the wide weights, relative to its largest value:
weights are off by half of 1/127 of their row's largest at most."""


class Int8Product:
    """``y = x W^T + b`` for a quantised ``W``; ``few`` and ``many`` are its ways for steps and prompts."""

    def __init__(self, weight: Any) -> None:
        module = torch.nn.Linear(*reversed(weight.shape), bias=False, device="meta")
        module.weight = torch.nn.Parameter(weight, requires_grad=False)
        torchao = _torchao()
        torchao.quantize_(module, torchao.Int8WeightOnlyConfig())
        self._module = module
        self._integers = module.weight.qdata
        self._scales = module.weight.scale.flatten().to(weight.dtype)
        self.few_rows = 0
        self.few = self.many = self.by_torchao

    @property
    def nbytes(self) -> int:
        """Bytes of the integers and of the scales that torchao keeps."""
        scale = self._module.weight.scale
        return int(self._integers.numel() + scale.numel() * scale.element_size())

    def __call__(self, x: Any, bias: Any) -> Any:
        """Return ``[..., rows]`` for ``x`` of ``[..., columns]``."""
        flat = x.flatten(0, -2)
        y = (self.few if len(flat) <= self.few_rows else self.many)(flat).unflatten(0, x.shape[:-1])
        return y if bias is None else y + bias

    def by_torchao(self, x: Any) -> Any:
        """Return torchao's product of ``[N, columns]``."""
        return self._module(x)

    def by_pytorch(self, x: Any) -> Any:
        """Return PyTorch's product for packed 8-bit weights, which CPUs have."""
        return torch.ops.aten._weight_int8pack_mm(x, self._integers, self._scales)

    def use(self, few_rows: int, few: str, many: str) -> None:
        """Multiply up to ``few_rows`` by the way named ``few``, more by ``many``."""
        known = {"torchao": self.by_torchao, "int8pack_mm": self.by_pytorch}
        self.few_rows, self.few, self.many = few_rows, known[few], known[many]

    def noise(self, rows: int) -> Any:
        """Return an input of so many rows."""
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(rows, self._integers.shape[1], generator=generator)
        return x.to(self._scales.dtype).to(self._scales.device)

    def ways(self) -> dict[str, Callable[[Any], Any]]:
        """Return the ways that this device has and that agree with torchao's own."""
        found: dict[str, Callable[[Any], Any]] = {"torchao": self.by_torchao}
        if self._integers.device.type == "cpu":
            x = self.noise(3)
            try:
                error = error_of_largest(self.by_pytorch(x).float(), self.by_torchao(x).float())
            except (RuntimeError, AttributeError):
                return found
            # Scales are rounded to the computation's format here.
            if error <= 2 * CHECK_BOUNDS.get(x.dtype, 0.0):
                found["int8pack_mm"] = self.by_pytorch
        return found


def int8_fault(architecture: dict[str, Any], dtype: Any, device: Any) -> str | None:
    """Return why weights cannot be held in 8 bits for this model or on this device, or None."""
    if architecture["experts"] is not None or architecture["latent_attention"] is not None:
        return "only the matrices of dense models with grouped queries are quantised here"
    try:
        weight = torch.randn(64, 64, dtype=dtype, device=device)
        sample = torch.randn(2, 64, dtype=dtype, device=device)
        product = Int8Product(weight.clone())(sample, None)
        error = error_of_largest(product.float(), (sample @ weight.t()).float())
    except ImportError as missing:
        return f"torchao is not to be had in the worker's Python ({missing}); pip install torchao"
    except Exception as fault:  # whatever torchao raises on a device that it does not know
        return f"torchao: {str(fault).splitlines()[0] if str(fault) else type(fault).__name__}"
    if error <= ROUNDING:
        return None
    return f"torchao's product of a sample is off by {error:.2g} of the largest value"


def require_int8(architecture: dict[str, Any], dtype: Any, device: Any) -> None:
    """Refuse a model that cannot be quantised here, before anything is allocated.

    Raises:
        EngineError: ``unsupported``, with the reason.
    """
    fault = int8_fault(architecture, dtype, device)
    if fault is not None:
        raise EngineError("unsupported", f"{INT8} weights are unsupported on {device} because {fault}")


def quantise(parameters: Parameters, work: Work) -> tuple[dict[str, Any], float | None]:
    """Quantise every product but the head, one after the other, and choose the faster ways.

    Returns:
        Details for the record, and the seconds this took.
    """
    began = time.perf_counter()
    entries = []
    for shape, matrices in parameters.linears():
        if matrices[0].last_only:
            continue
        for matrix in matrices:
            matrix.quantise(Int8Product(matrix.weight))
        entries.append({"shape": list(shape), "matrices": len(matrices), **_choose(matrices, work)})
    details: dict[str, Any] = {
        "linear": f"{INT8} by torchao {getattr(_torchao_package(), '__version__', 'of unknown version')}",
        "kernels": entries,
        "fused_parts": "no native products",
        "fused_prompts": "no native products",
        "kernels_unavailable": {},
        "native": None,
    }
    return details, time.perf_counter() - began


def _choose(matrices: list[Linear], work: Work) -> dict[str, Any]:
    """Give all products of a shape the faster ways, measured on the first; return the record of it."""
    first = matrices[0].int8
    ways = first.ways()
    many_rows = min(PROMPT_ROWS, work.batch * work.prompt_tokens)
    step_s, prompt_s = (
        {way: _best_s(call, first.noise(rows)) for way, call in ways.items()} if len(ways) > 1 else None
        for rows in (work.batch, many_rows)
    )
    few, many = (min(took, key=lambda way: took[way]) if took else "torchao" for took in (step_s, prompt_s))
    for matrix in matrices:
        matrix.int8.use(work.batch, few, many)
    return {
        "head": False,
        "chosen": few,
        "prompt_kernel": many,
        "step_s": step_s and {way: round(seconds, 9) for way, seconds in step_s.items()},
        "prompt_s": prompt_s and {way: round(seconds, 9) for way, seconds in prompt_s.items()},
        "prompt_rows": many_rows,
    }


def _best_s(call: Callable[[Any], Any], x: Any) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        call(x)
        best = min(best, time.perf_counter() - began)
    return best


def _torchao_package() -> Any:
    import torchao

    return torchao


def _torchao() -> Any:
    from torchao import quantization

    return quantization
