"""What was read of memory and of the box in one start."""

from __future__ import annotations

from pydantic import Field

from profiler.results.fields import Count, Finite, Name, Text
from profiler.results.record_base import Frequent, Record


class MemoryReadings(Frequent):
    """What one start said about memory; the case's figures are the largest of its starts.

    Attributes:
        weights_bytes: what the loaded weights take.
        weight_copies_bytes: what repacked copies of them take beside them, or None.
        kv_cache_bytes: what was allocated for the cache.
        kv_cache_tokens: tokens that this cache holds, or None where it is exactly those of the case.
        peak_engine_bytes: high-water mark of the engine's allocator, or None with ``no_peak_reason``.
        no_peak_reason: why the engine has no peak.
        peak_process_bytes: peak of the worker, or None.
        peak_process_source: where that was read: of its own control group, else ``VmHWM``.
        peak_rss_bytes: peak resident set of the worker, or None.
        process_rss_bytes: resident set of the worker after the trials, or None.
        device_free_bytes: memory of the device that was free after the trials, as the engine says, or None.
        device_free_source: what the engine asked for that, or None.
        counted_free_bytes: the same by the device's own counters, or None.
        device_source: those counters, or None where there are none.
        kv_capacity_tokens: tokens that fit into a cache which the engine sets aside beforehand, or None.
        device_used_bytes: samples of the memory in use on the device, total minus free; of several devices
            on the fullest.
        per_device_used_bytes: the same by key of the device, where there are several.
        polled_device_bytes: most memory in use on the device (total minus free) in any read by the sampler
            from loading to the end of the trials, or None where nothing was read.
        polled_device_reads: how many such reads there were.
        polled_device_sensor: key of the sensor that was read, or None.
        host_used_bytes: samples of the memory in use on the host, within the control group's limit.
    """

    weights_bytes: Count
    kv_cache_bytes: Count
    kv_cache_tokens: Count | None = None
    peak_engine_bytes: Count | None
    no_peak_reason: Text | None = None
    peak_process_bytes: Count | None
    peak_process_source: Text | None = None
    peak_rss_bytes: Count | None = None
    weight_copies_bytes: Count | None = None
    process_rss_bytes: Count | None = None
    device_free_bytes: Count | None = None
    device_free_source: Text | None = None
    counted_free_bytes: Count | None = None
    device_source: Text | None = None
    kv_capacity_tokens: Count | None = None
    device_used_bytes: tuple[Count, ...] = ()
    per_device_used_bytes: dict[Name, tuple[Count, ...]] = Field(default_factory=dict)
    polled_device_bytes: Count | None = None
    polled_device_reads: Count = 0
    polled_device_sensor: Name | None = None
    host_used_bytes: tuple[Count, ...] = ()


class BoxReadings(Record):
    """What was seen of the box while the measured trials of a start ran; None: not judged.

    Attributes:
        seconds: time between the two looks that the shares refer to.
        steal_share: processor time that the hypervisor took, of all that was wanted.
        foreign_cpu_share: processor time of other processes, of all that the worker's CPUs have.
        busy_cpu_share: processor time of everybody, of the same.
        throttled_share: time that a CPU quota held the processes back, of the same.
        swapped_bytes: moved to or from swap on the whole machine.
        major_faults: times that the worker waited for a page from disk.
        numa_remote_share: memory of the worker on other nodes than its threads call for.
        worker_stops: trials in which the worker was stopped by a signal.
        longest_pause_s: longest time between two trials in which the worker had nothing to do.
        repeated_prompt_ratio: time of a repeated prompt over that of fresh ones.
        not_judged: codes of the flags for which something could not be read.
    """

    seconds: Finite = 0.0
    steal_share: Finite | None = None
    foreign_cpu_share: Finite | None = None
    busy_cpu_share: Finite | None = None
    throttled_share: Finite | None = None
    swapped_bytes: Finite | None = None
    major_faults: Finite | None = None
    numa_remote_share: Finite | None = None
    worker_stops: Count | None = None
    longest_pause_s: Finite | None = None
    repeated_prompt_ratio: Finite | None = None
    not_judged: tuple[Name, ...] = ()
