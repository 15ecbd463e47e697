"""Conductor side of the ``vllm`` engine; only the worker's interpreter (``--python``) needs to have vLLM."""

from __future__ import annotations

import math
import re
from typing import Any

from profiler.backends.base import Device
from profiler.backends.match import EngineDevice, find_engine_device
from profiler.errors import UsageError, unknown
from profiler.models.architecture import Architecture
from profiler.models.formats import Formats
from profiler.worker.vllm_support import (
    DTYPES,
    FAMILIES,
    LOAD_FORMATS,
    OPTIONS,
    PLAIN,
    QUANTISED,
    ROPE_TYPES,
)


class VllmEngine:
    """vLLM in an environment of its own, on CUDA, ROCm, Ascend or CPU, with the weights of every engine."""

    name = "vllm"
    simulated = False

    def unsupported(self, architecture: Architecture, formats: Formats, device: Device) -> str | None:
        """Return why this model or these formats do not run, or None."""
        if architecture.family not in FAMILIES:
            return (
                f"the vllm engine does not run the family {architecture.family}, only {', '.join(FAMILIES)}"
            )
        rope_type = (architecture.rope_scaling or {}).get("rope_type", "default")
        if rope_type not in ROPE_TYPES:
            return f"the vllm engine does not know rope_type {rope_type}, only {', '.join(ROPE_TYPES)}"
        asked = {formats.weight_format, formats.compute_dtype, formats.kv_dtype}
        known = (*PLAIN, *QUANTISED)
        if formats.weight_format not in known or formats.kv_dtype not in DTYPES:
            return (
                f"the vllm engine keeps weights in one of {', '.join(known)}, not in {formats.weight_format}"
            )
        if formats.weight_format in PLAIN and len(asked) > 1:
            return (
                "the vllm engine keeps plain weights, computation and cache in one format, not in "
                f"{formats.weight_format}, {formats.compute_dtype} and {formats.kv_dtype}"
            )
        return None

    def device_string(self, device: Device, hello: dict[str, Any]) -> str:
        """Return ``cpu``, ``cuda:1``, ``npu:0``, … for ``device``.

        Raises:
            UsageError: this build of vLLM was made for other devices, or does not see this one.
        """
        version = hello["engine"]["version"]
        platform = str(hello["engine"]["details"].get("platform", "unknown"))
        found = find_engine_device(device, hello["devices"])
        if not isinstance(found, EngineDevice):
            raise UsageError(
                f"engine vllm does not see {device.name} ({device.key}): the PyTorch of its vLLM {version} "
                f"{found}; give a Python whose vLLM was built for it (--python)"
            )
        if (found.name == "cpu") != (platform == "cpu"):
            raise UsageError(
                f"engine vllm: this vLLM {version} was built for {platform}, not for {device.name} "
                f"({device.key}); give a Python whose vLLM was built for it (--python)"
                + ("; `make vllm-cpu` builds one for CPUs" if found.name == "cpu" else "")
            )
        return found.name

    def options(self, given: dict[str, str]) -> dict[str, Any]:
        """Parse ``key=value`` pairs: see docs/engines.md.

        Raises:
            UsageError: an unknown option, or a value that does not fit it.
        """
        parsed: dict[str, Any] = {}
        for key, text in given.items():
            if key not in OPTIONS:
                raise UsageError(f"--engine-option: {unknown('option of engine vllm', key, OPTIONS)}")
            parsed[key] = _PARSERS[OPTIONS[key]](key, text)
        return parsed


def _count(key: str, text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,6}", text):
        raise UsageError(f"--engine-option {key}={text}: must be a whole number above 0")
    return int(text)


def _fraction(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise UsageError(f"--engine-option {key}={text}: must be above 0 and at most 1")
    return value


def _switch(key: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise UsageError(f"--engine-option {key}={text}: must be true or false")
    return text.lower() == "true"


def _load_format(key: str, text: str) -> str:
    if text not in LOAD_FORMATS:
        raise UsageError(f"--engine-option {key}={text}: must be one of {', '.join(LOAD_FORMATS)}")
    return text


_PARSERS: dict[str, Any] = {
    "count": _count,
    "fraction": _fraction,
    "switch": _switch,
    "load_format": _load_format,
}
