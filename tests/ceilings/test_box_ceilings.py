"""Ceilings of whole boxes through real worker processes: fake devices, and gloo over two real ones."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from profiler.backends.fake import FakeBackend
from profiler.ceilings.box import Asked, measure_box
from profiler.ceilings.collectives import collective_ceilings
from profiler.ceilings.datasheet import Datasheet, datasheet
from profiler.ceilings.probe import Probe, missing
from profiler.ceilings.sustained import sustained_ceiling
from profiler.engines.fake import FakeEngine
from profiler.hardware.catalogue import find_hardware

DEVICES = {device.key: device for device in FakeBackend().report().devices}


def asked(**changes: Any) -> Asked:
    fields: dict[str, Any] = {
        "engine": FakeEngine(),
        "options": {"probe_cv": 0.0},
        "python": sys.executable,
        "sustained_s": None,
        "sustained_dtype": "bf16",
        "say": lambda _: None,
    }
    return Asked(**fields | changes)


def test_two_devices_are_measured_alone_and_together() -> None:
    found = measure_box([DEVICES["fake-h100"], DEVICES["fake-mi300x"]], asked(sustained_s=30.0))
    values = {(one.device_key, one.name): one.measurement.value for one in found.ceilings}
    assert values["fake-h100", "read_bandwidth"] == pytest.approx(0.9 * 3.35e12)
    assert values["fake-mi300x", "matrix_flops:bf16"] == pytest.approx(0.45 * 1307e12)
    assert values["fake-h100", "matrix_flops_sustained:bf16"] == pytest.approx(0.9 * 0.65 * 989e12)
    assert values["fake-h100", "device_to_device:fake-mi300x"] is not None
    # The slowest rank counts.
    assert values["fake-h100", "all_reduce"] == pytest.approx(0.08 * 0.9 * 3.35e12)
    assert values["fake-h100", "matrix_flops:fp8"] is None
    assert found.sustained["fake-h100"].no_clock is not None
    assert found.failures == []


def test_a_device_that_dies_is_named_and_the_other_still_measured() -> None:
    engine = FakeEngine()
    devices = [DEVICES["fake-0"], DEVICES["fake-h100"]]
    options = {"fault": "crash", "fault_at": "probe", "fault_on": 3}
    found = measure_box(devices, asked(engine=engine, options=options))
    assert found.devices == []
    assert len(found.failures) == 2
    assert "SIGSEGV" in found.failures[0]
    assert "simulated device (fake-0)" in found.failures[0]


def test_what_is_sustained_is_the_mean_after_the_first_third() -> None:
    rates = (9.0, 9.0, 9.0, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0)
    ceiling = sustained_ceiling(Probe(rates, "FLOP/s", "m"), "d", "bf16", "torch")
    assert ceiling.name == "matrix_flops_sustained:bf16"
    assert ceiling.measurement.value == 6.0
    assert ceiling.measurement.n == 6


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
def test_two_processes_exchange_data_over_gloo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Really over torch.distributed: two ranks on the CPU."""
    monkeypatch.setattr("profiler.ceilings.collectives.BYTES", 1 << 16)
    log_path = tmp_path / "log"
    found = collective_ceilings(
        [("cpu-0", "cpu"), ("cpu-0", "cpu")],
        engine="torch", options={"threads": 1}, python=sys.executable, log_path=log_path, hello_s=180.0,
    )  # fmt: skip
    assert [one.name for one in found] == ["all_reduce", "all_to_all"]
    for ceiling in found:
        assert ceiling.measurement.value is not None, ceiling.measurement.reason
        assert ceiling.measurement.n == 5
        assert ceiling.ceiling_method == "gloo over 2 ranks, bus bandwidth as in nccl-tests"


def ceiling_of(name: str, rate: float, unit: str = "bytes/s") -> Any:
    return Probe((rate,), unit, "m").ceiling("d", name)


def test_a_ceiling_stands_beside_what_the_documents_say() -> None:
    part = find_hardware("NVIDIA H100 80GB HBM3")
    assert part is not None
    assert part.memory_bandwidth_bytes_per_s is not None
    half = ceiling_of("read_bandwidth", part.memory_bandwidth_bytes_per_s.value / 2)
    beside = datasheet(half, "NVIDIA H100 80GB HBM3")
    assert isinstance(beside, Datasheet)
    assert beside.share == pytest.approx(0.5)
    assert beside.source == part.memory_bandwidth_bytes_per_s.source
    matrix = datasheet(ceiling_of("matrix_flops:bf16", part.flops["bf16"].value, "FLOP/s"), part.title)
    assert isinstance(matrix, Datasheet)
    assert matrix.share == pytest.approx(1.0)
    link = datasheet(ceiling_of("all_reduce", 1e9), part.title)
    assert isinstance(link, Datasheet)
    assert part.scale_up_link is not None
    assert link.value == part.scale_up_link.one_direction_bytes_per_s


def test_where_there_is_no_datasheet_the_reason_is_given() -> None:
    assert datasheet(ceiling_of("read_bandwidth", 1.0), "Imaginary X1") == (
        "the catalogue of hardware has no 'Imaginary X1'"
    )
    unknown = datasheet(ceiling_of("matrix_flops:fp12", 1.0, "FLOP/s"), "NVIDIA H100 80GB HBM3")
    assert isinstance(unknown, str)
    nothing = datasheet(missing("d", "read_bandwidth", "bytes/s", "why"), "NVIDIA H100 80GB HBM3")
    assert isinstance(nothing, Datasheet)
    assert nothing.share is None
