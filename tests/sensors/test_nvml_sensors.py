"""NVML sensors and their faults, over a library that the unmodified pynvml loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes.power import Profile

LOST, TIMEOUT, NO_PERMISSION, NOT_SUPPORTED, RESET_REQUIRED = 15, 10, 4, 3, 16
STEADY = Profile([(0.0, 500.0)])
RAMP = Profile([(at * 0.25, 200.0 + 10 * at) for at in range(40)])
BURSTS = Profile([(0.0, 70.0), (1.2, 650.0), (2.03, 310.0), (2.9, 690.0), (3.3, 90.0)])
WINDOWS = [(0.5, 1.1), (1.31, 2.62), (0.6, 3.7)]
SECONDS = 4.6
# What is wrong with each GPU, and how it must end in each of the three windows: the code of the reason,
# or "ok" for a value within its own bound.
FAULTS: dict[str, tuple[dict[str, object], tuple[str, str, str]]] = {
    "healthy": ({}, ("ok", "ok", "ok")),
    "tick 10 ms": ({"update_ms": 10}, ("ok", "ok", "ok")),
    "tick 20 ms": ({"update_ms": 20, "jitter": 0.05}, ("ok", "ok", "ok")),
    "tick 1 s": ({"update_ms": 1000}, ("window_too_short", "ok", "ok")),
    "transient timeouts": (
        {"error.nvmlDeviceGetTotalEnergyConsumption": f"{TIMEOUT}@1.5:1.9"},
        ("ok", "ok", "ok"),
    ),
    "lost": ({"error.*": f"{LOST}@2.1"}, ("ok", "lost_at", "lost_at")),
    "needs a reset": ({"error.*": f"{RESET_REQUIRED}@2.1"}, ("ok", "reset_required", "reset_required")),
    "permission taken away": (
        {"error.nvmlDeviceGetTotalEnergyConsumption": f"{NO_PERMISSION}@2.1"},
        ("ok", "permission", "permission"),
    ),
    "reset to 0": ({"reset_at": 2.1}, ("ok", "counter_reset", "counter_reset")),
    "step back": ({"back_at": 2.1, "back_j": 200}, ("ok", "counter_backwards", "counter_backwards")),
    "stuck": ({"stuck_at": 2.1}, ("ok", "stuck_counter", "stuck_counter")),
    "module": ({"module": 1}, ("ok", "ok", "ok")),
}
NO_COUNTER = {"error.nvmlDeviceGetTotalEnergyConsumption": NOT_SUPPORTED, "update_ms": 20}
NO_FIELDS = {"error.field185": NOT_SUPPORTED, "error.field186": NOT_SUPPORTED}
OTHERS: dict[str, dict[str, object]] = {
    "only power, steady": {"profile": str(STEADY), **NO_COUNTER},
    "only power, rising": {"profile": str(RAMP), **NO_COUNTER},
    "only old power": {"profile": str(RAMP), **NO_COUNTER, **NO_FIELDS, "architecture": 6},
    "power of 0 on the way": {"profile": "0:300,2.1:0", **NO_COUNTER},
    "absurd power": {"profile": "0:3700000", **NO_COUNTER},
    "part-time": {"profile": str(STEADY), "duty": 0.25},
    "3 % fast": {"profile": str(STEADY), "gain": 1.03},
    "lost in between": {"profile": str(STEADY), "error.*": f"{LOST}@1.9"},
    "changing": {"throttle": 0, "used": 1_000_000, "reserved": 0},
}
NAMES = [*FAULTS, *OTHERS]


def key(name: str, quantity: str = "energy") -> str:
    return f"nvml:{uuid(NAMES.index(name))}/{quantity}"


def uuid(at: int) -> str:
    return f"GPU-{at + 1:08x}-1111-2222-3333-444444444444"


def box(gpus: list[dict[str, object]], **common: object) -> dict[str, object]:
    config: dict[str, object] = {"gpus": len(gpus), **common}
    for at, values in enumerate(gpus):
        config[f"{at}.uuid"] = uuid(at)
        config[f"{at}.pci"] = f"00000000:{at + 0x10:02X}:00.0"
        config |= {f"{at}.{key}": value for key, value in values.items()}
    return config


@pytest.fixture(scope="module")
def faulty(sensor_run: Any) -> dict[str, Any]:
    """One box with a GPU for every fault, sampled once."""
    gpus = [{"profile": str(BURSTS), **values} for values, _ in FAULTS.values()] + list(OTHERS.values())
    powers = [key(name, "power_instant") for name in OTHERS if "power" in name]
    slow = [key("changing", "throttle_reasons"), key("changing", "memory_used")]
    keys = [key(name) for name in NAMES] + powers + [key("only old power", "power_usage"), *slow]
    changing = NAMES.index("changing")
    answers: dict[str, Any] = sensor_run(
        "nvml",
        box(gpus),
        keys=keys,
        seconds=SECONDS,
        windows=WINDOWS,
        changes=[(2.5, box(gpus) | {f"{changing}.throttle": 4, f"{changing}.used": 9_000_000})],
    )
    return answers


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("window", range(len(WINDOWS)))
def test_every_fault_ends_in_a_right_value_or_the_right_reason(
    faulty: dict[str, Any], name: str, window: int
) -> None:
    energy = faulty["energy"][key(name)][window]
    expected = FAULTS[name][1][window]
    if expected == "ok":
        begin, end = WINDOWS[window]
        assert energy["joules"] is not None, energy["reason"]
        if "widened" in energy["flags"]:
            return  # for another window, which is what the flag says
        truth = BURSTS.joules(begin, end)
        assert abs(energy["joules"] - truth) <= energy["bound_j"], (energy, truth)
        assert energy["bound_j"] < truth
    else:
        assert energy["joules"] is None
        assert energy["bound_j"] is None
        assert energy["reason"]["code"] == expected
        assert energy["reason"]["text"]


def test_faults_leave_flags(faulty: dict[str, Any]) -> None:
    def flags(name: str) -> set[str]:
        return set(faulty["energy"][key(name)][1]["flags"])

    assert flags("healthy") == set()
    assert {"read_failures"} <= flags("transient timeouts")
    assert "scope_module" in flags("module")
    assert "counter_reset" in flags("reset to 0")
    assert "counter_backwards" in flags("step back")
    assert "stuck_counter" in flags("stuck")


def test_everything_from_the_fake_is_marked(faulty: dict[str, Any]) -> None:
    assert all(info["simulated"] for info in faulty["infos"])
    assert all(energy["simulated"] for name in FAULTS for energy in faulty["energy"][key(name)])


def test_the_tick_is_found_out(faulty: dict[str, Any]) -> None:
    for name, tick_s in (("healthy", 0.1), ("tick 20 ms", 0.02), ("tick 1 s", 1.0)):
        check = faulty["checks"][key(name)]
        assert check["tick_s"] == pytest.approx(tick_s, rel=0.15), name


@pytest.mark.parametrize(
    ("name", "quantity", "profile"),
    [
        ("only power, steady", "power_instant", STEADY),
        ("only power, rising", "power_instant", RAMP),
        ("only old power", "power_usage", RAMP),
    ],
)
def test_power_where_there_is_no_counter(
    faulty: dict[str, Any], name: str, quantity: str, profile: Profile
) -> None:
    assert faulty["energy"][key(name)][2]["reason"]["code"] == "not_supported_by_device"
    energy = faulty["energy"][key(name, quantity)][2]
    truth = profile.joules(*WINDOWS[2])
    assert energy["method"] == "power_integral"
    assert abs(energy["joules"] - truth) <= energy["bound_j"]
    assert energy["bound_j"] < 0.1 * truth


def test_a_reading_that_never_changes_is_flagged(faulty: dict[str, Any]) -> None:
    energy = faulty["energy"][key("only power, steady", "power_instant")][2]
    assert "constant_reading" in energy["flags"]


def test_a_field_can_be_refused_by_a_call_that_succeeds(faulty: dict[str, Any]) -> None:
    (info,) = [one for one in faulty["infos"] if one["key"] == key("only old power", "power_instant")]
    assert info["unavailable"]["code"] == "not_supported_by_device"


def test_absurd_power_with_success_is_refused(faulty: dict[str, Any]) -> None:
    energy = faulty["energy"][key("absurd power", "power_instant")][2]
    assert energy["reason"]["code"] == "implausible"


def test_a_power_of_0_is_not_integrated(faulty: dict[str, Any]) -> None:
    """A working device that shows 0 W shows nothing."""
    before, during, over = faulty["energy"][key("power of 0 on the way", "power_instant")]
    assert before["joules"] == pytest.approx(300 * (WINDOWS[0][1] - WINDOWS[0][0]), abs=before["bound_j"])
    for refused in (during, over):
        assert (refused["joules"], refused["reason"]["code"]) == (None, "implausible")


def test_a_sensor_that_sees_a_quarter_of_the_time_is_right_where_the_power_is_steady(
    faulty: dict[str, Any],
) -> None:
    energy = faulty["energy"][key("part-time")][2]
    assert abs(energy["joules"] - STEADY.joules(*WINDOWS[2])) <= energy["bound_j"]


def test_a_gain_error_is_in_no_bound(faulty: dict[str, Any]) -> None:
    """Nothing that the counter shows gives it away; docs/method.md says so."""
    energy = faulty["energy"][key("3 % fast")][2]
    assert energy["joules"] == pytest.approx(1.03 * STEADY.joules(*WINDOWS[2]), abs=energy["bound_j"])


def test_slow_readings_follow_what_changes(faulty: dict[str, Any]) -> None:
    assert {0, 4} <= set(faulty["energy"][key("changing", "throttle_reasons")]["values"])
    assert {1_000_000, 9_000_000} <= set(faulty["energy"][key("changing", "memory_used")]["values"])


def test_a_lost_gpu_leaves_its_neighbours(faulty: dict[str, Any]) -> None:
    assert faulty["energy"][key("lost in between")][2]["reason"]["code"] == "lost_at"
    assert faulty["energy"][key("part-time")][2]["joules"] is not None


def test_mig_instances_point_to_their_gpu(sensor_run: Any) -> None:
    gpus: list[dict[str, object]] = [{"mig": 1, "instances": 2, "profile": "0:200"}, {"profile": "0:300"}]
    answers = sensor_run("nvml", box(gpus))
    counters = [info for info in answers["infos"] if info["kind"] == "energy_counter"]
    instances = [info for info in counters if info["device"].startswith("MIG-")]
    assert [info["unavailable"]["code"] for info in instances] == ["mig_instance"] * 2
    assert {tuple(info["shares_with"]) for info in instances} == {(f"nvml:{uuid(0)}/energy",)}
    whole = [info["key"] for info in counters if info["unavailable"] is None]
    assert sorted(whole) == [f"nvml:{uuid(0)}/energy", f"nvml:{uuid(1)}/energy"]


def test_memory_where_the_second_version_or_all_of_it_is_missing(sensor_run: Any) -> None:
    gpus: list[dict[str, object]] = [
        {"error.nvmlDeviceGetMemoryInfo_v2": 13},
        {"error.nvmlDeviceGetMemoryInfo_v2": NOT_SUPPORTED, "error.nvmlDeviceGetMemoryInfo": NOT_SUPPORTED},
    ]
    infos = {info["key"]: info for info in sensor_run("nvml", box(gpus))["infos"]}
    assert infos[f"nvml:{uuid(0)}/memory_used"]["unavailable"] is None
    assert infos[f"nvml:{uuid(1)}/memory_used"]["unavailable"]["code"] == "not_supported_by_device"


def test_reasons_for_having_no_counter(sensor_run: Any) -> None:
    energy = "error.nvmlDeviceGetTotalEnergyConsumption"
    refused: list[tuple[dict[str, object], str]] = [
        ({"error.nvmlDeviceGetHandleByIndex_v2": LOST}, "lost"),
        ({energy: 13}, "library_mismatch"),
        ({energy: NO_PERMISSION}, "permission"),
        ({"energy_mj": (1 << 64) - 1}, "implausible"),
    ]
    infos = sensor_run("nvml", box([values for values, _ in refused]))["infos"]
    codes = [info["unavailable"]["code"] for info in infos if info["kind"] == "energy_counter"]
    assert codes == [code for _, code in refused]


@pytest.mark.parametrize(
    ("code", "meaning"), [(9, "driver_not_loaded"), (18, "library_mismatch"), (12, "no_library")]
)
def test_a_library_that_does_not_open(sensor_run: Any, code: int, meaning: str) -> None:
    (info,) = sensor_run("nvml", {"error.nvmlInitWithFlags": code})["infos"]
    assert info["unavailable"]["code"] == meaning
    assert info["unavailable"]["remedy"]


def test_a_driver_that_is_too_old_to_have_the_functions(sensor_run: Any, libraries: Path) -> None:
    """Their symbols are not in the library at all, which pynvml finds out when each is called."""
    old = {"LD_LIBRARY_PATH": str(libraries / "old")}
    gpus: list[dict[str, object]] = [{"profile": str(RAMP), "update_ms": 20, "architecture": 6}]
    power = f"nvml:{uuid(0)}/power_usage"
    found = sensor_run(
        "nvml", box(gpus), seconds=SECONDS, windows=[WINDOWS[2]], keys=[power], environment=old
    )
    infos = {info["key"].rpartition("/")[2]: info for info in found["infos"]}
    for quantity in ("energy", "power_instant", "power_average"):
        assert infos[quantity]["unavailable"]["code"] == "library_mismatch"
        assert "update" in infos[quantity]["unavailable"]["remedy"]
    for quantity in ("memory_used", "throttle_reasons"):  # by the older functions
        assert infos[quantity]["unavailable"] is None
    (energy,) = found["energy"][power]
    assert abs(energy["joules"] - RAMP.joules(*WINDOWS[2])) <= energy["bound_j"]


def test_without_the_library_the_remedy_is_given(sensor_run: Any) -> None:
    (info,) = sensor_run("nvml", {}, environment={"LD_LIBRARY_PATH": ""})["infos"]
    assert info["unavailable"]["code"] == "no_library"
    assert "driver" in info["unavailable"]["remedy"]
