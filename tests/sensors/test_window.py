from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from fakes.power import Profile
from hypothesis import given
from hypothesis import strategies as st
from simulated_reads import COUNTER, KINDS, Meter, random_profile

from profiler.sensors.base import Energy, failure_number
from profiler.sensors.ticks import Series, find_ticks, series
from profiler.sensors.window import counter_energy

SEED = 20261123
POWER_W = 500.0


def steady(
    seconds: float = 6.0, *, poll_s: float = 0.01, tick_s: float = 0.1, first: int = 1_000_000
) -> list[list[int]]:
    """Rows of (before, after, raw, failure) of a counter in millijoules at 500 W."""
    moments = np.arange(0.003, seconds, poll_s)
    raw = (np.floor(moments / tick_s + 1e-9) * tick_s * POWER_W * 1e3).astype(int) + first
    return [
        [round(at * 1e9), round(at * 1e9) + 20_000, int(value), 0]
        for at, value in zip(moments, raw, strict=True)
    ]


def window(rows: Sequence[Sequence[int]] | Series, begin_s: float, end_s: float, **options: object) -> Energy:
    reads = rows if isinstance(rows, Series) else series(rows)
    info = replace(COUNTER, **options.pop("info", {}))  # type: ignore[arg-type]
    return counter_energy(reads, info, round(begin_s * 1e9), round(end_s * 1e9), **options)  # type: ignore[arg-type]


def code(energy: Energy) -> str:
    assert energy.joules is None
    assert energy.bound_j is None
    assert energy.method == "none"
    assert energy.reason is not None
    assert energy.reason.text
    return energy.reason.code


def test_the_truth_lies_inside_the_bound_in_99_percent_of_windows_and_profiles() -> None:
    rng = np.random.default_rng(SEED)
    inside, relative = 0, []
    for number in range(1000):
        kind = KINDS[number % len(KINDS)]
        length_s = float(rng.uniform(0.8, 1.2))
        profile = random_profile(rng, kind, 6.0)
        reads = Meter(jitter=float(rng.choice([0.0, 0.005, 0.02, 0.1]))).counter(rng, profile, 5.0)
        begin_s = float(rng.uniform(1.7, 2.2))
        energy = window(reads, begin_s, begin_s + length_s)
        assert energy.joules is not None, (SEED, number, energy.reason)
        assert energy.bound_j is not None
        truth = profile.joules(begin_s, begin_s + length_s)
        inside += abs(energy.joules - truth) <= energy.bound_j
        relative.append(energy.bound_j / truth)
    print(f"seed {SEED}: {inside} of 1000 inside, median bound {np.median(relative):.2%}")
    assert inside >= 990
    assert np.median(relative) <= 0.03


def straight_line(reads: Series, begin_s: float, end_s: float) -> float:
    """Energy by nothing but lines from tick to tick."""
    ticks = find_ticks(reads, COUNTER)
    middle_s = (ticks.lo_ns + ticks.hi_ns) / 2e9
    begin, end = np.interp([begin_s, end_s], middle_s, ticks.joules)
    return float(end - begin)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tick_s", [0.02, 0.05, 0.1])
def test_no_kind_of_power_is_known_worse_than_by_straight_lines(kind: str, tick_s: float) -> None:
    """A single step between two ticks is found; power that goes up and down within one is no such step."""
    rng = np.random.default_rng(SEED)
    ours, lines = [], []
    for _ in range(150):
        profile = random_profile(rng, kind, 5.0)
        reads = Meter(tick_s=tick_s, jitter=0.01).counter(rng, profile, 4.0)
        begin_s = float(rng.uniform(1.2, 1.7))
        energy = window(reads, begin_s, begin_s + 0.5, widen=False)
        assert energy.joules is not None
        truth = profile.joules(begin_s, begin_s + 0.5)
        ours.append(energy.joules / truth - 1)
        lines.append(straight_line(reads, begin_s, begin_s + 0.5) / truth - 1)
    assert np.sqrt(np.mean(np.square(ours))) <= 1.1 * np.sqrt(np.mean(np.square(lines)))


@pytest.mark.parametrize("ripple", [0.0, 0.15])
@pytest.mark.parametrize("tick_s", [0.05, 0.1])
def test_windows_that_begin_and_end_with_their_work_are_known_better_than_by_lines(
    tick_s: float, ripple: float
) -> None:
    """Work of about a second between rests, steady or with steps as those of decoding."""
    rng = np.random.default_rng(SEED)
    ours, lines = [], []
    for _ in range(150):
        begin_s = 1.5 + float(rng.uniform(0.0, tick_s))
        end_s = begin_s + float(rng.uniform(0.8, 1.2))
        moments = np.cumsum([begin_s, *rng.uniform(0.01, 0.04, 100)])
        work = [(float(at), 500.0 * (1 + (-1) ** n * ripple)) for n, at in enumerate(moments) if at < end_s]
        profile = Profile([(0.0, 100.0), *work, (end_s, 100.0)])
        reads = Meter(tick_s=tick_s, jitter=0.01).counter(rng, profile, 4.0)
        energy = window(reads, begin_s, end_s, widen=False)
        assert energy.joules is not None
        truth = profile.joules(begin_s, end_s)
        ours.append(energy.joules / truth - 1)
        lines.append(straight_line(reads, begin_s, end_s) / truth - 1)
    assert np.sqrt(np.mean(np.square(ours))) < np.sqrt(np.mean(np.square(lines))) / 3


@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(KINDS),
    tick_s=st.sampled_from([0.001, 0.01, 0.02, 0.1, 0.25]),
    length_s=st.floats(0.1, 3.0),
    jitter=st.sampled_from([0.0, 0.05, 0.2]),
)
def test_a_value_is_positive_and_near_the_truth_or_there_is_none(
    seed: int, kind: str, tick_s: float, length_s: float, jitter: float
) -> None:
    rng = np.random.default_rng(seed)
    profile = random_profile(rng, kind, length_s + 5)
    reads = Meter(tick_s=tick_s, jitter=jitter).counter(rng, profile, length_s + 4)
    energy = window(reads, 2.0, 2.0 + length_s)
    if energy.joules is None:
        assert code(energy) == "window_too_short"
        return
    assert energy.joules > 0
    assert energy.bound_j is not None
    # The bound is for 99 in 100; no error comes near twice its size.
    assert abs(energy.joules - profile.joules(2.0, 2.0 + length_s)) <= 2 * energy.bound_j


def test_regular_ticks_are_known_better_than_reads_are_apart() -> None:
    rng = np.random.default_rng(SEED)
    profile = random_profile(rng, "steady", 6.0)
    regular = window(Meter(jitter=0.0).counter(rng, profile, 6.0), 2.0, 4.0)
    wavering = window(Meter(jitter=0.2).counter(rng, profile, 6.0), 2.0, 4.0)
    assert regular.bound_j is not None
    assert wavering.bound_j is not None
    assert regular.bound_j < 0.7 * wavering.bound_j


def test_adjacent_windows_add_up() -> None:
    rows = steady()
    parts = [window(rows, 1.5, 2.71), window(rows, 2.71, 4.4)]
    whole = window(rows, 1.5, 4.4)
    assert whole.joules == pytest.approx(sum(part.joules or 0.0 for part in parts), rel=1e-3)


def test_what_an_energy_says_about_itself() -> None:
    energy = window(steady(), 1.5, 3.5)
    assert energy.joules == pytest.approx(1000.0, abs=energy.bound_j)
    assert energy.method == "counter_tick_interpolated"
    assert (energy.t0_ns, energy.t1_ns) == (1_500_000_000, 3_500_000_000)
    assert energy.n_ticks in (20, 21)
    assert energy.tick_s == pytest.approx(0.1, rel=0.02)
    assert energy.mean_power_w == pytest.approx(POWER_W, rel=0.02)
    assert energy.flags == ()


@pytest.mark.parametrize("wraps_at", [262_143_328, 65_532_610])
def test_a_wrap_is_bridged_and_flagged(wraps_at: int) -> None:
    rows = steady(first=wraps_at - 1_250_000)
    for row in rows:
        row[2] %= wraps_at
    energy = window(rows, 1.5, 3.5, info={"wraps_at": wraps_at})
    assert energy.joules == pytest.approx(1000.0, abs=energy.bound_j)
    assert energy.flags == ("wrapped",)
    assert window(rows, 3.5, 5.0, info={"wraps_at": wraps_at}).flags == ()


def test_without_a_known_wrap_a_fall_is_a_reset() -> None:
    wraps_at = 262_143_328
    rows = steady(first=wraps_at - 1_250_000)
    for row in rows:
        row[2] %= wraps_at
    energy = window(rows, 1.5, 3.5)
    assert code(energy) == "counter_reset"
    assert "counter_reset" in energy.flags


def test_reads_so_far_apart_that_wraps_may_be_missed() -> None:
    wraps_at = 1_000_000  # 1 kJ, which 700 W fill in 1.4 s
    rows = [row for row in steady() if not 2e9 < row[0] < 4e9]
    for row in rows:
        row[2] %= wraps_at
    assert code(window(rows, 1.5, 4.5, info={"wraps_at": wraps_at})) == "window_too_long"


@pytest.mark.parametrize(
    ("change", "expected"),
    [(-1_000_000_000, "counter_reset"), (-300_000, "counter_backwards"), (90_000_000, "implausible")],
)
def test_a_counter_that_does_not_count(change: int, expected: str) -> None:
    rows = steady(first=50_000_000)
    for row in rows:
        if row[0] > 2.5e9:
            row[2] = max(0, row[2] + change) if change > -1e9 else row[2] - rows[0][2] - 1_250_000
    assert code(window(rows, 1.5, 3.5)) == expected
    before, after = window(rows, 0.5, 2.2), window(rows, 3.0, 5.0)
    assert before.joules == pytest.approx(850.0, abs=before.bound_j)
    assert after.joules == pytest.approx(1000.0, abs=after.bound_j)


def test_a_counter_that_stands_still() -> None:
    rows = steady()
    for row in rows:
        row[2] = min(row[2], 2_000_000)
    assert code(window(rows, 1.0, 4.0)) == "stuck_counter"
    for row in rows:
        row[2] = 7
    assert code(window(rows, 1.0, 4.0)) == "stuck_counter"


def test_reads_that_fail_for_a_while_leave_a_flag_and_for_good_no_value() -> None:
    rows = steady()
    for row in rows:
        if 2.0e9 < row[0] < 2.4e9:
            row[3] = failure_number("timeout")
    energy = window(rows, 1.5, 4.5)
    assert energy.joules == pytest.approx(1500.0, abs=energy.bound_j)
    assert {"read_failures", "gap"} <= set(energy.flags)
    for row in rows:
        if row[0] > 2.0e9:
            row[3] = failure_number("lost")
    lost = window(rows, 1.5, 4.5)
    assert code(lost) == "lost_at"
    assert lost.reason is not None
    assert "0.5 s" in lost.reason.text


def test_a_window_that_ends_in_a_gap_is_widened_to_the_next_tick() -> None:
    rows = [row for row in steady(8.0) if not 3.0e9 < row[0] < 4.2e9]
    energy = window(rows, 1.5, 3.6)
    assert energy.t1_ns == pytest.approx(4.2e9, abs=0.15e9)
    assert {"widened", "gap"} <= set(energy.flags)
    assert energy.joules == pytest.approx(POWER_W * energy.duration_s, abs=energy.bound_j)
    narrow = window(rows, 1.5, 3.6, widen=False)
    assert narrow.t1_ns == 3_600_000_000
    assert narrow.bound_j is not None
    assert energy.bound_j is not None
    assert narrow.bound_j > energy.bound_j
    assert "gap" in narrow.flags


def test_windows_that_are_not_covered() -> None:
    rows = steady()
    assert code(window(rows, 0.0, 2.0)) == "window_not_covered"
    assert code(window(rows, 2.0, 7.0)) == "window_not_covered"
    assert code(window([], 2.0, 3.0)) == "no_samples"
    assert code(window(rows, 2.0, 2.0)) == "not_in_order"
    assert code(window(rows, 3.0, 2.0)) == "not_in_order"


def test_reads_that_failed_before_the_sensor_was_there_do_not_lose_it() -> None:
    failed = [[*row[:3], failure_number("timeout")] for row in steady() if row[0] < 1e9]
    rows = failed + [row for row in steady() if row[0] >= 1e9]
    assert code(window(rows, 2.0, 5.999)) == "window_not_covered"
    assert window(rows, 2.0, 5.0).joules == pytest.approx(1500.0, rel=0.03)


def test_windows_that_are_too_short() -> None:
    rows = steady(tick_s=0.5, seconds=10.0)
    assert code(window(rows, 3.1, 3.13)) == "window_too_short"
    short = window(rows, 3.1, 4.4)
    assert "short_window" in short.flags
    refused = window(rows, 3.1, 4.4, max_relative_bound=0.01)
    assert code(refused) == "window_too_short"
    assert refused.reason is not None
    needed_s = float(refused.reason.remedy.partition("about ")[2].partition(" s")[0])
    assert needed_s > 1.3
    assert short.bound_j is not None
    assert short.joules is not None
    assert needed_s == pytest.approx(short.bound_j / (0.01 * short.joules) * 1.3, rel=0.06)


def test_integers_stay_exact_after_years() -> None:
    rows = steady(first=2**62)
    energy = window(rows, 1.5, 3.5)
    assert energy.joules == pytest.approx(1000.0, abs=energy.bound_j)


@pytest.mark.parametrize("poll_s", [0.003, 0.007, 0.0101, 0.013, 0.017])
def test_a_tick_is_found_however_often_it_is_read(poll_s: float) -> None:
    rows = steady(tick_s=0.02, poll_s=poll_s)
    assert find_ticks(series(rows), COUNTER).tick_s == pytest.approx(0.02, rel=0.03)


def test_a_tick_shorter_than_the_time_between_reads_is_learned_from_a_burst() -> None:
    slow = steady(tick_s=0.001, seconds=3.0)
    assert find_ticks(series(slow), COUNTER).tick_s is None
    burst = [row for row in steady(tick_s=0.001, poll_s=0.00005, seconds=0.04) if row[0] < 0.04e9]
    later = [row for row in slow if row[0] > 0.04e9]
    assert find_ticks(series(burst + later), COUNTER).tick_s == pytest.approx(0.001, rel=0.1)
    known = window(later, 1.0, 1.5, info={"tick_s": 0.001})
    unknown = window(later, 1.0, 1.5)
    assert known.bound_j is not None
    assert unknown.bound_j is not None
    assert known.bound_j < unknown.bound_j
