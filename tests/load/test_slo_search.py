"""The search for the highest load: its steps for any truth, its judgements, and a real one on a server."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from load_tables import table_of
from served_truth import aiprof, truth_server

from profiler.analysis.slo_search import search_answer
from profiler.analysis.verify import verify_run
from profiler.errors import UsageError
from profiler.load.search import MARGIN, Search, Verdict, bracket, judge, overall, requests_wanted
from profiler.load.slo import parse_slos
from profiler.load.slo_presets import PRESETS, slos_of
from profiler.measure.percentiles import percentile_lower_bound
from profiler.results.read import read_run


def steps(search: Search, limit: float) -> dict[float, Verdict]:
    known: dict[float, Verdict] = {}
    while (level := search.next(known)) is not None:
        assert level not in known
        known[level] = "holds" if level <= limit else "fails"
    return known


@given(st.integers(0, 3000), st.integers(1, 64), st.integers(1, 4096))
def test_users_are_found_to_the_last_one_or_within_five_percent(limit: int, low: int, span: int) -> None:
    search = Search("concurrency", low, low + span)
    known = steps(search, limit)
    holds, border = bracket(known)
    assert len(known) <= search.most_points()
    if limit < low:
        assert (holds, border) == (None, low)
    elif limit >= low + span:
        assert (holds, border) == (low + span, None)
    else:
        assert holds is not None
        assert border is not None
        assert holds <= limit < border
        assert border - holds == 1 or border <= holds * (1 + MARGIN)


@given(st.floats(0.01, 500), st.floats(0.05, 2), st.floats(1.01, 1000))
def test_rates_are_found_within_five_percent(limit: float, low: float, times: float) -> None:
    search = Search("rate", low, low * times)
    known = steps(search, limit)
    holds, border = bracket(known)
    if holds is not None and border is not None:
        assert holds <= limit < border
        assert border / holds <= 1 + MARGIN + 0.01  # rates have three digits


def test_an_undecided_point_is_one_that_does_not_hold() -> None:
    search = Search("concurrency", 1, 64)
    assert search.next({1.0: "holds", 2.0: "undecided"}) is None
    assert bracket({1.0: "holds", 2.0: "undecided", 4.0: "holds"}) == (1.0, 2.0)


def test_a_point_is_judged_by_bounds_and_not_by_its_percentile() -> None:
    (slo,) = slos = parse_slos(["ttft_p90=0.1s"])
    assert slo.percentile == 90

    def verdict(ttft_ms: list[float], failed: int = 0) -> str:
        return overall(judge(table_of(ttft_ms, failed=failed), slos))

    assert verdict([50.0] * 64) == "holds"
    assert verdict([50.0] * 43) == "undecided"  # too few for any bound of p90
    assert verdict([97.0] * 64) == "undecided"  # within 5% of the limit
    assert verdict([103.0] * 64) == "undecided"
    assert verdict([110.0] * 3) == "fails"  # few are enough for the worse
    assert verdict([50.0] * 56 + [500.0] * 8) == "undecided"
    assert verdict([50.0] * 44, failed=20) == "fails"
    assert verdict([], failed=5) == "fails"
    assert verdict([]) == "undecided"


@given(st.integers(1, 400), st.sampled_from([50.0, 90.0, 99.0]), st.integers(0, 2**32))
def test_the_lower_bound_is_where_so_many_over_would_be_a_wonder(n: int, share: float, seed: int) -> None:
    values = np.random.default_rng(seed).exponential(size=n) + 0.1
    bound = percentile_lower_bound(values, share)
    if bound is None:
        return
    over = int((values >= bound).sum())
    miss = 1 - share / 100

    def at_least(k: int) -> float:
        return 1 - math.fsum(math.comb(n, i) * miss**i * (1 - miss) ** (n - i) for i in range(k))

    assert at_least(over) <= 0.01 + 1e-9
    assert at_least(over - 1) > 0.01 - 1e-9


def test_presets_are_those_of_mlperf_and_own_limits_win() -> None:
    assert [str(slo) for slo in PRESETS["mlperf-llama2-70b"]] == ["ttft_p99=2s", "tpot_p99=0.2s"]
    found = slos_of(["ttft_p99=1s", "e2e=30s"], "mlperf-llama2-70b")
    assert [str(slo) for slo in found] == ["ttft_p99=1s", "e2e=30s", "tpot_p99=0.2s"]
    with pytest.raises(UsageError, match="mlperf-deepseek-r1"):
        slos_of([], "mlperf-deepsek-r1")
    assert requests_wanted(found, 1, "concurrency") > 662
    # A queue that grows shows within a minute, not within as many requests.
    assert requests_wanted(found, 100, "rate") == 6000


def test_a_search_finds_how_many_a_server_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run"
    with truth_server(ttft_ms=1, gap_ms=1, slots=5) as url:
        code = aiprof(
            "load", url, "--prompt-tokens", "8", "--output-tokens", "20", "--slo", "ttft_p90=60s",
            "--to", "16",
            "--requests", "120", "--warm-up", "0", "--quiet", "--out", str(path),
        )  # fmt: skip
    assert code == 0
    run = read_run(path)
    assert run.complete
    assert run.warnings == ()
    answer = search_answer(run)
    assert answer is not None
    assert (answer.holds, answer.fails) == (5, 6)
    levels = [case.spec.load.concurrency for case in run.cases if case.spec.load is not None]
    assert levels == [1, 2, 4, 8, 5, 6]
    assert "5 users keep ttft_p90=60s; 6 fail" in capsys.readouterr().out
    assert verify_run(path).findings == ()


def test_speculative_decoding_is_other_work() -> None:
    from profiler.load.ceiling import ClientCost
    from profiler.load.drive import Driver
    from profiler.load.endpoint import parse_endpoint
    from profiler.load.negotiate import Agreement
    from profiler.load.plan import fixed_shape
    from profiler.load.prompts import Features
    from profiler.load.request import LoadRequest, Point
    from profiler.load.run import Load

    specs = []
    for method in (None, "mtp"):
        request = LoadRequest(
            endpoints=(parse_endpoint("http://127.0.0.1:9"),), model="m", api="completions",
            shape=fixed_shape(8, 8), points=(), speculative=method,
        )  # fmt: skip
        driver = Driver(request, Agreement("m", Features(), 1.0, 0.0, {}), ClientCost(1e-3, 1e-5))
        specs.append(Load(request)._spec(driver, Point(concurrency=1)))
    assert len({spec.workload_id for spec in specs}) == 2
    assert specs[1].load is not None
    assert specs[1].load.speculative == "mtp"


def test_a_dry_run_says_how_long_and_sends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--scenario", "chat", "--slo-preset", "mlperf-llama3.1-8b", "--to", "64", "--dry-run")
    assert aiprof("load", "http://127.0.0.1:9", "--model", "m", *flags, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["points"] == Search("concurrency", 1, 64).most_points()
    assert document["hours"] == pytest.approx(document["points"] * 120 / 3600)
    assert aiprof("load", "http://127.0.0.1:9", "--model", "m", *flags) == 0
    assert "at most" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags",
    [
        ("--search", "concurrency"),
        ("--search", "concurrency", "--slo", "ttft=1s"),
        ("--search", "rate", "--rate", "2", "--slo", "ttft_p90=1s"),
        ("--slo", "ttft_p90=1s", "--from", "9", "--to", "3"),
        ("--concurrency", "2", "--to", "3"),
        ("--slo", "ttft_p90=1s", "--cv", "2"),
    ],
)
def test_searches_that_cannot_be_are_refused(flags: tuple[str, ...]) -> None:
    assert aiprof("load", "http://127.0.0.1:9", "--model", "m", "--scenario", "chat", *flags) == 2
