from __future__ import annotations

from pathlib import Path
from typing import Any

import machines
import pytest

from profiler.backends.cuda import CudaBackend
from profiler.sensors.nvml import Nvml

UUIDS = [f"GPU-{digit * 8}-1111-2222-3333-444444444444" for digit in "abcd"]


def boxes(count: int, **more: object) -> dict[str, object]:
    """Configuration of a box with ``count`` H100."""
    config: dict[str, object] = {"gpus": count}
    for index in range(count):
        config[f"{index}.uuid"] = UUIDS[index]
        config[f"{index}.pci"] = f"00000000:{0x17 + index:02X}:00.0"
    return config | {key.replace("_", ".", 1): value for key, value in more.items()}


def keys(answers: dict[str, Any]) -> list[str]:
    return [device["key"] for device in answers["report"]["devices"]]


def test_describes_a_gpu(probe_cuda: Any) -> None:
    answers = probe_cuda(boxes(1))
    [device] = answers["report"]["devices"]
    assert device["key"] == device["uuid"] == UUIDS[0]
    assert device["pci_address"] == "0000:17:00.0"
    assert device["name"] == "NVIDIA H100 80GB HBM3"
    assert device["memory_total_bytes"] == 85520809984
    assert device["simulated"]
    details = device["details"]
    assert details["compute_capability"] == "9.0"
    assert details["power_limit_w"] == 700.0
    assert details["mig_enabled"] is False
    assert details["ecc_enabled"] is True
    assert details["pcie_lanes"] == 16
    assert details["max_sm_clock_hz"] == 1_980_000_000
    assert details["unknown"] == {}
    facts = answers["report"]["facts"]
    assert (facts["driver_version"], facts["cuda_driver_version"]) == ("575.57.08", "12.9")


def test_keeps_the_two_memory_calls_apart(probe_cuda: Any) -> None:
    answers = probe_cuda(boxes(1))
    [device] = answers["report"]["devices"]
    old, new = device["details"]["memory_v1_bytes"], device["details"]["memory_v2_bytes"]
    assert "reserved" not in old
    assert old["used"] == new["used"] + new["reserved"]
    memory = answers["memory"][UUIDS[0]]
    assert memory["source"] == "nvml:memory_v2"
    assert memory["free_bytes"] == new["free"] == new["total"] - new["used"] - new["reserved"]


def test_an_old_driver_has_only_the_first_memory_call(probe_cuda: Any) -> None:
    answers = probe_cuda(boxes(1, **{"0_error.nvmlDeviceGetMemoryInfo_v2": 13}))
    [device] = answers["report"]["devices"]
    assert answers["memory"][UUIDS[0]]["source"] == "nvml:memory_v1"
    assert device["details"]["memory_v2_bytes"] is None
    assert "has no nvmlDeviceGetMemoryInfo" in device["details"]["unknown"]["memory_v2_bytes"]


def test_a_gpu_that_shares_system_memory_has_that(probe_cuda: Any, tmp_path: Path) -> None:
    refusals = {"0_error.nvmlDeviceGetMemoryInfo_v2": 3, "0_error.nvmlDeviceGetMemoryInfo": 3}
    answers = probe_cuda(boxes(1, **refusals))
    [device] = answers["report"]["devices"]
    assert device["memory_total_bytes"] is None
    assert answers["memory"][UUIDS[0]]["code"] == "not_supported_by_device"
    machines.intel_server(tmp_path / "root")
    answers = probe_cuda(boxes(1, **refusals))
    [device] = answers["report"]["devices"]
    assert device["memory_total_bytes"] == 263192560 * 1024
    assert answers["memory"][UUIDS[0]]["free_bytes"] == 250000000 * 1024
    assert "the system's" in answers["memory"][UUIDS[0]]["source"]
    assert any("the system's" in note for note in device["details"]["notes"])


def test_the_energy_counter_says_what_it_covers(probe_cuda: Any) -> None:
    for scope, config in (("board", {}), ("module", {"0_module": 1})):  # a superchip counts its module
        able = probe_cuda(boxes(1, **config))["capabilities"][UUIDS[0]]
        assert able["energy"] == {
            "name": "energy",
            "source": f"nvml:total_energy ({scope})",
            "unavailable": None,
        }


def test_a_virtual_gpu_has_no_energy_counter_but_power(probe_cuda: Any) -> None:
    answers = probe_cuda(boxes(1, **{"0_error.nvmlDeviceGetTotalEnergyConsumption": 3}))
    able = answers["capabilities"][UUIDS[0]]
    assert able["energy"]["unavailable"]["code"] == "not_supported_by_device"
    assert able["energy"]["source"] is None
    assert able["power"] == {"name": "power", "source": "nvml:power_usage", "unavailable": None}
    # This fake has only the old name of the call.
    assert able["throttling"]["source"] == "nvml:clocks_event_reasons"


def test_a_gpu_lost_before_the_start_is_named_and_the_others_are_used(probe_cuda: Any) -> None:
    answers = probe_cuda(boxes(3, **{"1_error.*": 15}))
    assert keys(answers) == [UUIDS[0], UUIDS[2]]
    [lost] = answers["report"]["facts"]["unusable_gpus"]
    assert (lost["nvml_index"], lost["code"]) == (1, "lost")


def test_a_gpu_lost_between_reads_has_no_energy(probe_cuda: Any) -> None:
    config = boxes(1)
    answers = probe_cuda(config, then=config | {"0.error.*": 15})
    assert answers["capabilities"][UUIDS[0]]["energy"]["unavailable"] is None
    assert answers["capabilities_then"][UUIDS[0]]["energy"]["unavailable"]["code"] == "lost"


def test_only_lost_gpus_are_no_devices(probe_cuda: Any) -> None:
    report = probe_cuda(boxes(1, **{"0_error.*": 15}))["report"]
    assert report["devices"] == []
    assert report["unavailable"]["code"] == "lost"
    assert "GPU 0" in report["unavailable"]["text"]


@pytest.mark.parametrize(
    ("error", "code"),
    [(9, "driver_not_loaded"), (18, "library_mismatch"), (4, "permission"), (999, "unknown")],
)
def test_says_why_the_driver_cannot_be_used(probe_cuda: Any, error: int, code: str) -> None:
    report = probe_cuda({"error.nvmlInitWithFlags": error})["report"]
    assert report["devices"] == []
    assert report["unavailable"]["code"] == code


def test_a_driver_without_gpus(probe_cuda: Any) -> None:
    assert probe_cuda({"gpus": 0})["report"]["unavailable"]["code"] == "no_device"


def test_zero_uuids_are_replaced_by_the_pci_address(probe_cuda: Any) -> None:
    zero = "GPU-00000000-0000-0000-0000-000000000000"
    answers = probe_cuda(boxes(2, **{"0_uuid": zero}))
    first, second = answers["report"]["devices"]
    assert (first["key"], first["uuid"]) == ("0000:17:00.0", None)
    assert "all-zero" in first["details"]["notes"][0]
    assert second["key"] == UUIDS[1]
    assert "0000:17:00.0" in answers["capabilities"]


def test_repeated_uuids_are_replaced_by_the_pci_addresses(probe_cuda: Any) -> None:
    answers = probe_cuda(boxes(3, **{"1_uuid": UUIDS[0]}))
    assert keys(answers) == ["0000:17:00.0", "0000:18:00.0", UUIDS[2]]
    assert all("several GPUs" in device["details"]["notes"][0] for device in answers["report"]["devices"][:2])


def test_a_gpu_without_any_identity_is_not_offered(probe_cuda: Any) -> None:
    answers = probe_cuda(boxes(1, **{"0_error.nvmlDeviceGetUUID": 3, "0_error.nvmlDeviceGetPciInfo_v3": 3}))
    assert answers["report"]["unavailable"]["code"] == "no_identity"


def test_mig_instances_take_the_place_of_their_gpu(probe_cuda: Any) -> None:
    answers = probe_cuda(boxes(2, **{"0_mig": 1, "0_instances": 2}))
    devices = answers["report"]["devices"]
    assert [device["details"]["mig_parent_uuid"] for device in devices] == [UUIDS[0], UUIDS[0], None]
    first = devices[0]["key"]
    assert first.startswith("MIG-")
    assert answers["capabilities"][first]["energy"]["unavailable"]["code"] == "mig_instance"
    assert answers["capabilities"][first]["power"]["unavailable"]["code"] == "mig_instance"
    assert answers["capabilities"][UUIDS[1]]["energy"]["unavailable"] is None


def test_mig_without_instances_says_what_to_do(probe_cuda: Any) -> None:
    unavailable = probe_cuda(boxes(1, **{"0_mig": 1}))["report"]["unavailable"]
    assert unavailable["code"] == "no_mig_instance"
    assert "nvidia-smi" in unavailable["remedy"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1", [1]), ("2,0", [2, 0]), ("0,-1,1", [0]), (UUIDS[2][:10], [2]), ("", []), ("0,0", [])],
)
def test_offers_what_cuda_programs_will_see(probe_cuda: Any, value: str, expected: list[int]) -> None:
    report = probe_cuda(boxes(3), environment={"CUDA_VISIBLE_DEVICES": value})["report"]
    assert [device["key"] for device in report["devices"]] == [UUIDS[index] for index in expected]
    assert [device["ordinal"] for device in report["devices"]] == list(range(len(expected)))
    if not expected:
        assert report["unavailable"]["code"] == "hidden"
        assert "CUDA_VISIBLE_DEVICES" in report["unavailable"]["text"]


def test_mig_instances_are_chosen_by_uuid_or_as_the_first_of_their_gpu(probe_cuda: Any) -> None:
    config = boxes(2, **{"0_mig": 1, "0_instances": 2})
    all_keys = keys(probe_cuda(config))
    assert keys(probe_cuda(config, environment={"CUDA_VISIBLE_DEVICES": all_keys[1]})) == [all_keys[1]]
    assert keys(probe_cuda(config, environment={"CUDA_VISIBLE_DEVICES": "0,1"})) == [all_keys[0], all_keys[2]]
    old_name = f"MIG-{UUIDS[0]}/8/0"
    assert keys(probe_cuda(config, environment={"CUDA_VISIBLE_DEVICES": old_name})) == [all_keys[1]]


def test_warns_when_cuda_may_number_gpus_otherwise(probe_cuda: Any) -> None:
    config = boxes(2, **{"1_name": "NVIDIA A100-SXM4-80GB"})
    assert "fastest first" in probe_cuda(config)["report"]["facts"]["notes"][0]
    ordered = probe_cuda(config, environment={"CUDA_DEVICE_ORDER": "PCI_BUS_ID"})
    assert ordered["report"]["facts"]["notes"] == []


def _without_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the dynamic linker find no libnvidia-ml.so.1, whatever this machine has."""
    import pynvml

    def refuse(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", refuse)


def test_without_a_driver_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _without_library(monkeypatch)
    report = CudaBackend(root=tmp_path).report()
    assert report.devices == ()
    assert report.unavailable is not None
    assert report.unavailable.code == "no_library"
    assert report.unavailable.text == "no NVIDIA driver library found (libnvidia-ml.so.1)"


def test_points_at_a_gpu_that_only_lacks_its_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _without_library(monkeypatch)
    pci = "/sys/bus/pci/devices/0000:17:00.0"
    machines.write(tmp_path, {f"{pci}/class": "0x030200", f"{pci}/vendor": "0x10de"})
    report = CudaBackend(root=tmp_path).report()
    assert report.unavailable is not None
    assert report.unavailable.text.endswith("though an NVIDIA GPU is at 0000:17:00.0")


def test_a_missing_python_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    failure = Nvml().open()
    assert failure is not None
    assert (failure.code, failure.remedy) == ("no_library", "pip install nvidia-ml-py")
