"""Who opens or closes a window of energy tells the sampler: rests, batches, loads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import machines
import numpy as np
import pytest
from fakes.power import PowercapTree, Profile
from truth_thread import serving

from profiler.load.endpoint import parse_endpoint
from profiler.load.fleet import Fleet
from profiler.load.job import Job, Limits
from profiler.load.prompts import Features, PromptSpec
from profiler.measure.request import SweepRequest
from profiler.measure.sensing import Sensing
from profiler.measure.sweep import Sweep
from profiler.sensors.sampler import Sampler


@pytest.fixture
def marks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """When the sampler was told of edges, CLOCK_MONOTONIC."""
    found: list[int] = []
    real = Sampler.mark

    def mark(sampler: Sampler) -> None:
        found.append(time.monotonic_ns())
        real(sampler)

    monkeypatch.setattr(Sampler, "mark", mark)
    return found


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A CPU package of 100 W."""
    root = machines.write(tmp_path / "root", machines.zone("intel-rapl:0", "package-0", 0))
    monkeypatch.setenv("AIPROF_SYSFS_ROOT", str(root))
    zones = {"intel-rapl:0": (Profile([(0.0, 100.0)]), 5_000_000, 262_143_328_850)}
    tree = PowercapTree(root, zones, time.monotonic())
    yield
    tree.stop()


def between(marks: list[int], begin_ns: int, end_ns: int) -> bool:
    return any(begin_ns <= moment <= end_ns for moment in marks)


@pytest.mark.usefixtures("package")
def test_a_sweep_marks_its_rest_and_the_ends_of_every_measured_batch(
    tmp_path: Path, marks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    origins: list[int] = []
    begin_case = Sensing.begin_case

    def begin(sensing: Sensing) -> int:
        origins.append(begin_case(sensing))
        return origins[-1]

    monkeypatch.setattr(Sensing, "begin_case", begin)
    request = SweepRequest(
        engines=("fake",), devices=("cpu",), scenarios=("decode-128",), batches=(1,), budget_s=10.0,
        no_fidelity=True, engine_options={"real_time": "true", "read_bandwidth": "1e12"},
    )  # fmt: skip
    (case,) = Sweep(request, lambda event: None).run(tmp_path / "run").cases
    ((spans,), (origin_ns,)) = case.energy_spans, origins
    assert spans.idle is not None
    runs = [*spans.trials, *spans.requests, *spans.prefills]
    ends = [spans.idle[1], *(run[2] for run in runs)]
    begins = [*(run[0] for run in runs), time.monotonic_ns()]
    assert between(marks, origin_ns + spans.idle[0], origin_ns + spans.idle[1])
    # The end of a batch is known here a little later, the begin of the next one a little later or earlier.
    for end_ns, begin_ns in zip(ends, begins, strict=True):
        assert between(marks, origin_ns + end_ns, origin_ns + begin_ns)
    assert len(marks) >= 4 + 2 * len(runs)


def test_a_load_says_when_it_begins_and_when_its_last_answer_has_ended() -> None:
    edges: list[int] = []
    with serving() as server:
        job = Job(
            endpoints=(parse_endpoint(f"http://127.0.0.1:{server.port}"),),
            api="completions",
            model="plain",
            prompts=PromptSpec("test", 0),
            features=Features(),
            prompt_tokens=np.array([8]),
            output_tokens=np.array([6]),
            count=4,
            concurrency=2,
            limits=Limits(total_s=60, idle_s=30, max_response_bytes=2**20),
        )
        found, _, go_ns = Fleet(job, 2).run(edge=lambda: edges.append(time.monotonic_ns()))
    assert found.ok.all()
    assert len(edges) == 3
    assert min(edges) >= go_ns
    assert max(edges) >= int(found["end_ns"].max())
