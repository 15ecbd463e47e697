from __future__ import annotations

from dataclasses import replace

import pytest
from simulated_reads import COUNTER

from profiler.backends.base import Unavailable
from profiler.sensors.base import Energy, SensorInfo
from profiler.sensors.totals import net_of_idle, total

SECOND = 10**9


def sensor(key: str, **changes: object) -> SensorInfo:
    return replace(COUNTER, key=key, **changes)  # type: ignore[arg-type]


def energy(joules: float | None, bound: float = 1.0, seconds: float = 2.0, **changes: object) -> Energy:
    reason = Unavailable("lost_at", "it was lost") if joules is None else None
    value = Energy(
        joules, None if joules is None else bound, "counter_tick_interpolated", "board", 0,
        round(seconds * SECOND), 10, 0.1, reason=reason,
    )  # fmt: skip
    return replace(value, **changes)  # type: ignore[arg-type]


def test_devices_that_share_nothing_add_up() -> None:
    parts = [
        (sensor("a"), energy(10.0, 1.0, flags=("gap",))),
        (sensor("b"), energy(20.0, 2.0, simulated=True)),
    ]
    answer = total(parts)
    assert (answer.joules, answer.bound_j, answer.flags, answer.simulated) == (30.0, 3.0, ("gap",), True)


@pytest.mark.parametrize(
    "parts",
    [
        [(sensor("psys", overlaps=("package",)), energy(10.0)), (sensor("package"), energy(5.0))],
        [(sensor("package"), energy(5.0)), (sensor("psys", overlaps=("package",)), energy(10.0))],
        [(sensor("a"), energy(5.0)), (sensor("b", shares_with=("a",)), energy(5.0))],
        [(sensor("a"), energy(5.0)), (sensor("wall"), energy(50.0, scope="wall"))],
    ],
)
def test_what_covers_the_same_is_never_added(parts: list[tuple[SensorInfo, Energy]]) -> None:
    answer = total(parts)
    assert answer.joules is None
    assert answer.bound_j is None
    assert answer.reason is not None
    assert answer.reason.code == "overlaps"


def test_a_missing_part_makes_the_sum_missing_with_its_reason() -> None:
    answer = total([(sensor("a"), energy(5.0)), (sensor("b"), energy(None))])
    assert answer.joules is None
    assert answer.reason is not None
    assert answer.reason.code == "lost_at"


def test_windows_must_be_the_same() -> None:
    answer = total([(sensor("a"), energy(5.0)), (sensor("b"), energy(5.0, seconds=3.0))])
    assert answer.reason is not None
    assert answer.reason.code == "not_in_order"
    with pytest.raises(ValueError, match="nothing to add"):
        total([])


def test_net_is_gross_without_idle_for_as_long() -> None:
    net = net_of_idle(energy(1000.0, 5.0, seconds=2.0), energy(700.0, 7.0, seconds=10.0))
    assert net.joules == pytest.approx(1000.0 - 140.0)
    assert net.bound_j == pytest.approx(5.0 + 1.4)


def test_net_is_never_negative_and_never_without_both() -> None:
    below = net_of_idle(energy(100.0), energy(700.0, seconds=10.0))
    assert below.joules is None
    assert below.reason is not None
    assert below.reason.code == "below_idle"
    for gross, idle in ((energy(None), energy(5.0)), (energy(5.0), energy(None))):
        answer = net_of_idle(gross, idle)
        assert answer.reason is not None
        assert answer.reason.code == "lost_at"
