"""Conductor side of the ``torch`` engine; does not import torch, which only the worker needs to have."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from profiler.backends.base import Device
from profiler.backends.match import EngineDevice, find_engine_device
from profiler.errors import UsageError, unknown
from profiler.models.architecture import Architecture
from profiler.models.formats import Formats
from profiler.worker.torch_support import (
    BLOCK_SCALED,
    FAMILIES,
    FORMATS,
    INT8,
    LINEAR,
    NO_BLOCK_SCALES,
    OPTIONS,
    ROPE_TYPES,
    STEPS,
)


class TorchEngine:
    """Our own decoder in plain PyTorch, on whatever device the worker's PyTorch has."""

    name = "torch"
    simulated = False
    runs_slices = True

    def unsupported(self, architecture: Architecture, formats: Formats, device: Device) -> str | None:
        """Return why this model or these formats do not run, or None."""
        if architecture.family not in FAMILIES:
            return (
                f"the torch engine does not run the family {architecture.family}, only {', '.join(FAMILIES)}"
            )
        rope_type = (architecture.rope_scaling or {}).get("rope_type", "default")
        if rope_type not in ROPE_TYPES:
            return f"the torch engine does not know rope_type {rope_type}, only {', '.join(ROPE_TYPES)}"
        if formats.weight_format == BLOCK_SCALED:
            return f"the torch engine does not run {NO_BLOCK_SCALES}"
        asked = {formats.compute_dtype, formats.kv_dtype}
        if formats.weight_format != INT8:
            asked.add(formats.weight_format)
        elif architecture.experts is not None or architecture.latent_attention is not None:
            return f"the torch engine holds only dense models with grouped queries in {INT8}"
        if not asked <= set(FORMATS) or len(asked) > 1:
            return (
                f"the torch engine keeps weights, computation and cache in one of {', '.join(FORMATS)}, "
                f"or weights in {INT8}, not in {formats.weight_format}, {formats.compute_dtype} "
                f"and {formats.kv_dtype}"
            )
        return None

    def device_string(self, device: Device, hello: dict[str, Any]) -> str:
        """Return ``cpu``, ``cuda:1``, ``npu:0``, … for ``device``.

        Raises:
            UsageError: the worker's PyTorch was built without support for it, or cannot reach it.
        """
        found = find_engine_device(device, hello["devices"])
        if isinstance(found, EngineDevice):
            return found.name
        version = hello["engine"]["version"]
        raise UsageError(
            f"engine torch does not see {device.name} ({device.key}): its PyTorch {version} {found}; "
            "if it was built for other devices, give a Python with a PyTorch for this one (--python)"
        )

    def options(self, given: dict[str, str]) -> dict[str, Any]:
        """Parse ``threads=N``, ``linear=KERNEL``, ``step=KIND`` and ``layers=N`` or ``DENSE+MOE``.

        ``layers`` loads a slice of the model, never done unless asked for.

        Raises:
            UsageError: an unknown option, or a value that does not fit it.
        """
        for key in given:
            if key not in OPTIONS:
                raise UsageError(f"--engine-option: {unknown('option of engine torch', key, OPTIONS)}")
        parsers: dict[str, Callable[[str], Any]] = {
            "threads": _threads,
            "linear": _one_of("linear", LINEAR),
            "step": _one_of("step", STEPS),
            "layers": _layers,
        }
        return {key: parsers[key](text) for key, text in given.items()}


def _threads(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,4}", text):
        raise UsageError(f"--engine-option threads={text}: must be a whole number above 0")
    return int(text)


def _one_of(option: str, known: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in known:
            raise UsageError(f"--engine-option {option}={text}: must be one of {', '.join(known)}")
        return text

    return parse


def _layers(text: str) -> int | list[int]:
    match = re.fullmatch(r"([0-9]{1,4})(?:\+([0-9]{1,4}))?", text)
    numbers = [int(part) for part in match.groups() if part is not None] if match else []
    if not sum(numbers):
        raise UsageError(
            f"--engine-option layers={text}: must be a number of layers above 0, or two for a model with "
            "experts: dense ones and those with experts, as in 1+3"
        )
    return numbers if len(numbers) == 2 else numbers[0]
