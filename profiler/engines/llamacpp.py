"""Conductor side of the ``llamacpp`` engine; only the worker needs to have ``llama-cpp-python``."""

from __future__ import annotations

import re
from typing import Any

from profiler.backends.base import Device
from profiler.errors import UsageError, unknown
from profiler.models.architecture import Architecture
from profiler.models.formats import Formats
from profiler.worker.llamacpp_support import (
    CHOICES,
    FAMILIES,
    FORMATS,
    KV_FORMATS,
    KV_SPELLINGS,
    OPTIONS,
    ROPE_TYPES,
)


class LlamaCppEngine:
    """llama.cpp on the CPU, with a GGUF file of the user's, or random weights in one of the model's shape."""

    name = "llamacpp"
    simulated = False
    reads = ("file",)

    def unsupported(self, architecture: Architecture, formats: Formats, device: Device) -> str | None:
        """Return why this model or these formats do not run, or None."""
        if architecture.family not in FAMILIES:
            known = ", ".join(FAMILIES)
            return f"the llamacpp engine does not run the family {architecture.family}, only {known}"
        if formats.kv_dtype not in KV_FORMATS:
            known = ", ".join(KV_FORMATS)
            return f"the llamacpp engine keeps its cache in one of {known}, not in {formats.kv_dtype}"
        if formats.stored_bytes is not None:
            return None  # a file of the user's, which says everything else itself
        rope_type = (architecture.rope_scaling or {}).get("rope_type", "default")
        if rope_type not in ROPE_TYPES:
            known = ", ".join(ROPE_TYPES)
            return f"the llamacpp engine does not know rope_type {rope_type}, only {known}"
        if formats.weight_format not in FORMATS:
            known = ", ".join(FORMATS)
            return (
                f"the llamacpp engine makes weights in one of {known}, not in {formats.weight_format}; "
                "give a GGUF file (--model FILE.gguf)"
            )
        return None

    def device_string(self, device: Device, hello: dict[str, Any]) -> str:
        """Return ``cpu``.

        Raises:
            UsageError: the device is no CPU.
        """
        if device.backend != "cpu":
            raise UsageError(
                f"engine llamacpp runs on the CPU, not on {device.name} ({device.key}); "
                "for an accelerator start llama-server yourself and use --engine endpoint"
            )
        return "cpu"

    def options(self, given: dict[str, str]) -> dict[str, Any]:
        """Parse numbers (``threads``, ``n_batch``, ``n_ubatch``) and choices; see ``llamacpp_support``.

        Raises:
            UsageError: an unknown option, or a value that does not fit it.
        """
        parsed: dict[str, Any] = {}
        for key, text in given.items():
            if key not in OPTIONS:
                raise UsageError(f"--engine-option: {unknown('option of engine llamacpp', key, OPTIONS)}")
            if key not in CHOICES:
                parsed[key] = _count(key, text)
                continue
            parsed[key] = KV_SPELLINGS.get(text, text) if key == "kv_dtype" else text
            if parsed[key] not in CHOICES[key]:
                known = ", ".join(CHOICES[key])
                raise UsageError(f"--engine-option {key}={text}: must be one of {known}")
        if parsed.get("flash_attention") == "off" and parsed.get("kv_dtype", "").startswith("q"):
            raise UsageError("--engine-option kv_dtype: a quantised cache needs flash_attention=auto or on")
        return parsed


def _count(key: str, text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,4}", text):
        raise UsageError(f"--engine-option {key}={text}: must be a whole number above 0")
    return int(text)
