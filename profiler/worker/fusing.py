"""Whole parts of a layer in one native call: checked against PyTorch's operators, prompts also timed."""

from __future__ import annotations

import time
from typing import Any

import torch

from .parameters import Parameters

FUSED_BOUNDS = {torch.bfloat16: 2**-5, torch.float32: 1e-4}
"""Largest difference of a whole part of a layer from PyTorch's operators, relative to its largest value;
both round several times, at different places."""
CHECKED_TOKENS = 45
"""Of a prompt: more than one panel of native_prompts.h, and not whole ones."""
TIMED_TOKENS = 512
"""Of a prompt at most; attention grows with the square of its length, so short ones would hide it."""
ROUNDS = 3
BUDGET_S = 0.3
"""After which no further round is begun."""


def fuse(decoder: Any, parameters: Parameters, kernels: Any, work: Any) -> dict[str, Any]:
    """Let native code do whole parts of steps and of prompts where their products are native.

    Args:
        decoder: filled and laid out.
        parameters: its tensors.
        kernels: the :class:`native_kernels.Kernels` there are for it, or None.
        work: what a trial asks of the products, a :class:`kernels.Work`.

    Returns:
        What is fused, or why nothing is, for the record.
    """
    if kernels is None:
        return {"fused_parts": "no native products", "fused_prompts": "no native products"}
    steps = _fuse_steps(decoder, parameters)
    return {"fused_parts": steps, "fused_prompts": _fuse_prompts(decoder, parameters, kernels, work)}


def error_of_largest(found: Any, expected: Any) -> float:
    """Return the largest difference relative to the largest value; NaN, which no bound allows, for a NaN."""
    largest = expected.abs().max().item()
    return float((found - expected).abs().max().item() / largest) if largest else float(found.abs().max())


def _fuse_steps(decoder: Any, parameters: Parameters) -> str:
    bound = FUSED_BOUNDS[parameters.dtype]
    batch = min(parameters.max_batch, 8)
    expected = decoder.part_samples(batch)
    fused = decoder.fuse()
    if not fused:
        return "none: not all of their products are native"
    found = decoder.part_samples(batch)
    for name, sample in expected.items():
        error = error_of_largest(found[name].float(), sample.float())
        if not error <= bound:
            decoder.unfuse()
            return f"none: {name} differs by {error:.2g} of its largest value, more than {bound:.2g}"
    return ", ".join(fused)


def _fuse_prompts(decoder: Any, parameters: Parameters, kernels: Any, work: Any) -> str:
    """Keep the fastest of PyTorch's operators, native scores of attention, and whole native parts."""
    bound = FUSED_BOUNDS[parameters.dtype]
    tokens = min(CHECKED_TOKENS, parameters.max_tokens)
    expected = decoder.prompt_sample(parameters.max_batch, tokens).float()
    ways, faults = {"none": (None, False)}, []
    for whole in (False, True):
        name = ", ".join(decoder.fuse_prompts(kernels, whole))
        if not name or name in ways:
            continue
        error = error_of_largest(decoder.prompt_sample(parameters.max_batch, tokens).float(), expected)
        if error <= bound:
            ways[name] = (kernels, whole)
        else:
            faults.append(f"{name} differs by {error:.2g} of the largest value, more than {bound:.2g}")
    seconds = dict.fromkeys(ways, float("inf"))
    batch, tokens = work.batch, min(work.prompt_tokens, TIMED_TOKENS)
    began = time.perf_counter()
    for _ in range(ROUNDS if len(ways) > 1 else 0):
        for name, way in ways.items():
            decoder.fuse_prompts(*way)
            seconds[name] = min(seconds[name], _seconds(decoder, batch, tokens))
        if time.perf_counter() - began > BUDGET_S:
            break
    best = min(seconds, key=lambda name: seconds[name])
    decoder.fuse_prompts(*ways[best])
    if len(ways) > 1:
        faults.append(
            "a layer took " + ", ".join(f"{took:.2g} s with {name}" for name, took in seconds.items())
        )
    return f"{best} ({'; '.join(faults)})" if faults else best


def _seconds(decoder: Any, batch: int, tokens: int) -> float:
    began = time.perf_counter()
    decoder.prompt_sample(batch, tokens)
    return time.perf_counter() - began
