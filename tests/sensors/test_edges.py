"""Windows whose edges the sampler is told of: how well a fast counter is then known, and what it costs."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace

import numpy as np
import pytest
from edge_sampling import FAST, EdgeSampling
from hypothesis import given
from hypothesis import strategies as st
from simulated_reads import KINDS, random_profile

from profiler.sensors.base import Energy
from profiler.sensors.edge_reads import EdgeReads, edges_of, fast_tick_ns
from profiler.sensors.ticks import Series
from profiler.sensors.window import counter_energy

SEED = 20261123


def energy(reads: Series, begin_s: float, end_s: float) -> Energy:
    info = replace(FAST, tick_s=0.001)
    return counter_energy(reads, info, round(begin_s * 1e9), round(end_s * 1e9), widen=False)


def dense(reads: Series) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which reads after the first second follow the one before sooner than regular ones do."""
    close = np.diff(reads.t_before_ns, prepend=reads.t_before_ns[:1]) < 2_000_000
    after: np.ndarray[tuple[int], np.dtype[np.bool_]] = close & (reads.t_before_ns > 10**9)
    return after


@pytest.mark.parametrize("length_s", [0.3, 1.0])
def test_marked_edges_are_known_five_times_better_than_by_two_reads_at_them(length_s: float) -> None:
    """The truth is inside as often as without marks; reading the counter at both ends is what others do."""
    rng = np.random.default_rng(SEED)
    errors, at_edges, bounds, unmarked = [], [], [], []
    inside = 0
    for kind in (*KINDS, *KINDS):
        profile = random_profile(rng, kind, 7.0)
        begins = rng.uniform(1.1, 4.0, 12)
        windows = [(begin, begin + length_s * rng.uniform(0.8, 1.2)) for begin in begins.tolist()]
        marks = [moment + rng.uniform(5e-5, 5e-4) for window in windows for moment in window]
        told = EdgeSampling(rng, profile, 6.0, marks_s=marks)
        reads, blind = told.sample(), EdgeSampling(rng, profile, 6.0).sample()
        for begin_s, end_s in windows:
            found, less = energy(reads, begin_s, end_s), energy(blind, begin_s, end_s)
            assert found.joules is not None
            assert found.bound_j is not None
            assert less.bound_j is not None
            truth = profile.joules(begin_s, end_s)
            errors.append(found.joules / truth - 1)
            bounds.append(found.bound_j / truth)
            inside += abs(found.joules - truth) <= found.bound_j
            at_edges.append((told.counter(end_s) - told.counter(begin_s)) * 1e-6 / truth - 1)
            unmarked.append(less.bound_j / truth)
    ratio = float(np.sqrt(np.mean(np.square(at_edges)) / np.mean(np.square(errors))))
    print(f"seed {SEED}, {length_s} s: {inside} of {len(errors)} inside, {ratio:.1f} times better")
    assert ratio >= 5
    assert inside >= 0.99 * len(errors)
    assert np.median(bounds) < np.median(unmarked) / 3


def test_power_that_changes_exactly_at_the_edges() -> None:
    """As it does where a trial begins after a rest and ends before one."""
    rng = np.random.default_rng(SEED)
    for _ in range(15):
        begin_s, end_s = 1.5 + float(rng.uniform(0, 0.01)), 1.8 + float(rng.uniform(0, 0.01))
        profile = random_profile(rng, "steady", 4.0)
        profile = type(profile)([(0.0, 60.0), (begin_s, profile.watts[0]), (end_s, 60.0)])
        marks = [begin_s + 3e-4, end_s + 3e-4]
        found = energy(EdgeSampling(rng, profile, 3.5, marks_s=marks).sample(), begin_s, end_s)
        truth = profile.joules(begin_s, end_s)
        assert found.joules is not None
        assert found.bound_j is not None
        assert abs(found.joules - truth) <= min(found.bound_j, 0.005 * truth)


@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(KINDS),
    tick_s=st.sampled_from([0.0005, 0.001, 0.003, 0.02]),
    jitter=st.sampled_from([0.0, 0.05, 0.3]),
    marks=st.lists(st.floats(1.0, 2.5), max_size=20),
    late_s=st.sampled_from([-0.002, 0.0, 0.0004, 0.005]),
)
def test_marks_wherever_they_come_make_nothing_worse_than_its_bound(
    seed: int, kind: str, tick_s: float, jitter: float, marks: list[float], late_s: float
) -> None:
    rng = np.random.default_rng(seed)
    profile = random_profile(rng, kind, 5.0)
    begin_s, end_s = 1.5, 1.9
    told = EdgeSampling(
        rng, profile, 3.5, tick_s=tick_s, jitter=jitter,
        marks_s=[*marks, begin_s + late_s, end_s + late_s],
    )  # fmt: skip
    reads = told.sample()
    assert (np.diff(reads.t_before_ns) >= 0).all()
    found = energy(reads, begin_s, end_s)
    if found.joules is None:
        assert found.reason is not None
        assert found.reason.code == "window_too_short"
        return
    assert found.bound_j is not None
    # The bound is for 99 in 100; no error comes near twice its size.
    assert abs(found.joules - profile.joules(begin_s, end_s)) <= 2 * found.bound_j
    assert not {"gap", "widened"} & set(found.flags)


def test_a_mark_is_followed_by_three_ticks_of_dense_reads() -> None:
    rng = np.random.default_rng(SEED)
    reads = EdgeSampling(rng, random_profile(rng, "steady", 4.0), 3.0, marks_s=[2.0]).sample()
    moments = reads.t_before_ns[dense(reads)] * 1e-9
    assert moments[0] == pytest.approx(2.0, abs=0.001)
    assert 0.002 < moments[-1] - 2.0 < 0.005
    assert 15 < len(moments) < 60


@pytest.mark.parametrize("how", [{"tick_s": 0.02}, {"call_s": 0.0005}])
def test_slow_counters_and_slow_calls_are_left_alone(how: dict[str, float]) -> None:
    rng = np.random.default_rng(SEED)
    profile = random_profile(rng, "steady", 4.0)
    reads = EdgeSampling(rng, profile, 3.0, marks_s=[2.0], **how).sample()
    assert not dense(reads).any()


def test_edges_without_end_take_a_tenth_of_the_time() -> None:
    rng = np.random.default_rng(SEED)
    marks = np.arange(1.0, 6.0, 0.002).tolist()
    reads = EdgeSampling(rng, random_profile(rng, "steady", 8.0), 6.0, marks_s=marks).sample()
    spent_s = np.diff(reads.t_before_ns)[dense(reads)[1:]].sum() * 1e-9
    # A tenth of five seconds, and what had been saved up.
    assert 0.4 < spent_s < 0.7


def test_a_burst_tells_fast_counters_from_others() -> None:
    def records(tick_ns: int, call_ns: int, failed: int = 0) -> bytes:
        rows = [(at, at + call_ns, at // tick_ns, failed) for at in range(0, 30_000_000, call_ns + 1_000)]
        return np.asarray(rows, dtype=np.int64).tobytes()

    assert fast_tick_ns(records(1_000_000, 5_000)) == pytest.approx(1_000_000, rel=0.01)
    assert fast_tick_ns(records(10_000_000, 5_000)) is None
    assert fast_tick_ns(records(1_000_000, 300_000)) is None
    assert fast_tick_ns(records(1_000_000, 5_000, failed=4)) is None
    assert fast_tick_ns(b"") is None


class Counting:
    """A counter with a new value at every third read."""

    tick_ns: int | None = 1_000_000

    def __init__(self) -> None:
        self.reads = 0

    def once(self) -> int | None:
        self.reads += 1
        return self.reads // 3


def test_edges_are_bytes_on_a_pipe_and_its_end_is_the_end() -> None:
    reader, writer = os.pipe()
    channel, ticks = Counting(), itertools.count(0, 50_000)
    os.write(writer, b"e")
    os.close(writer)
    with pytest.raises(EOFError):
        EdgeReads([channel], lambda: next(ticks)).follow(edges_of(reader))
    os.close(reader)
    assert channel.reads > 0
