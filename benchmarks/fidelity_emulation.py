"""Number formats and mistakes, emulated on the torch engine, to see what a fidelity check makes of them.

Matrices are rounded to what a format can hold and multiplied in the engine's own dtype; activations and
caches likewise where the format rounds them. That is the noise of the format, without its speed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from profiler.worker.parameters import Linear

Rounding = Callable[[Any], Any]


def integers(x: Any, bits: int, group: int | None) -> Any:
    """Round to symmetric integers with a scale for each ``group`` of the last dimension (None: all of it)."""
    grouped = _grouped(x.float(), group)
    scale = grouped.abs().amax(-1, keepdim=True).clamp_min(1e-12) / (2 ** (bits - 1) - 1)
    return ((grouped / scale).round() * scale).reshape(x.shape).to(x.dtype)


def integers_with_zero(x: Any, bits: int, group: int | None) -> Any:
    """Likewise with a zero point, as AWQ and GPTQ checkpoints have it."""
    grouped = _grouped(x.float(), group)
    low, high = grouped.amin(-1, keepdim=True), grouped.amax(-1, keepdim=True)
    scale = (high - low).clamp_min(1e-12) / (2**bits - 1)
    return (((grouped - low) / scale).round() * scale + low).reshape(x.shape).to(x.dtype)


def e4m3(x: Any, group: int | None) -> Any:
    """Round to 8-bit floating point, scaled so that the largest of each group is the largest number, 448."""
    grouped = _grouped(x.float(), group)
    scale = grouped.abs().amax(-1, keepdim=True).clamp_min(1e-12) / 448.0
    return ((grouped / scale).to(torch.float8_e4m3fn).float() * scale).reshape(x.shape).to(x.dtype)


def e4m3_blocks(x: Any) -> Any:
    """Likewise with one scale for each 128 x 128 block of a matrix."""
    rows, columns = x.shape
    wide = torch.nn.functional.pad(x.float(), (0, -columns % 128, 0, -rows % 128))
    blocks = wide.unflatten(0, (-1, 128)).unflatten(2, (-1, 128)).transpose(1, 2)
    rounded = e4m3(blocks.flatten(2), None).view(blocks.shape)
    return rounded.transpose(1, 2).flatten(2).flatten(0, 1)[:rows, :columns].to(x.dtype)


def unscaled_e4m3(x: Any) -> Any:
    """8-bit floating point without a scale, as vLLM keeps an fp8 cache by default."""
    return x.float().clamp(-448, 448).to(torch.float8_e4m3fn).to(x.dtype)


# Rounding of matrices, of activations, of embedding and head (None: none), and the engine's dtype.
FORMATS: dict[str, tuple[Rounding | None, Rounding | None, Rounding | None, str]] = {
    "fp32": (None, None, None, "fp32"),
    "fp16": (None, None, None, "fp16"),
    "bf16": (None, None, None, "bf16"),
    "fp8-block128": (e4m3_blocks, lambda x: e4m3(x, 128), None, "bf16"),
    "w8a16-int8": (lambda w: integers(w, 8, None), None, None, "bf16"),
    "w8a8-int8": (lambda w: integers(w, 8, None), lambda x: integers(x, 8, None), None, "bf16"),
    "w4a16-g128": (lambda w: integers_with_zero(w, 4, 128), None, None, "fp16"),
    "q8_0": (
        lambda w: integers(w, 8, 32),
        lambda x: integers(x, 8, 32),
        lambda w: integers(w, 8, 32),
        "fp16",
    ),
    "q4_0": (
        lambda w: integers(w, 4, 32),
        lambda x: integers(x, 8, 32),
        lambda w: integers(w, 6, 16),
        "fp16",
    ),
}
CACHES: dict[str, Rounding] = {"fp8": unscaled_e4m3, "int8": lambda kv: integers(kv, 8, None)}


class _RoundedInput(Linear):
    """A matrix product whose input is rounded first."""

    rounding: Rounding

    def __call__(self, x: Any) -> Any:
        return super().__call__(self.rounding(x))


def round_weights(engine: Any, weight_format: str) -> None:
    """Make a loaded engine compute as with weights in ``weight_format``; it must not have packed them."""
    matrices, activations, ends, _ = FORMATS[weight_format]
    model = engine._model
    with torch.inference_mode():
        for name, tensor in model.tensors():
            outside = name in ("model.embed_tokens.weight", "lm_head.weight")
            rounding = ends if outside else matrices
            if rounding is not None and tensor.dim() == 2 and not name.endswith("mlp.gate.weight"):
                tensor.copy_(rounding(tensor))
    if activations is not None:
        for matrix in engine._parameters._matrices:
            if isinstance(matrix, Linear) and matrix is not model._head:
                matrix.__class__ = _RoundedInput
                matrix.rounding = activations  # type: ignore[attr-defined]


def round_cache(engine: Any, kv_dtype: str) -> None:
    """Make a loaded engine keep its cache in ``kv_dtype``: what later steps read is rounded."""
    forward, rounding = engine._model.forward, CACHES[kv_dtype]

    def rounded(ids: Any, position: int) -> Any:
        logits = forward(ids, position)
        with torch.inference_mode():
            for part in engine._parameters._cache:
                new = part[:, :, position : position + ids.shape[1]]
                new.copy_(rounding(new))
        return logits

    engine._model.forward = rounded


def skip_layer(engine: Any, number: int) -> None:
    """Leave one layer out."""
    layers = engine._model._layers
    engine._model._layers = {kept: layer for kept, layer in layers.items() if kept != number}


def _grouped(x: Any, group: int | None) -> Any:
    if group is None or x.shape[-1] % group:  # ggml and AWQ need whole groups; others fall back to rows
        return x
    return x.unflatten(-1, (-1, group))
