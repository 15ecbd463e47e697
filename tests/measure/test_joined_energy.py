"""Loads joined with recordings of other machines by the wall clock: known powers, known clocks."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from builders import make_spec

from profiler.errors import UsageError
from profiler.measure.joined_energy import join
from profiler.results.schema import CaseRecord, Measurement
from profiler.sensors.base import SensorInfo
from profiler.sensors.recording import ClockPair, Recording, RecordingHeader
from profiler.sensors.ticks import series

SECOND = 10**9
WALL = 1_800_000_000 * SECOND
COUNTER = SensorInfo(
    "nvml:GPU-1/energy", "nvml", "GPU-1", "energy_counter", "board", "J", 1e-3, 100.0, max_power_w=700.0
)
ROOM = SensorInfo("redfish:wall/energy", "redfish", "wall", "energy_counter", "wall", "J", 1e-3, 100.0)


def recording(
    box: str, powers: dict[SensorInfo, tuple[float, float]], *, booted_s: float, slewed_s: float = 0.0
) -> Recording:
    """20 s from ``WALL`` on: each sensor at its first power, from the tenth second on at its second.

    ``booted_s`` is what CLOCK_MONOTONIC shows at ``WALL``; ``slewed_s`` how much further the wall clock went.
    """
    start_ns = round(booted_s * SECOND)
    moments = np.arange(0, 20, 0.01)
    reads = {}
    for info, (before, after) in powers.items():
        joules = before * np.minimum(moments, 10) + after * np.maximum(moments - 10, 0)
        raw = np.round((1e6 + joules) / info.scale).astype(int)
        begin = start_ns + np.round(moments * SECOND).astype(int)
        reads[info.key] = series(np.stack([begin, begin + 10_000, raw, np.zeros_like(raw)], axis=1))
    clocks = [
        ClockPair(monotonic_ns=start_ns + at * SECOND, realtime_ns=wall, uncertainty_ns=100)
        for at, wall in ((0, WALL), (20, WALL + round((20 + slewed_s) * SECOND)))
    ]
    header = RecordingHeader(
        aiprof_version="0", box=box, simulated=False, sensors=tuple(powers), start=clocks[0], end=clocks[1]
    )
    return Recording(header, reads)


def load(begin_s: float, end_s: float, status: str = "ok", **served: Any) -> CaseRecord:
    """A case that was driven from ``begin_s`` to ``end_s`` after ``WALL``, at 100 tokens per second."""
    window = {
        "began_realtime_s": WALL / SECOND + begin_s,
        "ended_realtime_s": WALL / SECOND + end_s,
        "duration_s": end_s - begin_s,
    }
    rate = Measurement(value=100.0, unit="tokens/s", n=1, method="m", scope="one_load")
    fields: dict[str, Any] = {
        "spec": make_spec(),
        "status": status,
        "served": type("Served", (), window | served)(),
        "measurements": {"output_tokens_per_s": rate},
    }
    return cast("CaseRecord", type("Case", (), fields)())


def test_two_machines_with_clocks_of_their_own_add_up() -> None:
    first = recording("box-1", {COUNTER: (300.0, 300.0)}, booted_s=5.0)
    second = recording("box-2", {COUNTER: (200.0, 200.0)}, booted_s=86_400.0)
    (joined,) = join([load(2.0, 8.0)], [("node1", first), ("node2", second)], 0.05)
    assert [part.recording for part in joined.parts] == ["node1", "node2"]
    (total,) = joined.sums
    assert (total.what, total.scope, total.parts) == ("devices", "board", 2)
    assert total.joules == pytest.approx(500 * 6, rel=1e-3)
    assert total.bound_j is not None
    assert abs((total.joules or 0.0) - 3000) <= total.bound_j
    assert joined.tokens == 600
    assert total.per_token_j == pytest.approx(5.0, rel=1e-3)
    assert joined.notes == ()


def test_what_the_clocks_may_be_apart_is_in_the_bound() -> None:
    """At the window's end the power doubles: 0.5 s earlier or later is 150 J."""
    one = recording("box", {COUNTER: (300.0, 600.0)}, booted_s=5.0)
    (near,) = join([load(2.0, 10.0)], [("node", one)], 0.001)
    (far,) = join([load(2.0, 10.0)], [("node", one)], 0.5)
    assert near.parts[0].energy.joules == far.parts[0].energy.joules == pytest.approx(2400, rel=2e-3)
    bounds = [joined.parts[0].energy.bound_j or 0.0 for joined in (near, far)]
    assert bounds[1] - bounds[0] == pytest.approx(150, abs=5)


def test_a_wall_and_what_it_feeds_are_never_added() -> None:
    one = recording("box", {COUNTER: (300.0, 300.0), ROOM: (900.0, 900.0)}, booted_s=5.0)
    (joined,) = join([load(2.0, 8.0)], [("node", one)], 0.05)
    assert {total.what: round(total.joules or 0.0, -1) for total in joined.sums} == {
        "devices": 1800,
        "walls": 5400,
    }


def test_no_sum_without_one_of_its_parts() -> None:
    whole = recording("box-1", {COUNTER: (300.0, 300.0)}, booted_s=5.0)
    late = recording("box-2", {COUNTER: (200.0, 200.0)}, booted_s=5.0)
    (joined,) = join([load(15.0, 25.0)], [("node1", whole), ("node2", late)], 0.05)
    (total,) = joined.sums
    assert total.joules is None
    assert total.reason is not None
    assert all(part.energy.reason is not None for part in joined.parts)
    module = SensorInfo("nvml:GPU-2/energy", "nvml", "GPU-2", "energy_counter", "module", "J", 1e-3, 100.0)
    other = recording("box-2", {module: (200.0, 200.0)}, booted_s=5.0)
    (mixed,) = join([load(2.0, 8.0)], [("node1", whole), ("node2", other)], 0.05)
    assert mixed.sums[0].reason is not None
    assert mixed.sums[0].reason.code == "overlaps"


def test_a_clock_that_was_set_is_said() -> None:
    slewed = recording("box", {COUNTER: (300.0, 300.0)}, booted_s=5.0, slewed_s=0.2)
    assert join([load(2.0, 8.0)], [("node", slewed)], 0.05)[0].notes == ("clock_changed",)
    steady = recording("box", {COUNTER: (300.0, 300.0)}, booted_s=5.0)
    stepped = load(2.0, 8.0, duration_s=3.0)  # the client's own clock went on by 6 s in 3 s
    assert join([stepped], [("node", steady)], 0.05)[0].notes == ("clock_changed",)


def test_what_cannot_be_joined_says_why() -> None:
    one = recording("box", {COUNTER: (300.0, 300.0)}, booted_s=5.0)
    (failed,) = join([load(2.0, 8.0, status="failed")], [("node", one)], 0.05)
    (old,) = join([load(2.0, 8.0, began_realtime_s=None)], [("node", one)], 0.05)
    assert failed.reason is not None
    assert old.reason is not None
    with pytest.raises(UsageError, match="twice"):
        join([load(2.0, 8.0)], [("node", one), ("copy", one)], 0.05)
    with pytest.raises(UsageError, match="no load"):
        join([], [("node", one)], 0.05)
