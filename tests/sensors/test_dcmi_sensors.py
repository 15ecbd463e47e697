"""Ascend sensors over a libdcmi.so and an npu-smi without an NPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fakes.power import FAKES, Profile

from profiler.backends.base import Unavailable
from profiler.sensors.npu_smi import NpuSmi

WORK = Profile([(0.0, 90.0), (0.9, 310.5), (1.7, 250.0)])
WINDOW = (0.3, 1.9)
NO_DEVICE = -8007


@pytest.fixture(scope="module")
def answers(sensor_run: Any, libraries: Path) -> dict[str, Any]:
    """Three cards of two chips: working, lost on the way, at 0 W, without power, at 0 W from then on."""
    config: dict[str, object] = {
        "cards": 3, "chips": 2,
        "4.profile": "0:90,1.2:0", "4.update_ms": 20, "5.profile": "0:90",
        "0.profile": str(WORK), "0.update_ms": 20,
        "1.profile": str(WORK), "1.update_ms": 20,
        "1.error.dcmi_get_device_power_info": f"{NO_DEVICE}@1.5",
        "2.profile": "0:0",
        "3.error.dcmi_get_device_power_info": -8255,
        "0.double_bit": 3, "0.processes": 2, "0.clock_mhz": 1200, "1.health": 2, "1.temperature": 95,
        "2.ecc": 0, "2.health": 0xFFFFFFFF, "3.error.dcmi_get_device_ecc_info": -8255,
    }  # fmt: skip
    found: dict[str, Any] = sensor_run(
        "dcmi", config, options={"library": str(libraries / "libdcmi.so")}, seconds=2.2, windows=[WINDOW]
    )
    return found


def test_energy_is_integrated_from_tenths_of_watts(answers: dict[str, Any]) -> None:
    (energy,) = answers["energy"]["dcmi:0000:c1:00.0/power"]
    truth = WORK.joules(*WINDOW)
    assert energy["method"] == "power_integral"
    assert abs(energy["joules"] - truth) <= energy["bound_j"]
    assert energy["bound_j"] < 0.4 * truth
    assert energy["scope"] == "chip"


def test_a_chip_that_is_lost_has_no_energy(answers: dict[str, Any]) -> None:
    (energy,) = answers["energy"]["dcmi:0000:c2:00.0/power"]
    assert energy["joules"] is None
    assert energy["reason"]["code"] == "no_device"


def test_an_alarm_on_the_way_is_no_energy_of_0(answers: dict[str, Any]) -> None:
    (energy,) = answers["energy"]["dcmi:0000:c5:00.0/power"]
    assert (energy["joules"], energy["reason"]["code"]) == (None, "implausible")


def test_chips_that_show_no_power(answers: dict[str, Any]) -> None:
    infos = {info["key"]: info for info in answers["infos"]}
    assert infos["dcmi:0000:c3:00.0/power"]["unavailable"]["code"] == "implausible"
    assert infos["dcmi:0000:c4:00.0/power"]["unavailable"]["code"] == "not_supported_by_device"
    assert infos["dcmi:0000:c1:00.0/memory_used"]["scale"] == 1 << 20
    assert set(answers["energy"]["dcmi:0000:c1:00.0/memory_used"]["values"]) == {3417}
    assert all(info["simulated"] for info in infos.values())


def test_states_of_a_chip(answers: dict[str, Any]) -> None:
    infos = {info["key"]: info for info in answers["infos"]}
    seen = {key: set(found["values"]) for key, found in answers["energy"].items() if "values" in found}
    first, second, third, fourth = (f"dcmi:0000:c{number}:00.0" for number in (1, 2, 3, 4))
    assert (seen[f"{first}/core_clock"], infos[f"{first}/core_clock"]["nominal"]) == ({1200}, 1800)
    assert (seen[f"{first}/ecc_uncorrected"], seen[f"{first}/health"]) == ({3}, {0})
    assert (seen[f"{second}/health"], seen[f"{second}/temperature"]) == ({2}, {95})
    assert infos[f"{first}/processes"]["poll_hz"] == 0  # a list that the driver has to put together
    assert infos[f"{first}/processes"]["unavailable"] is None
    for key, code in (
        (f"{third}/ecc_uncorrected", "not_supported_by_device"),  # switched off
        (f"{third}/health", "lost"),
        (f"{fourth}/ecc_uncorrected", "not_supported_by_device"),
        (f"{first}/throttle_reasons", "not_supported_by_device"),
        (f"{first}/power_limit", "not_supported_by_device"),
    ):
        assert infos[key]["unavailable"]["code"] == code


@pytest.mark.parametrize(
    ("library", "config", "code"),
    [
        ("libdcmi_v2_only.so", {"cards": 1}, "library_mismatch"),
        ("missing.so", {}, "no_library"),
        ("libdcmi.so", {"cards": 0}, "no_device"),
        ("libdcmi.so", {"cards": 1, "error.dcmi_init": -8005}, "driver_not_loaded"),
    ],
)
def test_reasons_for_having_none(
    sensor_run: Any, libraries: Path, library: str, config: dict[str, object], code: str
) -> None:
    options = {"library": str(libraries / library), "npu_smi": "/nowhere/npu-smi"}
    (info,) = sensor_run("dcmi", config, options=options)["infos"]
    assert info["unavailable"]["code"] == code


@pytest.fixture
def npu_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def configured(**values: object) -> NpuSmi:
        path = tmp_path / "npu-smi.json"
        path.write_text(json.dumps(values))
        monkeypatch.setenv("FAKE_NPU_SMI_CONFIG", str(path))
        return NpuSmi(str(FAKES / "npu-smi"))

    return configured


def read(program: NpuSmi, key: str) -> int | Unavailable:
    opened = program.open([key])[key]
    return opened if isinstance(opened, Unavailable) else opened()


def test_the_program_stands_in_for_the_library(npu_smi: Any) -> None:
    program = npu_smi(cards=2, power=["65.3", "71"])
    sensors = [info for info in program.probe() if info.kind == "power_instant"]
    assert [info.key for info in sensors] == ["dcmi:npu-smi-0-0/power", "dcmi:npu-smi-1-0/power"]
    assert [read(program, info.key) for info in sensors] == [65_300, 71_000]
    assert all(info.unavailable is None and program.owns(info.key) for info in sensors)


def test_the_second_chip_of_a_card_shows_a_dash(npu_smi: Any) -> None:
    sensors = npu_smi(cards=1, chips=2, power=["130.5", "-"]).probe()
    first, second = (info for info in sensors if info.kind == "power_instant")
    assert first.unavailable is None
    assert second.unavailable is not None
    assert second.unavailable.code == "partition_secondary"


def test_what_the_program_may_say(npu_smi: Any) -> None:
    key = "dcmi:npu-smi-0-0/power"
    assert read(npu_smi(cards=1, card_power=["70.1"]), key) == 70_100
    for values, code in (
        ({"power": ["0.0"]}, "implausible"),
        ({"power": ["hot"]}, "unreadable"),
        ({"power": ["inf"]}, "unreadable"),
        ({"power": ["nan"]}, "unreadable"),
        ({"power": ["NA"]}, "not_supported_by_device"),
        ({"fail": "DrvMngGetConsoleLogLevel failed"}, "unreadable"),
    ):
        answer = read(npu_smi(cards=1, **values), key)
        assert isinstance(answer, Unavailable)
        assert answer.code == code


def test_states_by_the_program(npu_smi: Any) -> None:
    program = npu_smi(
        cards=1, chips=2, temperature=[48, 95], health=["OK", "Alarm"], double_bit=[0, 7], usage=[5, 40]
    )
    infos = {info.key: info for info in program.probe()}
    own = {key: read(program, key) for key in infos if key.startswith("dcmi:npu-smi-0-1/")}
    assert own["dcmi:npu-smi-0-1/temperature"] == 95
    assert own["dcmi:npu-smi-0-1/health"] == 2
    assert own["dcmi:npu-smi-0-1/ecc_uncorrected"] == 7
    assert own["dcmi:npu-smi-0-1/memory_used"] == (21527 << 20) * 40 // 100
    assert infos["dcmi:npu-smi-0-0/temperature"].poll_hz <= 0.1  # a call can take seconds
    silent = npu_smi(cards=1).probe()
    assert all(info.unavailable is not None for info in silent)
    odd = read(npu_smi(cards=1, health=["UNKNOWN"]), "dcmi:npu-smi-0-0/health")
    assert isinstance(odd, Unavailable)


def test_a_misprinted_number_of_chips_is_not_counted_to(monkeypatch: pytest.MonkeyPatch) -> None:
    for count in ("999999", "9" * 5000):
        text = f"NPU ID : 0\nChip Count : {count}\n"
        monkeypatch.setattr(NpuSmi, "_run", lambda self, *arguments, text=text: text)
        assert len({info.device for info in NpuSmi().probe()}) <= 64


def test_a_program_that_is_not_there() -> None:
    assert NpuSmi("/nowhere/npu-smi").probe() == []
