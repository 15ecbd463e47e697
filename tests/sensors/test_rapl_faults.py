"""Faults of RAPL counters that begin while they are sampled, and how the energy of a window ends."""

from __future__ import annotations

from typing import Any

import machines
import pytest
from fakes.power import Profile

BURSTS = Profile([(0.0, 70.0), (1.2, 250.0), (2.03, 110.0), (2.9, 290.0), (3.3, 90.0)])
WINDOWS = [(0.5, 1.1), (1.31, 2.62), (0.6, 3.7)]
SECONDS = 4.6
RANGE_UJ = 262_143_328_850
SMALL_UJ = (
    200_000_000  # 200 J: at the 1000 W that are thought possible they may be used in a fifth of a second
)
# What is wrong with each package, and how it must end in each window: the code of the reason, or "ok" for a
# value within its own bound.
FAULTS: dict[str, tuple[dict[str, object], tuple[str, str, str]]] = {
    "healthy": ({}, ("ok", "ok", "ok")),
    "wraps": ({"first_uj": RANGE_UJ - int(BURSTS.joules(0, 2) * 1e6)}, ("ok", "ok", "ok")),
    "wraps often, read often": ({"range_uj": SMALL_UJ}, ("ok", "ok", "ok")),
    "may have wrapped unseen": (
        {"range_uj": SMALL_UJ, "fault": ["eio", 1.6, 2.2]},
        ("ok", "window_too_long", "window_too_long"),
    ),
    "errors for a moment": ({"fault": ["eio", 1.5, 1.9]}, ("ok", "ok", "ok")),
    "errors": ({"fault": ["eio", 2.1, None]}, ("ok", "unreadable", "unreadable")),
    "closed": ({"fault": ["eacces", 2.1, None]}, ("ok", "permission", "permission")),
    "vanishes": ({"fault": ["vanish", 2.1, None]}, ("ok", "lost_at", "lost_at")),
    "no number": ({"fault": ["garbage", 2.1, None]}, ("ok", "unreadable", "unreadable")),
    "stuck": ({"fault": ["stuck", 2.1, None]}, ("ok", "stuck_counter", "stuck_counter")),
    "starts again": (
        {"first_uj": 9_000_000_000, "fault": ["reset", 2.1, None]},
        ("ok", "counter_reset", "counter_reset"),
    ),
    "steps back": (
        {"first_uj": 9_000_000_000, "fault": ["back", 2.1, None]},
        ("ok", "counter_backwards", "counter_backwards"),
    ),
}
NAMES = list(FAULTS)


def key(name: str) -> str:
    return f"rapl:package-{NAMES.index(name)}/energy"


@pytest.fixture(scope="module")
def faulty(sensor_run: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One machine with a package for every fault, sampled once."""
    root = tmp_path_factory.mktemp("root")
    zones: dict[str, dict[str, object]] = {}
    for at, name in enumerate(NAMES):
        zone: dict[str, Any] = {"profile": str(BURSTS), "range_uj": RANGE_UJ, **FAULTS[name][0]}
        machines.write(root, machines.zone(f"intel-rapl:{at}", f"package-{at}", 0, zone["range_uj"]))
        zones[f"intel-rapl:{at}"] = zone
    answers: dict[str, Any] = sensor_run(
        "rapl", {}, options={"root": str(root)}, seconds=SECONDS, windows=WINDOWS, zones=zones
    )
    return answers


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("window", range(len(WINDOWS)))
def test_every_fault_ends_in_a_right_value_or_the_right_reason(
    faulty: dict[str, Any], name: str, window: int
) -> None:
    energy = faulty["energy"][key(name)][window]
    expected = FAULTS[name][1][window]
    if expected != "ok":
        assert (energy["joules"], energy["bound_j"]) == (None, None)
        assert energy["reason"]["code"] == expected
        assert energy["reason"]["text"]
        return
    assert energy["joules"] is not None, energy["reason"]
    begin, end = ((at - 1e9) * 1e-9 for at in (energy["t0_ns"], energy["t1_ns"]))
    truth = BURSTS.joules(begin, end)
    assert abs(energy["joules"] - truth) <= energy["bound_j"], (energy, truth)
    assert energy["bound_j"] < 0.3 * truth


def test_faults_leave_flags(faulty: dict[str, Any]) -> None:
    def flags(name: str) -> set[str]:
        return set(faulty["energy"][key(name)][1]["flags"])

    assert flags("healthy") == set()
    assert "wrapped" in flags("wraps")
    assert "wrapped" in flags("wraps often, read often")
    assert {"read_failures", "gap"} <= flags("errors for a moment")
    assert "stuck_counter" in flags("stuck")
    assert "counter_reset" in flags("starts again")
    assert "counter_backwards" in flags("steps back")


def test_everything_is_marked(faulty: dict[str, Any]) -> None:
    assert all(energy["simulated"] for name in NAMES for energy in faulty["energy"][key(name)])
