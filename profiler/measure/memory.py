"""What a case needed of memory, and how much context would have fitted: separate, never added up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from profiler.backends.base import Backend, Device, DeviceMemory, Unavailable
from profiler.backends.match import misplaced
from profiler.measure.context import MeasuredStart, StartFailedError
from profiler.measure.polled_memory import Polled
from profiler.results.schema import CaseSpec, Flag, Measurement, MemoryReadings

REPORTED = "reported by the engine, which set its cache aside"
FREE_OVER_CACHE = "(free after the trials + cache - peak of activations) / cache bytes per token"
MADE_UP = "made up"
"""What the fake engine names as its source: it may pretend another device than the fake library."""
DISAGREES = 0.05
"""Part of what is free by which engine and device may differ before it is said."""


class Samples(NamedTuple):
    """Memory between the stages of a start, and what the sampler read meanwhile.

    Attributes:
        device: in use on each device by its key, bytes.
        host: in use on the host, bytes.
        last: the device's own counters after the trials, or None.
        polled: by the sampler, or None where it reads no memory of the device.
    """

    device: Mapping[str, Sequence[int]]
    host: list[int]
    last: DeviceMemory | None = None
    polled: Polled | None = None


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
    return memory_figures(spec, _readings(outcomes))


def memory_figures(
    spec: CaseSpec, read: Sequence[MemoryReadings], whose: str = "worker"
) -> dict[str, Measurement]:
    """Return the figures that the readings of all starts that count give.

    Args:
        spec: the case.
        read: one of each start.
        whose: what the processes are.
    """
    host = [value for item in read for value in item.host_used_bytes]
    no_peak = next((item.no_peak_reason for item in read if item.no_peak_reason), "not reported")
    weights, cache = [item.weights_bytes for item in read], [item.kv_cache_bytes for item in read]
    engine, process = [item.peak_engine_bytes for item in read], [item.peak_process_bytes for item in read]
    copies = [item.weight_copies_bytes for item in read]
    no_process = "the engine's process did not report it"
    allocated = "allocated by the engine"
    from_what = _named(item.peak_process_source for item in read) or "resident set"
    return {
        "weights_bytes": _largest(weights, "not reported", allocated, "engine"),
        "weight_copies_bytes": _largest(copies, "not reported", allocated, "engine"),
        "kv_cache_bytes": _largest(cache, "not reported", allocated, "engine"),
        "peak_engine_bytes": _largest(engine, no_peak, "peak of the engine's allocator", "engine"),
        "peak_process_bytes": _largest(process, no_process, f"peak of the {whose} ({from_what})", "process"),
        "max_sampled_device_bytes": _device(read),
        **_of_all_devices(read),
        "max_sampled_host_bytes": _largest(
            host, "the host's memory cannot be read", "largest of the samples between stages", "host"
        ),
        **_capacity(spec, read),
    }


def memory_flags(outcomes: Sequence[MeasuredStart]) -> list[Flag]:
    """Return the flag of an engine that sees other free memory than its device's counters, or nothing."""
    for item in _readings(outcomes):
        engine, counted = item.device_free_bytes, item.counted_free_bytes
        if engine is None or counted is None or item.device_free_source == MADE_UP:
            continue
        if abs(engine - counted) <= DISAGREES * max(engine, counted):
            continue
        text = (
            f"{engine / 1e9:.2f} GB of the device were free to the engine, {counted / 1e9:.2f} GB to "
            f"{item.device_source or 'its counters'}"
        )
        hint = "the smaller counts; look for other work on the device, and whether it is the right one"
        return [Flag(code="memory_disagrees", text=text, hint=hint)]
    return []


def _device(read: Sequence[MemoryReadings]) -> Measurement:
    between = [value for item in read for value in item.device_used_bytes]
    polled = [item.polled_device_bytes for item in read if item.polled_device_bytes is not None]
    if not between and not polled:
        return Measurement.missing("bytes", "the device's memory cannot be read")
    source = _named(item.device_source for item in read)
    words = [f"{len(between)} between stages{f' ({source})' if source else ''}"] if between else []
    reads = sum(item.polled_device_reads for item in read)
    if polled:
        words.append(f"{reads} by the sampler ({_named(item.polled_device_sensor for item in read)})")
    return Measurement(
        value=float(max(*between, *polled, 0)),
        unit="bytes",
        n=len(between) + reads,
        method=f"total minus free, largest of the samples: {', '.join(words)}",
        scope="device",
    )


def _of_all_devices(read: Sequence[MemoryReadings]) -> dict[str, Measurement]:
    """Return the memory in use on all devices together, where there are several."""
    sums = [sum(used) for item in read for used in zip(*item.per_device_used_bytes.values(), strict=False)]
    if not sums:
        return {}
    method = "largest of the samples between stages, all devices added up"
    return {"max_sampled_all_devices_bytes": _largest(sums, "", method, "devices")}


def of_fullest(used: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
    """Return samples of the memory in use on the device that has most in use, by samples of each."""
    return tuple(map(max, zip(*used.values(), strict=False)))


def of_each(used: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """Return samples of each device where there are several, else nothing."""
    return {key: tuple(samples) for key, samples in used.items()} if len(used) > 1 else {}


def _named(sources: Iterable[str | None]) -> str:
    return ", ".join(dict.fromkeys(source for source in sources if source))


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
        seen: samples of the memory on device and host.
    """
    polled = seen.polled
    return MemoryReadings(
        weights_bytes=loaded["weights_bytes"],
        weight_copies_bytes=_count(loaded.get("weight_copies_bytes")),
        kv_cache_bytes=loaded["kv_cache_bytes"],
        kv_cache_tokens=_count(loaded.get("kv_cache_tokens")),
        peak_engine_bytes=memory["engine_peak_bytes"],
        no_peak_reason=memory.get("engine_peak_reason"),
        peak_process_bytes=memory["peak_process_bytes"],
        peak_process_source=_words(memory.get("peak_process_source")),
        peak_rss_bytes=_count(memory.get("peak_rss_bytes")),
        process_rss_bytes=memory["process_rss_bytes"],
        device_free_bytes=memory["device_free_bytes"],
        device_free_source=_words(memory.get("device_source")),
        counted_free_bytes=None if seen.last is None else seen.last.free_bytes,
        device_source=None if seen.last is None else seen.last.source,
        kv_capacity_tokens=_count(memory.get("kv_capacity_tokens")),
        device_used_bytes=of_fullest(seen.device),
        per_device_used_bytes=of_each(seen.device),
        host_used_bytes=tuple(seen.host),
        polled_device_bytes=None if polled is None else polled.most_bytes,
        polled_device_reads=0 if polled is None else polled.reads,
        polled_device_sensor=None if polled is None else polled.sensor,
    )


def _count(value: Any) -> int | None:
    """Return a count of an engine's answer; what is none is left out."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _words(value: Any) -> str | None:
    return value[:200] if isinstance(value, str) else None


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
    method = REPORTED
    if all(item.kv_capacity_tokens is None for item in read):
        method = FREE_OVER_CACHE
        sources = _named(name for item in read for name in (item.device_free_source, item.device_source))
        method += f"; free by {sources}" if sources else ""
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
    free = [value for value in (read.device_free_bytes, read.counted_free_bytes) if value is not None]
    if not free:
        return "neither the engine nor the device says how much memory is free"
    if read.kv_cache_bytes <= 0:
        return "the engine reports no cache"
    held = read.kv_cache_tokens or spec.batch * (spec.prompt_tokens + spec.output_tokens)
    per_token = read.kv_cache_bytes / held
    left = min(free) + read.kv_cache_bytes - _released_activations(read)
    return max(0, int(left / per_token))


def _released_activations(read: MemoryReadings) -> int:
    """Return memory that the trials needed at their peak and that is free now.

    An accelerator's allocator keeps its peak, so what is free there is free at the peak, too. Where the
    engine has no allocator of its own (CPU), the process gave it back: its peak less what it holds.
    """
    if read.peak_engine_bytes is not None:
        return 0
    peak = read.peak_process_bytes if read.peak_rss_bytes is None else read.peak_rss_bytes
    now = read.process_rss_bytes
    return 0 if peak is None or now is None else max(0, peak - now)
