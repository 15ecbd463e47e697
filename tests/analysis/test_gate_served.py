"""Requirements at a number of users, judged on loads made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from gate_builders import make_case, make_run, one_line, spec_on
from hypothesis import given
from hypothesis import strategies as st
from load_tables import table_of

from profiler.analysis.served import clopper_pearson
from profiler.load.slo import parse_slos
from profiler.load.summary import measurements, served_record
from profiler.results.read import Run
from profiler.results.schema import CaseRecord, LoadSpec

ALLOW = "allow: [one_start]\n"
TTFT = "{metric: ttft_s, at_most: 0.1, percentile: 90, users: 4}"
ATTAINED = "{metric: slo_attainment, at_least: 0.9, users: 4, slo: {ttft_s: 0.1}}"


def load_case(
    ttft_ms: Sequence[float], *, failed: int = 0, slos: Sequence[str] = ("ttft_p90=0.1s",), **spec: Any
) -> CaseRecord:
    """A load of 4 users."""
    load = LoadSpec(loop="closed", concurrency=4, api="completions", prompt="token_ids", lengths="fixed")
    made = spec_on(engine="endpoint", weights="server", batch=4, load=load, **spec)
    limits, requests = parse_slos(list(slos)), table_of(ttft_ms, failed=failed)
    served = served_record(
        requests, made, (), limits, asked_requests=len(requests), asked_seconds=None, warm_up=0,
        intended_rate_per_s=None, ceiling=None, endpoint={},
    )  # fmt: skip
    fields = make_case(made).model_dump() | {
        "starts": (), "trials": (), "served": served, "measurements": measurements(requests, 4, limits)
    }  # fmt: skip
    return CaseRecord(**fields)


def run_of(*cases: CaseRecord, name: str = "run-a") -> Run:
    return make_run(*cases, name=name)


@pytest.mark.parametrize(
    ("ttft_ms", "failed", "outcome"),
    [
        ([50.0] * 100, 0, "pass"),
        ([50.0] * 60 + [200.0] * 40, 0, "fail"),
        ([50.0] * 30, 0, "undecided"),  # too few for p90
        ([50.0] * 90 + [200.0] * 10, 0, "undecided"),
        ([50.0] * 60, 40, "fail"),  # failed requests are infinitely slow
    ],
)
def test_a_percentile_is_judged_by_its_bounds(
    tmp_path: Path, ttft_ms: list[float], failed: int, outcome: str
) -> None:
    line = one_line(tmp_path, TTFT, run_of(load_case(ttft_ms, failed=failed)), head=ALLOW)
    assert line.outcome == outcome, line
    if outcome == "undecided":
        assert "aiprof load URL" in (line.remedy or "")
        assert line.command is None


def test_one_load_is_one_start(tmp_path: Path) -> None:
    case = load_case([50.0] * 100)
    line = one_line(tmp_path, TTFT, run_of(case))
    assert line.outcome == "undecided"
    assert "1 start, 3 are required; it would pass" in line.why
    runs = [run_of(case, name=f"run-{number}") for number in range(3)]
    assert one_line(tmp_path, TTFT, *runs).outcome == "pass"
    worse = [*runs[:2], run_of(load_case([200.0] * 100), name="run-9")]
    assert one_line(tmp_path, TTFT, *worse).outcome == "undecided"


def test_attainment_and_goodput_have_exact_bounds(tmp_path: Path) -> None:
    run = run_of(load_case([50.0] * 195 + [500.0] * 5, slos=["ttft=0.1s"]))
    line = one_line(tmp_path, ATTAINED, run, head=ALLOW)
    assert (line.outcome, line.value) == ("pass", 0.975)
    low, high = clopper_pearson(195, 200, 0.95)
    assert line.low == pytest.approx(low)
    assert line.high == pytest.approx(high)
    poor = run_of(load_case([50.0] * 150 + [500.0] * 50, slos=["ttft=0.1s"]))
    assert one_line(tmp_path, ATTAINED, poor, head=ALLOW).outcome == "fail"
    near = run_of(load_case([50.0] * 182 + [500.0] * 18, slos=["ttft=0.1s"]))
    assert one_line(tmp_path, ATTAINED, near, head=ALLOW).outcome == "undecided"
    goodput = "{metric: goodput_requests_per_s, at_least: 1, users: 4, slo: {ttft_s: 0.1}}"
    assert one_line(tmp_path, goodput, run, head=ALLOW).outcome == "pass"


def test_what_was_measured_otherwise_does_not_decide(tmp_path: Path) -> None:
    run = run_of(load_case([50.0] * 100, slos=["ttft=0.2s"]))
    line = one_line(tmp_path, ATTAINED, run, head=ALLOW)
    assert line.outcome == "undecided"
    assert "limits ttft=0.2s" in line.why
    assert "--slo ttft=0.1s" in (line.remedy or "")
    more = TTFT.replace("users: 4", "users: 8")
    line = one_line(tmp_path, more, run, head=ALLOW)
    assert (line.outcome, line.why) == ("undecided", "no served case has 8 users (there are: 4)")
    mean = "{metric: ttft_s, at_most: 1, users: 4}"
    assert "require a percentile" in one_line(tmp_path, mean, run, head=ALLOW).why


def test_offline_requirements_do_not_see_loads(tmp_path: Path) -> None:
    run = run_of(load_case([50.0] * 100))
    line = one_line(tmp_path, "{metric: output_tokens_per_s, at_least: 1}", run, head=ALLOW)
    assert line.outcome == "undecided"
    assert "no case of this candidate fits" in line.why


def test_a_bound_of_99_percent_does_not_serve_more(tmp_path: Path) -> None:
    head = ALLOW + "confidence: 0.999\n"
    line = one_line(tmp_path, TTFT, run_of(load_case([50.0] * 100)), head=head)
    assert line.outcome == "undecided"
    assert "99.90% is asked for" in line.why


@given(st.integers(1, 300), st.floats(0, 1), st.sampled_from([0.9, 0.95, 0.99]))
def test_exact_bounds_are_where_the_binomial_has_its_tails(n: int, share: float, confidence: float) -> None:
    import math

    good = round(share * n)
    low, high = clopper_pearson(good, n, confidence)
    assert 0 <= low <= good / n <= high <= 1

    def at_most(k: int, p: float) -> float:
        return math.fsum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))

    if good < n:
        assert at_most(good, high) == pytest.approx(1 - confidence, abs=1e-6)
    if good > 0:
        assert 1 - at_most(good - 1, low) == pytest.approx(1 - confidence, abs=1e-6)
