"""Identities: which work it is (``workload_id``), and which measurement of it (``case_id``).

Both are the SHA-256 of a canonical JSON text: keys sorted, no spaces, ASCII, and only objects,
arrays, strings and integers. Other values are spelt as follows, so that the text does not depend on
how a configuration file wrote a number: a float without a fraction is an integer, any other float a
string of its shortest decimal form that reads back the same (Python's ``repr``), a truth value
``"true"`` or ``"false"``; a field that is None is left out.

Two results may be compared as the same work when their ``workload_id`` is equal. Everything that
compares how the work was done is not part of it: seed, token ids, engine, number formats, weights
and device.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from profiler.workload.lengths import Quantiles
from profiler.workload.stream import GENERATOR_VERSION

if TYPE_CHECKING:
    from profiler.models.architecture import Architecture
    from profiler.models.formats import Formats

ID_VERSION = 1
"""Raised whenever the same work or case would get another id."""

SAMPLING = "greedy, end-of-sequence ignored"


def canonical_json(value: Any) -> str:
    """Return ``value`` as canonical JSON (see the module).

    Raises:
        TypeError: a value that JSON has no place for, or a key that is not text.
        ValueError: NaN or an infinity.
    """
    return json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def workload_id(
    architecture: Architecture | Mapping[str, Any],
    *,
    prompt_tokens: int | Quantiles,
    output_tokens: int | Quantiles,
    batch: int | None = None,
    arrivals: Mapping[str, Any] | None = None,
    parallel: Mapping[str, int] | None = None,
    speculative: str | None = None,
) -> str:
    """Return the identity of a piece of work, 64 hex digits.

    Args:
        architecture: the model's fields, or what else says which model it is.
        prompt_tokens: prompt length of every request, or what lengths are drawn from.
        output_tokens: tokens generated for every request, or what they are drawn from.
        batch: requests that run together, for offline work.
        arrivals: process, rate, number of requests and the like, for served work.
        parallel: how it is spread over several devices, None for one.
        speculative: method of speculative decoding, None without any.

    Raises:
        ValueError: not exactly one of ``batch`` and ``arrivals`` is given.
    """
    if (batch is None) == (arrivals is None):
        raise ValueError("work is either offline (batch) or served (arrivals)")
    return _digest(
        {
            "id_version": ID_VERSION,
            "generator_version": GENERATOR_VERSION,
            "sampling": SAMPLING,
            "architecture": _fields(architecture),
            "prompt_tokens": _lengths(prompt_tokens),
            "output_tokens": _lengths(output_tokens),
            "batch": batch,
            "arrivals": arrivals,
            "parallel": parallel,
            "speculative": speculative,
        }
    )


def case_id(
    workload: str,
    *,
    engine: str,
    formats: Formats | Mapping[str, Any],
    weights: str,
    device_key: str,
    seed: int,
    device_keys: Sequence[str] | None = None,
    weights_digest: str | None = None,
    engine_options: Mapping[str, Any] | None = None,
    nonce: str | None = None,
) -> str:
    """Return the identity of one case, 64 hex digits: the work and all match keys.

    Args:
        workload: its ``workload_id``.
        engine: name of the engine.
        formats: number formats.
        weights: ``random``, ``folder`` or ``server``.
        device_key: key of the device.
        seed: seed of token ids and random weights.
        device_keys: keys of all devices, where there are several.
        weights_digest: digest of real weights.
        engine_options: what the engine was told beyond its defaults.
        nonce: what a verifier asked to be mixed in, so that results cannot be prepared in advance.
    """
    return _digest(
        {
            "id_version": ID_VERSION,
            "workload_id": workload,
            "engine": engine,
            "engine_options": engine_options or None,
            "formats": _fields(formats),
            "weights": weights,
            "weights_digest": weights_digest,
            "device_key": device_key,
            "device_keys": list(device_keys) if device_keys else None,
            "seed": seed,
            "nonce": nonce,
        }
    )


def _fields(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else asdict(value)


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()


def _lengths(lengths: int | Quantiles) -> Any:
    if isinstance(lengths, int):
        return lengths
    return {"levels": lengths.levels, "tokens": lengths.tokens}


def _canonical(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} has no place in an identity")
        return int(value) if value.is_integer() else repr(value)
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("keys in an identity must be text")
        return {key: _canonical(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_canonical(inner) for inner in value]
    raise TypeError(f"a {type(value).__name__} has no place in an identity")
