"""What a case needed of memory, and how much context would have fitted: separate, never added up."""

from __future__ import annotations

from collections.abc import Sequence

from profiler.backends.base import Backend, Device, Unavailable
from profiler.backends.match import misplaced
from profiler.measure.context import StartFailedError, StartOutcome
from profiler.results.schema import CaseSpec, Measurement

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


def memory_measurements(spec: CaseSpec, outcomes: Sequence[StartOutcome]) -> dict[str, Measurement]:
    """Return what was allocated, what each observer saw at most, and what would have fitted.

    Args:
        spec: the case.
        outcomes: the starts that count, at least one.
    """
    loaded = [outcome.loaded for outcome in outcomes]
    memory = [outcome.memory for outcome in outcomes]
    sampled = [value for outcome in outcomes for value in outcome.device_used_bytes]
    host = [value for outcome in outcomes for value in outcome.host_used_bytes]
    no_peak = next(
        (str(m["engine_peak_reason"]) for m in memory if m.get("engine_peak_reason")), "not reported"
    )
    weights, cache = ([item[name] for item in loaded] for name in ("weights_bytes", "kv_cache_bytes"))
    copies = [item.get("weight_copies_bytes") for item in loaded]
    engine, process = (
        [item[name] for item in memory] for name in ("engine_peak_bytes", "peak_process_bytes")
    )
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
        **_capacity(spec, outcomes),
    }


def _largest(values: Sequence[int | None], reason: str, method: str, scope: str) -> Measurement:
    known = [value for value in values if value is not None]
    if not known:
        return Measurement.missing("bytes", reason)
    return Measurement(value=float(max(known)), unit="bytes", n=len(known), method=method, scope=scope)


def _capacity(spec: CaseSpec, outcomes: Sequence[StartOutcome]) -> dict[str, Measurement]:
    """Return the tokens that the cache could hold, and the requests of this case's length that makes."""
    context = spec.prompt_tokens + spec.output_tokens
    found = [_tokens(spec, outcome) for outcome in outcomes]
    reasons = [tokens for tokens in found if isinstance(tokens, str)]
    tokens = [value for value in found if isinstance(value, int)]
    if reasons:
        return {
            "kv_capacity_tokens": Measurement.missing("tokens", reasons[0]),
            "max_users_at_context": Measurement.missing("users", reasons[0]),
        }
    reported = any(_reported(outcome) is not None for outcome in outcomes)
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


def _tokens(spec: CaseSpec, outcome: StartOutcome) -> int | str:
    """Return how many tokens the cache could hold in one start, or why that is not known."""
    reported = _reported(outcome)
    if reported is not None:
        return reported
    if spec.slice is not None:
        return "only a slice of the model was loaded; the rest would take memory of the cache"
    memory, cache_bytes = outcome.memory, int(outcome.loaded["kv_cache_bytes"])
    free = memory["device_free_bytes"]
    if free is None:
        return "the engine does not say how much memory of the device is free"
    if cache_bytes <= 0:
        return "the engine reports no cache"
    per_token = cache_bytes / (spec.batch * (spec.prompt_tokens + spec.output_tokens))
    return max(0, int((free + cache_bytes - _released_activations(memory)) / per_token))


def _released_activations(memory: dict[str, int | None]) -> int:
    """Return memory that the trials needed at their peak and that is free now.

    An accelerator's allocator keeps its peak, so what is free there is free at the peak, too. Where the
    engine has no allocator of its own (CPU), the process gave it back: its peak less what it holds.
    """
    if memory["engine_peak_bytes"] is not None:
        return 0
    peak, now = memory["peak_process_bytes"], memory["process_rss_bytes"]
    return 0 if peak is None or now is None else max(0, peak - now)


def _reported(outcome: StartOutcome) -> int | None:
    """Return the capacity of an engine that sets its cache aside beforehand."""
    value = outcome.memory.get("kv_capacity_tokens")
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
