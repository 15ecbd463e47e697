"""The probes of the torch engine: what they time, and what they refuse. No test looks at a speed."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from profiler.worker import bandwidth, collectives, copies, matrix_rate, timed, torch_devices, torch_probes
from profiler.worker.protocol import EngineError

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")


class Clock:
    """A clock that only work moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns = 0
        monkeypatch.setattr(time, "perf_counter_ns", lambda: self.now_ns)
        monkeypatch.setattr(time, "monotonic_ns", lambda: self.now_ns)

    def work(self, seconds: float) -> Any:
        def pass_time() -> None:
            self.now_ns += round(seconds * 1e9)

        return pass_time


def test_a_rate_is_that_of_the_fastest_way(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    ways = {"slow": clock.work(0.01), "fast": clock.work(0.002)}
    rates = timed.fastest_rates(ways, {"slow": 1000.0, "fast": 500.0}, CPU, repeats=3, seconds=0.05)
    assert rates == pytest.approx([250_000.0] * 3)


def test_a_reading_is_as_long_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert timed.passes_for(clock.work(0.01), CPU, 0.05) == 5
    assert timed.passes_for(clock.work(10.0), CPU, 0.05) == 1


@pytest.mark.parametrize("number_format", ["fp32", "bf16", "int8"])
def test_products_have_normal_values_and_count_their_operations(
    monkeypatch: pytest.MonkeyPatch, number_format: str
) -> None:
    """Every product is computed once, for real; the clock says that a product of 512 takes 0.1 s."""
    clock = Clock(monkeypatch)
    real, seen = matrix_rate._product, []

    def product(device: Any, name: str, size: int) -> Any:
        multiply, pass_time = real(device, name, size), clock.work(0.1 * (size / 512) ** 3)
        result = multiply()
        seen.append((size, result.shape))
        return pass_time

    monkeypatch.setattr(matrix_rate, "_product", product)
    answer = matrix_rate.matrix_flops(CPU, number_format, 2)
    # 1024 would take 0.8 s, longer than a product may.
    assert seen == [(512, (512, 512)), (512, (512, 512)), (256, (256, 256))]
    assert answer["flops_per_s"] == pytest.approx([2 * 512**3 / 0.1] * 2)
    assert "N(0,1)" in answer["method"]


def test_the_values_of_a_product_are_standard_normal() -> None:
    generator_free = matrix_rate._product(CPU, "fp32", 512)
    product = generator_free()
    # Sums of 512 products of independent N(0, 1) values have mean 0 and variance 512.
    assert abs(float(product.mean())) < 1.0
    assert float(product.std()) == pytest.approx(512**0.5, rel=0.05)


def test_a_format_that_the_device_lacks_is_unsupported() -> None:
    with pytest.raises(EngineError, match="no fast fp8 products on cpu") as caught:
        matrix_rate.matrix_flops(CPU, "fp8", 1)
    assert caught.value.kind == "unsupported"
    with pytest.raises(EngineError, match="only fp32, bf16") as caught:
        matrix_rate.matrix_flops(CPU, "fp3", 1)
    assert caught.value.kind == "bad_request"


def test_fp32_keeps_its_precision_and_the_setting_is_put_back() -> None:
    torch.set_float32_matmul_precision("high")
    try:
        with matrix_rate._full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_sustained_run_goes_on_for_as_long_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    monkeypatch.setattr(matrix_rate, "_products", lambda *_: ({"one": clock.work(0.25)}, {"one": 100}))
    answer = matrix_rate.sustained_matrix_flops(CPU, "bf16", 5.0)
    assert answer["flops_per_s"] == pytest.approx([2 * 100**3 / 0.25] * 5)
    assert answer["ended_ns"] - answer["started_ns"] == 5_000_000_000


def test_a_copy_counts_what_is_read_and_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: dict[str, float] = {}

    def rates(ways: dict[str, Any], amounts: dict[str, float], *_: Any) -> list[float]:
        for name, way in ways.items():
            way()
            copied[name] = amounts[name]
        return [1.0]

    monkeypatch.setattr(timed, "fastest_rates", rates)
    monkeypatch.setattr(bandwidth, "last_level_cache_bytes", lambda: 0)
    answer = copies.copy_bandwidth(CPU, 1 << 20, 1)
    assert copied == dict.fromkeys(("copy", "four_parts"), 2.0 * (1 << 20))
    assert answer["buffer_bytes"] == 1 << 20


def test_both_ways_of_copying_copy_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way alone must leave the target full of the source's ones."""
    targets: list[float] = []

    def rates(ways: dict[str, Any], *_: Any) -> list[float]:
        for way in ways.values():
            result = way()
            targets.append(float(result.sum()))
            result.zero_()
        return [1.0]

    monkeypatch.setattr(timed, "fastest_rates", rates)
    monkeypatch.setattr(bandwidth, "last_level_cache_bytes", lambda: 0)
    copies.copy_bandwidth(CPU, 1 << 20, 1)
    assert targets == [(1 << 20) / 4] * 2


def test_a_cpu_has_no_link_to_itself_and_no_room_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match="its memory is the host's") as caught:
        copies.host_link(CPU, 1 << 20, 1, to_device=True)
    assert caught.value.kind == "unsupported"
    monkeypatch.setattr(torch_devices, "memory_bytes", lambda _: (2 << 20, 1 << 20, "test"))
    with pytest.raises(EngineError, match="1048576 free bytes on cpu"):
        copies.peer_link(CPU, CPU, 1 << 20, 1)


def test_a_peer_link_moves_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    pass_time = clock.work(0.01)
    monkeypatch.setattr(torch_devices, "synchronize", lambda _: pass_time())
    answer = copies.peer_link(CPU, CPU, 1 << 20, 2)
    # Each reading waits once before it and once after it; each copy waits for the peer.
    assert all(rate < (1 << 20) / 0.01 for rate in answer["bytes_per_s"])
    assert len(answer["bytes_per_s"]) == 2


@pytest.mark.parametrize("kind", collectives.KINDS)
def test_an_exchange_with_nobody_else_is_refused_by_name(kind: str) -> None:
    request = {
        "kind": kind,
        "rank": 0,
        "world_size": 1,
        "store": "/",
        "bytes": 8,
        "repeats": 1,
        "timeout_s": 1,
    }
    with pytest.raises(EngineError, match="no collectives for mps") as caught:
        collectives.collective(torch.device("mps"), request)
    assert caught.value.kind == "unsupported"


def test_a_kind_that_does_not_exist_names_those_that_do() -> None:
    with pytest.raises(EngineError, match="no probe 'read_speed', only read_bandwidth, copy_bandwidth"):
        torch_probes.measure(CPU, {"kind": "read_speed"})
    with pytest.raises(EngineError, match="repeats must be a whole number above 0, not 0"):
        torch_probes.measure(CPU, {"kind": "copy_bandwidth", "bytes": 1 << 20, "repeats": 0})
