"""Two looks at the box, held against each other: made-up readings, so that nothing depends on this box."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.backends.cgroup import Throttling
from profiler.measure.box_flags import judge, unreadable
from profiler.measure.box_state import BoxState, CpuTicks

SECOND = 10**9

QUIET = BoxState(
    stamp_ns=0,
    suspended_ns=0,
    cpu=CpuTicks(cpus=4, busy=1000, idle=9000, stolen=0),
    our_ticks=500,
    throttling=Throttling(periods=100, throttled=0, seconds=0.0),
    swapped_pages=10,
    major_faults=5,
    clock_limits=frozenset({"scaling_governor=performance"}),
    clock_source="tsc",
    traced=frozenset(),
)


def after(seconds: float = 10.0, busy: int = 2000, ours: int = 2000, **changes: object) -> BoxState:
    """The box after ``seconds`` in which its CPUs worked ``busy`` ticks, ``ours`` of them for us."""
    later = replace(
        QUIET,
        stamp_ns=int(seconds * SECOND),
        cpu=CpuTicks(4, 1000 + busy, 9000 + int(400 * seconds) - busy, 0),
        our_ticks=500 + ours,
    )
    return replace(later, **changes)  # type: ignore[arg-type]


def codes(later: BoxState, before: BoxState = QUIET, *, on_cpu: bool = True) -> list[str]:
    return [flag.code for flag in judge(before, later, on_cpu=on_cpu).flags]


def test_a_box_that_works_for_us_only_is_not_flagged() -> None:
    verdict = judge(QUIET, after(), on_cpu=True)
    assert verdict.flags == []
    assert verdict.readings.not_judged == ()
    assert (verdict.readings.foreign_cpu_share, verdict.readings.busy_cpu_share) == (0.0, 0.5)


def test_other_processes_are_flagged_with_their_share() -> None:
    # 10 s of 4 CPUs are 4,000 ticks; 800 of them were not ours.
    (flag,) = judge(QUIET, after(busy=2800), on_cpu=True).flags
    assert flag.code == "foreign_cpu"
    assert "used 20% of the 4 processors" in flag.text


def test_beside_an_accelerator_other_processes_matter_only_when_the_cpus_are_full() -> None:
    assert codes(after(busy=2800), on_cpu=False) == []
    assert codes(after(busy=3800), on_cpu=False) == ["foreign_cpu"]


def test_time_that_the_hypervisor_took() -> None:
    stolen = replace(after().cpu or QUIET.cpu, stolen=500)  # type: ignore[type-var]
    (flag,) = judge(QUIET, after(cpu=stolen), on_cpu=True).flags
    assert (flag.code, "20%" in flag.text) == ("cpu_steal", True)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"throttling": Throttling(200, 30, 2.0)}, "cpu_quota"),
        ({"swapped_pages": 10_000}, "swapping"),
        ({"major_faults": 500}, "swapping"),
        ({"clock_limits": frozenset({"scaling_governor=powersave"})}, "cpu_limits_changed"),
        ({"clock_source": "hpet"}, "clock_source_changed"),
        ({"traced": frozenset({"worker"})}, "profiler_attached"),
        ({"suspended_ns": 60 * SECOND}, "machine_suspended"),
    ],
)
def test_each_disturbance_has_its_flag_and_says_what_to_do(change: dict[str, object], code: str) -> None:
    (flag,) = judge(QUIET, after(**change), on_cpu=True).flags  # type: ignore[arg-type]
    assert flag.code == code
    assert flag.hint
    assert ":" in flag.text or ";" in flag.text  # what was seen, and what that does


def test_a_little_of_everything_is_no_flag() -> None:
    little = after(busy=2100, throttling=Throttling(200, 1, 0.01), swapped_pages=20, major_faults=9)
    assert codes(little) == []


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("suspended_ns", "machine_suspended"),
        ("cpu", "foreign_cpu"),
        ("our_ticks", "foreign_cpu"),
        ("throttling", "cpu_quota"),
        ("clock_limits", "cpu_limits_changed"),
        ("clock_source", "clock_source_changed"),
        ("traced", "profiler_attached"),
    ],
)
@pytest.mark.parametrize("at", ["before", "after"])
def test_what_cannot_be_read_is_named_and_not_judged(name: str, code: str, at: str) -> None:
    before, later = QUIET, after()
    if at == "before":
        before = replace(before, **{name: None})  # type: ignore[arg-type]
    else:
        later = replace(later, **{name: None})  # type: ignore[arg-type]
    verdict = judge(before, later, on_cpu=True)
    assert verdict.flags == []
    assert code in verdict.readings.not_judged


def test_too_short_a_time_says_nothing_about_processors() -> None:
    verdict = judge(QUIET, after(seconds=0.1, busy=40, ours=0), on_cpu=True)
    assert verdict.flags == []
    assert {"foreign_cpu", "cpu_steal"} <= set(verdict.readings.not_judged)


def test_what_can_never_be_judged_is_said_in_words() -> None:
    assert unreadable(QUIET) == []
    blind = replace(QUIET, cpu=None, clock_limits=None)
    assert unreadable(blind) == [
        "use of the CPU by others and by the hypervisor",
        "the CPU's clock limits",
    ]


counters = st.integers(0, 10**9)


@given(busy=counters, idle=counters, stolen=counters, ours=counters, swapped=counters, faults=counters)
def test_any_counters_give_shares_that_can_be_recorded(
    busy: int, idle: int, stolen: int, ours: int, swapped: int, faults: int
) -> None:
    """Counters can step back (CPUs taken offline, processes that end); shares stay shares."""
    later = after(
        cpu=CpuTicks(4, busy, idle, stolen), our_ticks=ours, swapped_pages=swapped, major_faults=faults
    )
    readings = judge(QUIET, later, on_cpu=True).readings
    for share in (readings.foreign_cpu_share, readings.busy_cpu_share, readings.steal_share):
        assert share is not None
        assert 0 <= share <= 1
