"""How fast a device multiplies matrices, by number format.

Values are N(0, 1): zeros and ones switch fewer transistors, and a device under a power limit then
runs faster than it ever does with real data. Nothing else is varied but the size, since a ceiling is
what the device can do at its best.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List

import torch

from . import timed, torch_devices
from .protocol import EngineError

_FLOATS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FORMATS = (*_FLOATS, "int8", "fp8")
_METHOD = "%s of N(0,1) values; faster of two square products, the larger as large as 0.2 s allow"
_SMALLEST, _LARGEST = 512, 16384
_LONGEST_PRODUCT_S = 0.2
_READING_S = 0.06
_WINDOW_S = 1.0


def matrix_flops(device: Any, number_format: str, repeats: int) -> Dict[str, Any]:
    """Multiply square matrices on ``device``.

    Args:
        device: a ``torch.device``.
        number_format: one of :data:`FORMATS`; what both factors are.
        repeats: values wanted; each takes about 0.15 s, more on a device that needs longer for one product.

    Returns:
        ``flops_per_s`` (one per repeat, a multiply and an add are two), ``method``, ``sizes``.

    Raises:
        EngineError: ``unsupported`` where PyTorch has no such product on this device.
    """
    products, sizes = _products(device, number_format)
    amounts = {name: 2.0 * size**3 for name, size in sizes.items()}
    with _full_precision():
        rates = timed.fastest_rates(products, amounts, device, repeats, _READING_S)
    return {"flops_per_s": rates, "method": _METHOD % _operator(number_format), "sizes": [*sizes.values()]}


def sustained_matrix_flops(device: Any, number_format: str, seconds: float) -> Dict[str, Any]:
    """Multiply without a pause for ``seconds``, in windows of a second.

    Returns:
        ``flops_per_s`` (one per window), ``method``, and ``started_ns`` and ``ended_ns``, CLOCK_MONOTONIC.

    Raises:
        EngineError: as :func:`matrix_flops`.
    """
    products, sizes = _products(device, number_format)
    amounts = {name: 2.0 * size**3 for name, size in sizes.items()}
    with _full_precision():
        best = max(
            products,
            key=lambda name: amounts[name] / timed.elapsed_s(products[name], 2, device),
        )
        passes = timed.passes_for(products[best], device, _WINDOW_S)
        started_ns = time.monotonic_ns()
        rates: List[float] = []
        while (time.monotonic_ns() - started_ns) / 1e9 < seconds:
            rates.append(amounts[best] * passes / timed.elapsed_s(products[best], passes, device))
    return {
        "flops_per_s": rates,
        "method": f"{_operator(number_format)} of N(0,1) values without a pause, windows of about 1 s",
        "started_ns": started_ns,
        "ended_ns": time.monotonic_ns(),
        "sizes": [sizes[best]],
    }


def _operator(number_format: str) -> str:
    return {"int8": "torch._int_mm", "fp8": "torch._scaled_mm (e4m3)"}.get(number_format, "torch.mm")


def _products(device: Any, number_format: str) -> Any:
    """Return the products by name, and their sizes: as large as time and memory allow, and half of that."""
    if number_format not in FORMATS:
        raise EngineError("bad_request", f"no products of {number_format!r}, only {', '.join(FORMATS)}")
    smallest = _product(device, number_format, _SMALLEST)
    try:
        smallest()
        # The fastest of several, or a moment's disturbance would choose a small size.
        seconds = min(timed.elapsed_s(smallest, 1, device) for _ in range(5))
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        message = f"no {_operator(number_format)} of {number_format} on {device}: {reason}"
        raise EngineError("unsupported", message) from error
    _, free, _ = torch_devices.memory_bytes(device)
    size = _SMALLEST
    # A small product runs below the device's best rate, so its time overstates that of a larger one.
    while (
        size < _LARGEST
        and seconds * (2 * size / _SMALLEST) ** 3 <= _LONGEST_PRODUCT_S
        and (free is None or 4 * 12 * size * size < free // 4)
    ):
        size *= 2
    sizes = {"large": size, "half": size // 2}
    return {name: _product(device, number_format, side) for name, side in sizes.items()}, sizes


def _product(device: Any, number_format: str, size: int) -> Callable[[], Any]:
    """Return a product of two ``[size, size]`` matrices, the second one transposed as weights are."""
    generator = torch.Generator().manual_seed(size)
    # Rows repeat every 512: enough different values, made in a moment on any host.
    rows = [torch.randn(512, size, generator=generator).repeat(-(-size // 512), 1)[:size] for _ in "ab"]
    if number_format == "int8":
        # 3.9 standard deviations fill the range.
        left, right = ((part * 32).round().clamp(-127, 127).to(torch.int8).to(device) for part in rows)
        return lambda: torch._int_mm(left, right.t())
    if number_format == "fp8":
        eight_bits = getattr(torch, "float8_e4m3fn", None)
        if eight_bits is None or device.type == "cpu":
            raise EngineError("unsupported", f"PyTorch has no fast fp8 products on {device}")
        left, right = (part.to(device).to(eight_bits) for part in rows)
        one = torch.ones((), device=device)
        return lambda: torch._scaled_mm(left, right.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16)
    left, right = (part.to(device).to(_FLOATS[number_format]) for part in rows)
    return lambda: torch.mm(left, right.t())


class _full_precision:  # noqa: N801  used as a statement, like the context managers of torch
    """fp32 means fp32 while this is entered: no TF32 or bf16 in its place."""

    def __enter__(self) -> None:
        self._before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")

    def __exit__(self, *_: Any) -> None:
        torch.set_float32_matmul_precision(self._before)
