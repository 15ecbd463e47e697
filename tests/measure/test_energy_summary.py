"""From energies of starts to measurements: sums, means, bounds, and reasons instead of zeros."""

from __future__ import annotations

from typing import Any

import pytest

from profiler.measure.energy_summary import NO_DECODE, energy_flags, energy_measurements
from profiler.results.schema import EnergyRecord, Reason


def record(phase: str, **changes: Any) -> EnergyRecord:
    fields: dict[str, Any] = {
        "start": 0, "phase": phase, "covers": "device", "scope": "board", "sensors": ("nvml:GPU-1/energy",),
        "joules": 300.0, "bound_j": 3.0, "net_j": 200.0, "net_bound_j": 5.0, "window_s": 1.1, "active_s": 1.0,
        "tokens": 100, "method": "counter_tick_interpolated",
    }  # fmt: skip
    return EnergyRecord(**fields | changes)


PHASES = ("idle", "trials", "prefill", "decode", "max_1s")


def test_one_start_has_the_bound_of_its_sensor() -> None:
    found = energy_measurements([[record(phase) for phase in PHASES]])
    assert (found["energy_j"].value, found["energy_j"].ci95) == (300.0, (297.0, 303.0))
    assert (found["net_energy_j"].value, found["net_energy_j"].ci95) == (200.0, (195.0, 205.0))
    assert found["power_mean_w"].value == found["power_max_1s_w"].value == found["idle_power_w"].value == 300
    for name in ("energy_per_output_token_j", "prefill_energy_per_token_j", "decode_energy_per_token_j"):
        assert (found[name].value, found[name].ci95) == (3.0, (2.97, 3.03))
    assert all(item.scope == "board" and item.n == 1 for item in found.values())


def test_several_starts_add_their_spread_to_the_bound() -> None:
    starts = [[record(phase, joules=joules) for phase in PHASES] for joules in (290.0, 300.0, 310.0)]
    found = energy_measurements(starts)
    assert (found["energy_j"].value, found["energy_j"].ci95) == (900.0, (891.0, 909.0))
    per_token = found["energy_per_output_token_j"]
    assert per_token.value == pytest.approx(3.0)
    # Student's t of two degrees of freedom, 4.3027, times 0.1 / sqrt(3), plus the bound of 0.03.
    assert per_token.ci95 == pytest.approx((3 - 0.2784, 3 + 0.2784), abs=1e-3)
    assert per_token.n == 3
    assert found["power_max_1s_w"].value == 310.0


def test_what_is_missing_says_why_and_is_never_zero() -> None:
    reason = Reason(code="lost_at", text="the device was lost", remedy="see dmesg")
    lost = record("trials", joules=None, bound_j=None, net_j=None, net_bound_j=None, reason=reason)
    found = energy_measurements([[record("trials")], [lost]])
    for name in ("energy_j", "power_mean_w", "energy_per_output_token_j"):
        assert found[name].value is None
        assert found[name].reason == "start 2: the device was lost (see dmesg)"
    assert found["decode_energy_per_token_j"].reason == NO_DECODE
    no_idle = energy_measurements([[record("trials", net_j=None, net_bound_j=None)]])
    assert no_idle["net_energy_j"].value is None
    assert no_idle["energy_j"].value == 300.0


def test_only_the_devices_own_meter_counts() -> None:
    wall = record("trials", covers="wall", joules=900.0)
    assert energy_measurements([[wall, record("trials")]])["energy_j"].value == 300.0


def test_flags_name_the_phases_that_they_concern() -> None:
    energies = [record("trials", flags=("gap",)), record("idle", flags=("gap", "short_window"))]
    (flag,) = energy_flags([energies])
    assert (flag.code, flag.text) == (
        "gap",
        "readings are missing in the window of a phase (device trials, device idle)",
    )


def test_net_energy_says_whether_idle_is_unknown_or_nothing_is_left() -> None:
    bare = {"net_j": None, "net_bound_j": None}
    trials = record("trials", **bare)
    nothing_left = energy_measurements([[record("idle"), trials]])["net_energy_j"].reason
    assert nothing_left is not None
    assert "nothing is left" in nothing_left
    short = Reason(code="window_too_short", text="the rest was too short")
    idle = record("idle", joules=None, bound_j=None, reason=short, **bare)
    unknown = energy_measurements([[idle, trials]])["net_energy_j"].reason
    assert unknown == "idle power is not known: the rest was too short"
    unseen = energy_measurements([[trials]])["net_energy_j"].reason
    assert unseen == "idle power is not known: it was not looked for"
