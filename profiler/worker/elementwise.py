"""What a decoder does to single values: norms, rotation, gating."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  the name everybody knows it by


def rms_norm(x: Any, weight: Any, eps: float) -> Any:
    """RMSNorm over the last dimension, in float32 as all our families do it (Zhang & Sennrich 2019)."""
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


def rotate(x: Any, cos: Any, sin: Any) -> Any:
    """Rotary embedding of ``[B, T, heads, D]``; pairs are (d, d + D/2) as in most Hugging Face checkpoints.

    ``cos`` and ``sin`` are ``[T, 1, D/2]``.
    """
    first, second = x.chunk(2, -1)
    return _rotated(first, second, cos, sin)


def rotate_pairs(x: Any, cos: Any, sin: Any) -> Any:
    """Like :func:`rotate`, but pairs are (2d, 2d + 1) as in DeepSeek's checkpoints.

    The result is laid out as that of :func:`rotate`: queries and keys are reordered alike, which no
    product of the two notices.
    """
    return _rotated(x[..., 0::2], x[..., 1::2], cos, sin)


def _rotated(first: Any, second: Any, cos: Any, sin: Any) -> Any:
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


def swiglu(gate_up: Any) -> Any:
    """Return ``silu(gate) * up`` of ``[..., 2 I]``, whose first half is the gate (Shazeer 2020)."""
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate) * up
