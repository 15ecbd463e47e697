"""The read probe: what it times, and how large its buffer is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from profiler.worker import bandwidth, torch_devices
from profiler.worker.protocol import EngineError

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")


def cache(root: Path, cpu: int, index: int, level: int, kind: str, size: str, shared: str) -> None:
    folder = root / f"cpu{cpu}" / "cache" / f"index{index}"
    folder.mkdir(parents=True)
    for name, value in (("level", str(level)), ("type", kind), ("size", size), ("shared_cpu_list", shared)):
        (folder / name).write_text(value + "\n")


def test_last_level_caches_are_added_up_once_each(tmp_path: Path) -> None:
    for cpu in range(4):
        pair = "0-1" if cpu < 2 else "2-3"
        cache(tmp_path, cpu, 0, 1, "Data", "48K", str(cpu))
        cache(tmp_path, cpu, 1, 1, "Instruction", "32K", str(cpu))
        cache(tmp_path, cpu, 2, 2, "Unified", "1024K", str(cpu))
        cache(tmp_path, cpu, 3, 3, "Unified", "32768K", pair)
    assert bandwidth.last_level_cache_bytes(str(tmp_path)) == 2 * 32768 * 1024


def test_a_kernel_without_cache_sizes(tmp_path: Path) -> None:
    assert bandwidth.last_level_cache_bytes(str(tmp_path)) == 0


def test_the_buffer_is_four_caches_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "last_level_cache_bytes", lambda: 1 << 20)
    asked = {1 << 19: 4 << 20, 32 << 20: 32 << 20}
    for minimum, expected in asked.items():
        assert bandwidth.read_bandwidth(CPU, minimum, 1)["buffer_bytes"] == expected


def test_every_way_reads_the_whole_buffer() -> None:
    buffer = torch.ones(bandwidth._ALIGNMENT // 4)
    sums = {name: float(read().sum()) for name, read in bandwidth._ways(buffer).items()}
    assert sums == {"sum": buffer.numel(), "dot": buffer.numel() / 2, "four_parts": buffer.numel()}


def test_bytes_per_second_are_bytes_over_seconds_of_the_fastest_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that each way of reading moves by a known time."""
    now = 0
    costs = {"sum": 4_000_000, "dot": 2_000_000, "four_parts": 8_000_000}

    def advance(cost: int) -> Any:
        def read() -> None:
            nonlocal now
            now += cost

        return read

    monkeypatch.setattr(bandwidth, "last_level_cache_bytes", lambda: 0)
    monkeypatch.setattr(bandwidth, "_ways", lambda _: {name: advance(cost) for name, cost in costs.items()})
    monkeypatch.setattr(time, "perf_counter_ns", lambda: now)
    answer = bandwidth.read_bandwidth(CPU, 1 << 20, 3)
    assert answer["bytes_per_s"] == pytest.approx([(1 << 20) / 2e-3] * 3)
    assert answer["variants"]["four_parts"] == pytest.approx((1 << 20) / 8e-3)


def test_a_buffer_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_devices, "memory_bytes", lambda _: (2 << 20, 1 << 20, "test"))
    with pytest.raises(EngineError, match="1048576 free bytes on cpu") as caught:
        bandwidth.read_bandwidth(CPU, 1 << 20, 1)
    assert caught.value.kind == "out_of_memory"
