"""Devices as PyTorch describes them, with accelerators that are not here stood in for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from profiler.worker import torch_devices

pytestmark = pytest.mark.torch

UUID = "8F3C1E55-0D2A-4b6e-9c1d-2f60a1b2c3d4"


def runtime(**properties: Any) -> SimpleNamespace:
    return SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 2,
        get_device_properties=lambda index: SimpleNamespace(**properties),
        get_device_name=lambda index: f"Accelerator {index}",
        mem_get_info=lambda device: (3, 10),
        max_memory_reserved=lambda device: 7,
        synchronize=lambda device: None,
    )


def described(monkeypatch: pytest.MonkeyPatch, kind: str, fake: Any) -> list[dict[str, Any]]:
    monkeypatch.setattr(torch, kind, fake, raising=False)
    return [entry for entry in torch_devices.list_devices()[0] if entry["device"].startswith(kind)]


def test_cuda_devices_have_nvidias_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = runtime(uuid=UUID, pci_domain_id=0, pci_bus_id=0x17, pci_device_id=0)
    first, second = described(monkeypatch, "cuda", fake)
    assert first == {
        "device": "cuda:0",
        "name": "Accelerator 0",
        "uuid": "GPU-8f3c1e55-0d2a-4b6e-9c1d-2f60a1b2c3d4",
        "pci_address": "0000:17:00.0",
    }
    assert second["device"] == "cuda:1"


def test_rocm_devices_are_known_by_their_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "6.4")
    fake = runtime(uuid=UUID, pci_domain_id=1, pci_bus_id=0xC3, pci_device_id=2)
    entry = described(monkeypatch, "cuda", fake)[0]
    assert (entry["uuid"], entry["pci_address"]) == (None, "0001:c3:02.0")


def test_rocm_devices_have_the_chips_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """HIP fills the sixteen bytes of a UUID with the characters of the number."""
    monkeypatch.setattr(torch.version, "hip", "6.4")
    fake = runtime(uuid="61316232-6333-6434-6535-663630373138")
    assert described(monkeypatch, "cuda", fake)[0]["uuid"] == "GPU-a1b2c3d4e5f60718"


def test_a_build_that_tells_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = described(monkeypatch, "npu", runtime())[0]
    assert entry == {"device": "npu:0", "name": "Accelerator 0", "uuid": None, "pci_address": None}


def test_a_runtime_that_fails_hides_no_other_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> bool:
        raise RuntimeError("driver too old")

    monkeypatch.setattr(torch, "cuda", SimpleNamespace(is_available=fail))
    monkeypatch.setattr(torch, "npu", runtime(), raising=False)
    devices, failures = torch_devices.list_devices()
    assert [entry["device"] for entry in devices] == ["cpu", "npu:0", "npu:1"]
    assert len(failures) == 1
    assert "driver too old" in failures[0]


def test_memory_of_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "npu", runtime(), raising=False)
    device = SimpleNamespace(type="npu")
    assert torch_devices.memory_bytes(device) == (10, 3, "torch.npu.mem_get_info")
    assert torch_devices.engine_peak_bytes(device) == (7, None)
    monkeypatch.setattr(torch, "npu", SimpleNamespace())
    assert torch_devices.memory_bytes(device)[:2] == (None, None)
    assert torch_devices.engine_peak_bytes(device) == (None, "torch.npu keeps no peak")
    torch_devices.release_cached(device)
    torch_devices.reset_peak(device)


def test_the_cpu_has_no_peak_and_needs_no_waiting() -> None:
    device = torch_devices.require("cpu")
    torch_devices.synchronize(device)
    assert torch_devices.engine_peak_bytes(device) == (None, "PyTorch's CPU allocator keeps no peak")
    total, free, _ = torch_devices.memory_bytes(device)
    assert total is not None
    assert free is not None
