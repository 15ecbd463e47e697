"""What a case needed of memory, and how much context would have fitted: separate, never added up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from profiler.backends.base import Backend, Device, Unavailable
from profiler.backends.match import misplaced
from profiler.measure.context import MeasuredStart, StartFailedError
from profiler.results.schema import CaseSpec, Measurement, MemoryReadings

REPORTED = "reported by the engine"
FREE_OVER_CACHE = (
    "free device memory after the trials and the cache's own, less what the activations peaked at, over the "
    "cache's bytes per token; smallest of the starts"
)


def free_bytes(backend: Backend, device: Device) -> int | None:
    """Return what is free on a device now, or None when it cannot be read."""
    memory = backend.memory(device)
    return None if isinstance(memory, Unavailable) else memory.free_bytes


def refuse_if_misplaced(device: Device, before: int | None, after: int | None, loaded_bytes: int) -> None:
    """Check that loading took memory of the device that is to be measured.

    Args:
        device: the device.
        before: bytes free on it before loading, or None.
        after: bytes free on it afterwards, or None.
        loaded_bytes: weights and cache as the engine reports them.

    Raises:
        StartFailedError: it took memory somewhere else.
    """
    fault = None if before is None or after is None else misplaced(device, before, after, loaded_bytes)
    if fault is not None:
        raise StartFailedError("device", "load", fault)


def memory_measurements(spec: CaseSpec, outcomes: Sequence[MeasuredStart]) -> dict[str, Measurement]:
    """Return what was allocated, what each observer saw at most, and what would have fitted.

    Args:
        spec: the case.
        outcomes: the starts that count, at least one.
    """
    read = _readings(outcomes)
    sampled = [value for item in read for value in item.device_used_bytes]
    host = [value for item in read for value in item.host_used_bytes]
    no_peak = next((item.no_peak_reason for item in read if item.no_peak_reason), "not reported")
    weights, cache = [item.weights_bytes for item in read], [item.kv_cache_bytes for item in read]
    engine, process = [item.peak_engine_bytes for item in read], [item.peak_process_bytes for item in read]
    copies = [item.weight_copies_bytes for item in read]
    no_process = "the engine's process did not report it"
    samples, allocated = "largest of the samples between stages", "allocated by the engine"
    return {
        "weights_bytes": _largest(weights, "not reported", allocated, "engine"),
        "weight_copies_bytes": _largest(copies, "not reported", allocated, "engine"),
        "kv_cache_bytes": _largest(cache, "not reported", allocated, "engine"),
        "peak_engine_bytes": _largest(engine, no_peak, "peak of the engine's allocator", "engine"),
        "peak_process_bytes": _largest(process, no_process, "peak resident set of the worker", "process"),
        "max_sampled_device_bytes": _largest(
            sampled, "the device's memory cannot be read", samples, "device"
        ),
        "max_sampled_host_bytes": _largest(host, "the host's memory cannot be read", samples, "host"),
        **_capacity(spec, read),
    }


def _largest(values: Sequence[int | None], reason: str, method: str, scope: str) -> Measurement:
    known = [value for value in values if value is not None]
    if not known:
        return Measurement.missing("bytes", reason)
    return Measurement(value=float(max(known)), unit="bytes", n=len(known), method=method, scope=scope)


def readings(loaded: dict[str, Any], memory: dict[str, Any], seen: Samples) -> MemoryReadings:
    """Return what goes into the record of a start.

    Args:
        loaded: the worker's answer to ``load``.
        memory: its answer to ``memory`` after the trials.
        seen: samples of the memory in use on device and host, bytes.
    """
    capacity, copies = memory.get("kv_capacity_tokens"), loaded.get("weight_copies_bytes")
    held = loaded.get("kv_cache_tokens")
    return MemoryReadings(
        weights_bytes=loaded["weights_bytes"],
        weight_copies_bytes=copies if _is_count(copies) else None,
        kv_cache_bytes=loaded["kv_cache_bytes"],
        kv_cache_tokens=held if _is_count(held) else None,
        peak_engine_bytes=memory["engine_peak_bytes"],
        no_peak_reason=memory.get("engine_peak_reason"),
        peak_process_bytes=memory["peak_process_bytes"],
        process_rss_bytes=memory["process_rss_bytes"],
        device_free_bytes=memory["device_free_bytes"],
        kv_capacity_tokens=capacity if _is_count(capacity) else None,
        device_used_bytes=tuple(seen.device),
        host_used_bytes=tuple(seen.host),
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


class Samples(NamedTuple):
    """Memory in use between the stages of a start, bytes."""

    device: list[int]
    host: list[int]


def _readings(outcomes: Sequence[MeasuredStart]) -> list[MemoryReadings]:
    return [outcome.record.memory for outcome in outcomes if outcome.record.memory is not None]


def _capacity(spec: CaseSpec, read: Sequence[MemoryReadings]) -> dict[str, Measurement]:
    """Return the tokens that the cache could hold, and the requests of this case's length that makes."""
    context = spec.prompt_tokens + spec.output_tokens
    found = [_tokens(spec, item) for item in read] or ["not reported"]
    reasons = [tokens for tokens in found if isinstance(tokens, str)]
    tokens = [value for value in found if isinstance(value, int)]
    if reasons:
        return {
            "kv_capacity_tokens": Measurement.missing("tokens", reasons[0]),
            "max_users_at_context": Measurement.missing("users", reasons[0]),
        }
    reported = any(item.kv_capacity_tokens is not None for item in read)
    method = REPORTED if reported else FREE_OVER_CACHE
    least = min(tokens)
    return {
        "kv_capacity_tokens": Measurement(
            value=float(least), unit="tokens", n=len(tokens), method=method, scope="device"
        ),
        "max_users_at_context": Measurement(
            value=float(least // context),
            unit="users",
            n=len(tokens),
            method=f"kv_capacity_tokens over {context} tokens, rounded down",
            scope="device",
        ),
    }


def _tokens(spec: CaseSpec, read: MemoryReadings) -> int | str:
    """Return how many tokens the cache could hold in one start, or why that is not known."""
    if read.kv_capacity_tokens is not None:
        return read.kv_capacity_tokens
    if spec.slice is not None:
        return "only a slice of the model was loaded; the rest would take memory of the cache"
    if read.device_free_bytes is None:
        return "the engine does not say how much memory of the device is free"
    if read.kv_cache_bytes <= 0:
        return "the engine reports no cache"
    held = read.kv_cache_tokens or spec.batch * (spec.prompt_tokens + spec.output_tokens)
    per_token = read.kv_cache_bytes / held
    free = read.device_free_bytes + read.kv_cache_bytes - _released_activations(read)
    return max(0, int(free / per_token))


def _released_activations(read: MemoryReadings) -> int:
    """Return memory that the trials needed at their peak and that is free now.

    An accelerator's allocator keeps its peak, so what is free there is free at the peak, too. Where the
    engine has no allocator of its own (CPU), the process gave it back: its peak less what it holds.
    """
    if read.peak_engine_bytes is not None:
        return 0
    peak, now = read.peak_process_bytes, read.process_rss_bytes
    return 0 if peak is None or now is None else max(0, peak - now)
