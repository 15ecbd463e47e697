"""The record of a load follows from its request columns, and a record that does not is named."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from truth_server import TruthServer
from verify_runs import assert_every_byte_counts, copied

from profiler.analysis.request_times import read_requests
from profiler.analysis.verify import verify_run
from profiler.load.endpoint import parse_endpoint
from profiler.load.plan import fixed_shape
from profiler.load.recompute import recompute_load
from profiler.load.request import LoadRequest, Point
from profiler.load.run import Load
from profiler.load.slo import parse_slos
from profiler.results.read import Run, read_run


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = TruthServer(ttft_ms=5, gap_ms=1)
    port = asyncio.run_coroutine_threadsafe(server.start(), loop).result(60)
    yield f"http://127.0.0.1:{port}"
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(60)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def run(url: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    request = LoadRequest(
        endpoints=(parse_endpoint(url),),
        model="plain",
        api="completions",
        shape=fixed_shape(8, 6),
        points=(Point(concurrency=2),),
        requests=12,
        warm_up=1,
        processes=1,
        slos=parse_slos(["ttft_p99=10s", "tpot=5s"]),
    )
    return Load(request).run(tmp_path_factory.mktemp("load") / "run")


def test_every_figure_of_a_load_is_made_again(run: Run) -> None:
    found = verify_run(run.path)
    assert (found.state, found.findings) == ("verified", ())
    assert found.figures >= len(run.cases[0].measurements) > 40


def test_any_changed_byte_of_a_load_is_noticed(run: Run, tmp_path: Path) -> None:
    assert_every_byte_counts(copied(run.path, tmp_path / "run"), examples=15)


def test_a_figure_that_does_not_follow_is_named(run: Run) -> None:
    (case,) = read_run(run.path).cases
    assert case.samples is not None
    requests = read_requests(run.path, case.samples)
    for name in ("ttft_p50_s", "goodput_requests_per_s", "output_tokens_per_s"):
        measured = case.measurements[name]
        assert measured.value is not None
        forged = measured.model_copy(update={"value": measured.value * 1.01})
        changed = case.model_copy(update={"measurements": case.measurements | {name: forged}})
        again = recompute_load(run.record, changed, requests)
        assert {item.figure for item in again.differences} == {name}
    assert case.served is not None
    fewer = case.served.model_copy(update={"requests": 3})
    again = recompute_load(run.record, case.model_copy(update={"served": fewer}), requests)
    assert "served.requests" in {item.figure for item in again.differences}


def test_lost_request_columns_leave_no_figure_checked(run: Run) -> None:
    (case,) = run.cases
    again = recompute_load(run.record, case, None)
    assert again.figures == ()
    assert set(again.left_out) == set(case.measurements)
