"""Memory of a case and the capacity that follows from it, worked out by hand beside the code."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from builders import make_spec

from profiler.backends.base import Device, DeviceMemory
from profiler.measure.context import MeasuredStart, StartFailedError
from profiler.measure.memory import (
    FREE_OVER_CACHE,
    REPORTED,
    Samples,
    memory_flags,
    memory_measurements,
    readings,
    refuse_if_misplaced,
)
from profiler.measure.polled_memory import Polled
from profiler.results.schema import CaseSpec, Measurement

GIB = 1 << 30


@dataclass
class Outcome:
    """What a worker answers about the memory of a start."""

    loaded: dict[str, Any]
    memory: dict[str, Any]
    device_used_bytes: list[int] = field(default_factory=list)
    host_used_bytes: list[int] = field(default_factory=list)
    counted: DeviceMemory | None = None
    polled: Polled | None = None

    @property
    def record(self) -> SimpleNamespace:
        """The start as the record has it."""
        seen = Samples({"one": self.device_used_bytes}, self.host_used_bytes, self.counted, self.polled)
        return SimpleNamespace(memory=readings(self.loaded, self.memory, seen))


def outcome(cache: int = 8 * 256 * 1000, **memory: Any) -> Outcome:
    known = {
        "engine_peak_bytes": 3 * GIB,
        "engine_peak_reason": None,
        "process_rss_bytes": None,
        "peak_process_bytes": None,
        "device_free_bytes": 10_000_000,
    }
    return Outcome({"weights_bytes": GIB, "kv_cache_bytes": cache}, known | memory)


def spec(**changes: Any) -> CaseSpec:
    """Batch 8, 128 + 128 tokens: with 1000 bytes of cache per token."""
    return make_spec(**{"batch": 8, "prompt_tokens": 128, "output_tokens": 128, **changes})


def figures(*outcomes: Outcome, of: CaseSpec | None = None) -> dict[str, Measurement]:
    return memory_measurements(of or spec(), cast("list[MeasuredStart]", outcomes))


def test_capacity_is_what_is_free_and_what_the_cache_has() -> None:
    found = figures(outcome())
    tokens = found["kv_capacity_tokens"]
    assert (tokens.value, tokens.method, tokens.scope) == (10_000 + 2048, FREE_OVER_CACHE, "device")
    assert found["max_users_at_context"].value == 12_048 // 256


def test_the_devices_own_counters_have_a_say() -> None:
    """What the engine is told and what the driver counts: the smaller counts, and both sources are named."""
    one = outcome(device_source="torch.cuda.mem_get_info")
    one.counted = DeviceMemory(80 * GIB, 9_000_000, "nvml:memory_v2")
    tokens = figures(one)["kv_capacity_tokens"]
    assert tokens.value == 9_000 + 2048
    assert tokens.method == f"{FREE_OVER_CACHE}; free by torch.cuda.mem_get_info, nvml:memory_v2"
    (flag,) = memory_flags(cast("list[MeasuredStart]", [one]))
    assert flag.code == "memory_disagrees"
    assert "nvml:memory_v2" in flag.text
    one.counted = DeviceMemory(80 * GIB, 9_900_000, "nvml:memory_v2")
    assert not memory_flags(cast("list[MeasuredStart]", [one]))
    alone = outcome(device_free_bytes=None)
    alone.counted = DeviceMemory(80 * GIB, 9_000_000, "dcmi:hbm_info")
    assert figures(alone)["kv_capacity_tokens"].value == 9_000 + 2048


def test_a_peak_between_the_stages_is_seen_by_the_sampler() -> None:
    one = outcome()
    one.device_used_bytes = [5, 7]
    one.counted = DeviceMemory(80 * GIB, 80 * GIB - 7, "nvml:memory_v2")
    one.polled = Polled(11, 40, "nvml:GPU-1/memory_used")
    found = figures(one)["max_sampled_device_bytes"]
    assert (found.value, found.n, found.scope) == (11, 42, "device")
    assert "2 between stages (nvml:memory_v2), 40 by the sampler (nvml:GPU-1/memory_used)" in found.method


def test_the_peak_of_a_process_says_where_it_was_read() -> None:
    own = outcome(peak_process_bytes=GIB, peak_process_source="memory.peak of its own control group")
    assert figures(own)["peak_process_bytes"].method == (
        "peak of the worker (memory.peak of its own control group)"
    )
    # The page cache of the group's files is no activation: what was given back is told by the resident set.
    given_back = outcome(
        engine_peak_bytes=None,
        process_rss_bytes=GIB,
        peak_rss_bytes=GIB + 4_000_000,
        peak_process_bytes=3 * GIB,
    )
    assert figures(given_back)["kv_capacity_tokens"].value == 10_000 + 2048 - 4_000


def test_activations_that_a_process_gave_back_are_taken_off() -> None:
    given_back = outcome(engine_peak_bytes=None, process_rss_bytes=GIB, peak_process_bytes=GIB + 4_000_000)
    assert figures(given_back)["kv_capacity_tokens"].value == 10_000 + 2048 - 4_000


def test_the_smallest_start_counts_and_never_less_than_nothing() -> None:
    found = figures(outcome(), outcome(device_free_bytes=0))
    assert (found["kv_capacity_tokens"].value, found["kv_capacity_tokens"].n) == (2048, 2)
    none_left = outcome(engine_peak_bytes=None, process_rss_bytes=0, peak_process_bytes=GIB)
    assert figures(none_left)["kv_capacity_tokens"].value == 0


def test_an_engine_that_sets_its_cache_aside_says_how_much() -> None:
    tokens = figures(outcome(kv_capacity_tokens=123_456))["kv_capacity_tokens"]
    assert (tokens.value, tokens.method) == (123_456, REPORTED)


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (outcome(device_free_bytes=None), "how much memory"),
        (outcome(cache=0), "no cache"),
        (outcome(cache=0, kv_capacity_tokens=True), "no cache"),
    ],
)
def test_reasons_for_having_none(one: Outcome, words: str) -> None:
    found = figures(outcome(), one)
    for name in ("kv_capacity_tokens", "max_users_at_context"):
        assert found[name].value is None
        assert words in str(found[name].reason)


def test_a_slice_says_nothing_of_the_whole() -> None:
    part = spec().model_copy(update={"slice": SimpleNamespace(dense=1, moe=0)})  # as the record has it
    assert "slice" in str(figures(outcome(), of=part)["kv_capacity_tokens"].reason)


def test_each_observer_has_a_figure_of_its_own() -> None:
    one = outcome()
    one.device_used_bytes, one.host_used_bytes = [5, 7, 6], [70, 80]
    found = figures(one, outcome(engine_peak_bytes=4 * GIB))
    assert found["max_sampled_device_bytes"].value == 7
    assert (found["max_sampled_host_bytes"].value, found["max_sampled_host_bytes"].scope) == (80, "host")
    assert found["peak_engine_bytes"].value == 4 * GIB
    assert found["peak_process_bytes"].value is None
    assert figures(outcome())["max_sampled_host_bytes"].reason == "the host's memory cannot be read"


def test_a_model_on_another_device_fails_the_case() -> None:
    details = {"engine_position": 0, "engine_devices": 1}
    npu = Device("0000:c1:00.0", "ascend", 0, "An NPU", 64 * GIB, details=details)
    with pytest.raises(StartFailedError, match="another device") as caught:
        refuse_if_misplaced(npu, 60 * GIB, 60 * GIB, 16 * GIB)
    assert (caught.value.kind, caught.value.stage) == ("device", "load")
    refuse_if_misplaced(npu, 60 * GIB, 44 * GIB, 16 * GIB)
    refuse_if_misplaced(npu, None, 44 * GIB, 16 * GIB)
