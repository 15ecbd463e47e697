from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.workload.arrivals import Arrivals, Process, schedule

PROCESSES = st.one_of(
    st.just(("constant", 0.0)),
    st.just(("poisson", 1.0)),
    st.tuples(st.just("gamma"), st.floats(0.1, 20)),
)


def test_golden_vector() -> None:
    due = schedule("poisson", rate_per_s=1, cv=1, count=5, scenario="chat", seed=0)
    assert due.tolist() == pytest.approx([0, 1.474559, 2.861956, 4.586341, 5.747728], abs=1e-6)


@pytest.mark.parametrize(
    ("process", "cv"), [("constant", 0.0), ("poisson", 1.0), ("gamma", 0.3), ("gamma", 1.0), ("gamma", 3.0)]
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rate_and_cv_are_as_asked(process: Process, cv: float, seed: int) -> None:
    count, rate = 200_000, 5.5301
    gaps = np.diff(schedule(process, rate_per_s=rate, cv=cv, count=count, scenario="a", seed=seed))
    assert gaps.mean() == pytest.approx(1 / rate, rel=5 * cv / math.sqrt(count) + 1e-9)
    # The variance of a sample variance of gamma gaps: kurtosis 3 + 6 cv^2.
    error_of_cv = math.sqrt((2 + 6 * cv**2) / count) / 2 + 1 / math.sqrt(count)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=6 * error_of_cv, abs=1e-6)


def test_poisson_gaps_are_exponential() -> None:
    count = 100_000
    gaps = np.sort(np.diff(schedule("poisson", rate_per_s=2, cv=1, count=count + 1, scenario="a", seed=4)))
    distance = np.abs(1 - np.exp(-2 * gaps) - (np.arange(count) + 0.5) / count).max()
    assert distance < 1.95 / math.sqrt(count)  # Kolmogorov-Smirnov at a level of 0.1%


@settings(max_examples=100)
@given(
    kind=PROCESSES,
    rate=st.floats(1e-3, 1e4),
    count=st.integers(1, 200),
    more=st.integers(0, 200),
    seed=st.integers(0, 2**40),
)
def test_schedules_start_at_0_never_go_back_and_extend_and_stretch(
    kind: tuple[Process, float], rate: float, count: int, more: int, seed: int
) -> None:
    process, cv = kind
    rest: dict[str, Any] = {"cv": cv, "scenario": "s", "seed": seed}
    due = schedule(process, rate_per_s=rate, count=count, **rest)
    assert len(due) == count
    assert due[0] == 0
    assert np.all(np.diff(due) >= 0)
    assert schedule(process, rate_per_s=rate, count=count + more, **rest)[:count].tolist() == due.tolist()
    assert np.allclose(schedule(process, rate_per_s=2 * rate, count=count, **rest), due / 2)


def test_constant_gaps_are_equal() -> None:
    due = schedule("constant", rate_per_s=4, cv=0, count=5, scenario="a", seed=0)
    assert due.tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_seeds_and_scenarios_have_their_own_schedules() -> None:
    schedules = {
        tuple(schedule("poisson", rate_per_s=1, cv=1, count=5, scenario=scenario, seed=seed))
        for scenario in ("a", "b")
        for seed in range(10)
    }
    assert len(schedules) == 20


@pytest.mark.parametrize(
    ("process", "cv", "rate", "count", "what"),
    [
        ("constant", 1.0, 1.0, 1, "cv of constant arrivals is 0, not 1"),
        ("poisson", 2.0, 1.0, 1, "cv of poisson arrivals is 1, not 2"),
        ("gamma", 0.0, 1.0, 1, "above 0"),
        ("gamma", -1.0, 1.0, 1, "from 0 on"),
        ("gamma", math.nan, 1.0, 1, "from 0 on"),
        ("poisson", 1.0, 0.0, 1, "rate_per_s"),
        ("poisson", 1.0, math.inf, 1, "rate_per_s"),
        ("poisson", 1.0, 1.0, 0, "at least 1 request"),
    ],
)
def test_nonsense_is_refused(process: Process, cv: float, rate: float, count: int, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        schedule(process, rate_per_s=rate, cv=cv, count=count, scenario="a", seed=0)


def test_arrivals_refuse_a_cv_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="cv of poisson"):
        Arrivals("poisson", cv=1.04, measured_cv=1.04, rate_per_s=1.0, source="x")
