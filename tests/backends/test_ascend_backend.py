"""The Ascend backend over a libdcmi.so and an npu-smi without an NPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes.power import FAKES, compile_fake, write_config
from machines import write

from profiler.backends.ascend import AscendBackend
from profiler.backends.base import DeviceMemory, Unavailable

TOOLKIT = "/usr/local/Ascend/ascend-toolkit/latest"
Probe = Callable[..., dict[str, Any]]
SCRIPT = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from profiler.backends.ascend import AscendBackend
backend = AscendBackend(Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3], "/nowhere/npu-smi")
report = backend.report()
print(json.dumps({
    "report": asdict(report),
    "memory": {one.key: asdict(backend.memory(one)) for one in report.devices},
    "able": {one.key: {can.name: asdict(can) for can in backend.capabilities(one)} for one in report.devices},
}))
"""


@pytest.fixture(scope="session")
def dcmi_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fake library."""
    library = compile_fake("fake_dcmi.c", tmp_path_factory.mktemp("dcmi") / "libdcmi.so")
    if library is None:
        pytest.skip("the fake library needs a C compiler (cc or gcc)")
    return library


@pytest.fixture
def probe(dcmi_library: Path, tmp_path: Path) -> Probe:
    """``probe(config, **environment)``: the backend in a process of its own, as a library is opened once."""

    def run(config: Mapping[str, object], **environment: str) -> dict[str, Any]:
        write_config(tmp_path / "dcmi.conf", config)
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                SCRIPT,
                str(tmp_path / "root"),
                json.dumps(environment),
                str(dcmi_library),
            ],
            env={
                **os.environ,
                "FAKE_DCMI_CONFIG": str(tmp_path / "dcmi.conf"),
                "PYTHONPATH": str(FAKES.parent.parent),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answers: dict[str, Any] = json.loads(done.stdout)
        return answers

    return run


def devices(answers: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answers["report"]["devices"]
    return found


def test_describes_an_npu(probe: Probe, tmp_path: Path) -> None:
    bus = "/sys/bus/pci/devices/0000:c1:00.0"
    write(
        tmp_path / "root",
        {
            f"{bus}/current_link_speed": "16.0 GT/s PCIe",
            f"{bus}/max_link_speed": "32.0 GT/s PCIe",
            f"{bus}/current_link_width": 16,
            f"{bus}/max_link_width": 16,
            f"{bus}/numa_node": 2,
            f"{TOOLKIT}/aarch64-linux/ascend_toolkit_install.info": "version=8.2.RC1",
        },
    )
    answers = probe({"cards": 2, "mcu": 1, "0.profile": "0:92.5", "1.profile": "0:0", "physical_offset": 8})
    first, _ = devices(answers)
    assert (first["key"], first["pci_address"]) == ("0000:c1:00.0", "0000:c1:00.0")
    assert (first["name"], first["simulated"]) == ("Ascend 910B2", True)
    details = first["details"]
    assert (details["card"], details["chip"], details["logic_id"], details["physical_id"]) == (0, 0, 0, 8)
    assert (details["pcie_generation"], details["pcie_generation_max"], details["numa_node"]) == (4, 5, 2)
    assert details["ai_cores"] == 24
    assert details["vnpu"] is None
    [link] = details["links"]
    assert (link["kind"], link["peer"]) == ("hccs", "0000:c2:00.0")
    assert all(details[key] is None for key in details["unknown"])
    memory = answers["memory"]["0000:c1:00.0"]
    assert memory["total_bytes"] == first["memory_total_bytes"] == 65536 << 20
    assert memory["total_bytes"] - memory["free_bytes"] == 3417 << 20
    able = answers["able"]["0000:c1:00.0"]
    assert (able["power"]["source"], able["clocks"]["source"]) == ("dcmi:power_info", "dcmi:aicore_info")
    assert able["energy"]["unavailable"]["code"] == "not_supported_by_device"
    assert answers["able"]["0000:c2:00.0"]["power"]["unavailable"]["code"] == "implausible"
    facts = answers["report"]["facts"]
    assert (facts["driver_version"], facts["cann_version"]) == ("25.2.0", "8.2.RC1")


@pytest.mark.parametrize(
    ("config", "variable", "expected"),
    [
        ({}, None, [(0, "0000:c1:00.0"), (1, "0000:c2:00.0"), (2, "0000:c3:00.0"), (3, "0000:c4:00.0")]),
        ({}, "1,3", [(0, "0000:c2:00.0"), (1, "0000:c4:00.0")]),
        # Logical ids that run against the cards: what programs count is what counts.
        ({"0.logic": 3, "1.logic": 2, "2.logic": 1, "3.logic": 0}, "0", [(0, "0000:c4:00.0")]),
        ({"2.logic": -1}, None, [(0, "0000:c1:00.0"), (1, "0000:c2:00.0"), (2, "0000:c4:00.0")]),
    ],
)
def test_ids_lead_to_the_right_chip(
    probe: Probe, config: dict[str, object], variable: str | None, expected: list[tuple[int, str]]
) -> None:
    environment = {} if variable is None else {"ASCEND_RT_VISIBLE_DEVICES": variable}
    found = devices(probe({"cards": 2, "chips": 2, **config}, **environment))
    assert [(one["ordinal"], one["key"]) for one in found] == expected
    assert {one["details"]["engine_devices"] for one in found} == {len(expected)}


def test_ids_that_do_not_lead_back_are_not_believed(probe: Probe) -> None:
    answers = probe({"cards": 1, "chips": 2, "crossed": 1})
    assert devices(answers) == []
    assert "no logical id" in answers["report"]["unavailable"]["text"]


def test_hidden_npus_are_a_reason(probe: Probe) -> None:
    reason = probe({"cards": 1}, ASCEND_RT_VISIBLE_DEVICES="7")["report"]["unavailable"]
    assert reason["code"] == "hidden"
    assert "'7'" in reason["text"]
    assert reason["remedy"] == "unset ASCEND_RT_VISIBLE_DEVICES"


def test_chips_behind_one_address_keep_apart(probe: Probe) -> None:
    found = devices(probe({"cards": 1, "chips": 2, "0.bus": 0xC1, "1.bus": 0xC1}))
    assert [(one["key"], one["pci_address"]) for one in found] == [("npu-0-0", None), ("npu-0-1", None)]


def test_a_virtual_npu_says_so(probe: Probe) -> None:
    [device] = devices(probe({"cards": 1, "0.name": "910Bvir12_3c_32g"}))
    assert device["details"]["vnpu"] == "vir12_3c_32g"


@pytest.fixture
def npu_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def configured(**values: object) -> AscendBackend:
        path = tmp_path / "npu-smi.json"
        path.write_text(json.dumps(values))
        monkeypatch.setenv("FAKE_NPU_SMI_CONFIG", str(path))
        return AscendBackend(tmp_path, {}, str(tmp_path / "none.so"), str(FAKES / "npu-smi"))

    return configured


def test_the_program_stands_in_for_the_library(npu_smi: Any) -> None:
    backend = npu_smi(cards=1, chips=2, power=["130.5", "-"], usage=[5, 40])
    report = backend.report()
    first, second = report.devices
    assert [one.key for one in report.devices] == ["npu-smi-0-0", "npu-smi-0-1"]
    assert first.name == "Ascend 310P3"
    assert report.facts["driver_version"] == "25.2.0"
    total = 21527 << 20
    assert backend.memory(second) == DeviceMemory(
        total, total - total * 40 // 100, "npu-smi:usages (steps of 1%)"
    )
    able = {one.name: one for one in backend.capabilities(second)}
    assert able["power"].unavailable.code == "partition_secondary"
    assert {one.name: one for one in backend.capabilities(first)}["power"].source == "npu-smi:power"


def test_memory_that_the_program_does_not_show(npu_smi: Any) -> None:
    backend = npu_smi(cards=1, power=["1"])
    [device] = backend.report().devices
    assert device.memory_total_bytes is None
    assert "memory_total_bytes" in dict(device.details)["unknown"]


def test_reasons_for_having_none(npu_smi: Any, tmp_path: Path) -> None:
    reason = npu_smi(fail="dcmi model initialized failed").report().unavailable
    assert isinstance(reason, Unavailable)
    assert reason.code == "no_library"
    folder = "/sys/bus/pci/devices/0000:c1:00.0"
    write(tmp_path, {f"{folder}/class": "0x120000", f"{folder}/vendor": "0x19e5"})
    assert "an Ascend NPU is at 0000:c1:00.0" in npu_smi(fail="x").report().unavailable.text


def test_an_npu_that_is_gone(npu_smi: Any) -> None:
    backend = npu_smi(cards=1, power=["1"], usage=[1])
    [device] = backend.report().devices
    gone = npu_smi(cards=0)
    answer = gone.memory(device)
    assert isinstance(answer, Unavailable)
    assert all(one.unavailable for one in gone.capabilities(device))
