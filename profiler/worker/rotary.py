"""Angles of the rotary embedding, and the scalings that stretch it to longer contexts.

Fields are those of ``rope_scaling`` in ``config.json``; meanings and defaults are those of transformers.
"""

from __future__ import annotations

import math
from typing import Any

import torch


def rotary_table(architecture: dict[str, Any], positions: int) -> tuple[Any, Any]:
    """Return (cos, sin), each ``[positions, 1, D/2]`` float32 on the host; D is what rotates of a head."""
    latent, theta = architecture["latent_attention"], architecture["rope_theta"]
    width = architecture["head_dim"] if latent is None else latent["rope_head_dim"]
    frequencies = [theta ** (-dimension / width) for dimension in range(0, width, 2)]
    scaling, factor = architecture["rope_scaling"] or {}, 1.0
    if scaling.get("rope_type") == "llama3":
        frequencies = [_llama3(frequency, scaling) for frequency in frequencies]
    elif scaling.get("rope_type") == "yarn":
        frequencies, factor = _yarn(frequencies, theta, scaling), _yarn_factor(scaling)
    angles = torch.arange(positions, dtype=torch.float32)[:, None] * torch.tensor(frequencies)
    return factor * angles.cos().unsqueeze(1), factor * angles.sin().unsqueeze(1)


def latent_scale(architecture: dict[str, Any]) -> float:
    """Return what latent attention multiplies its scores with: ``D ** -0.5``, and for YaRN its temperature.

    DeepSeek-V3 keeps YaRN's temperature (``mscale_all_dim``) out of cos and sin, where it would only
    reach the rotated part of a head, and puts its square here.
    """
    scaling = architecture["rope_scaling"] or {}
    temperature = _temperature(scaling.get("factor", 1.0), scaling.get("mscale_all_dim") or 0.0)
    return float(architecture["head_dim"] ** -0.5 * temperature**2)


def _llama3(frequency: float, scaling: dict[str, Any]) -> float:
    """Slow a rotary frequency down as Llama 3.1 does: long waves by ``factor``, short ones not at all."""
    turns = scaling["original_max_position_embeddings"] * frequency / (2 * math.pi)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    smooth = min(1.0, max(0.0, (turns - low) / (high - low)))
    return float(frequency * (smooth + (1.0 - smooth) / scaling["factor"]))


def _yarn(frequencies: list[float], theta: float, scaling: dict[str, Any]) -> list[float]:
    """Slow frequencies down as YaRN does (Peng et al. 2023, arXiv:2309.00071, section 3.2).

    Dimensions that turn more than ``beta_fast`` times in the original context keep their frequency,
    those that turn less than ``beta_slow`` times get it divided by ``factor``, and between the two
    the share of the division grows linearly with the dimension.
    """
    original, factor = scaling["original_max_position_embeddings"], scaling["factor"]

    def dimension(turns: float) -> float:
        return len(frequencies) * math.log(original / (turns * 2 * math.pi)) / math.log(theta)

    low, high = dimension(scaling.get("beta_fast") or 32.0), dimension(scaling.get("beta_slow") or 1.0)
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * len(frequencies) - 1)
    reach = high - low or 0.001
    shares = (min(1.0, max(0.0, (index - low) / reach)) for index in range(len(frequencies)))
    return [
        frequency * (1.0 - share) + frequency / factor * share
        for frequency, share in zip(frequencies, shares)  # noqa: B905  strict= came with Python 3.10
    ]


def _yarn_factor(scaling: dict[str, Any]) -> float:
    """Return what YaRN multiplies cos and sin with, its temperature on queries and on keys."""
    given, factor = scaling.get("attention_factor"), scaling["factor"]
    if given is not None:
        return float(given)
    mscale, all_dimensions = scaling.get("mscale"), scaling.get("mscale_all_dim")
    if mscale and all_dimensions:
        return _temperature(factor, mscale) / _temperature(factor, all_dimensions)
    return _temperature(factor, 1.0)


def _temperature(factor: float, mscale: float) -> float:
    """Return ``0.1 mscale ln(factor) + 1`` (arXiv:2309.00071, equation 22), 1 when nothing is stretched."""
    return 1.0 if factor <= 1.0 else 0.1 * mscale * math.log(factor) + 1.0
