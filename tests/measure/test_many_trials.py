"""Boxes on which a trial takes a millisecond: what is made of them stays readable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from profiler.measure import start, stop
from profiler.measure.request import SweepRequest
from profiler.measure.sweep import Sweep
from profiler.results.read import Run, read_run

FAST = {"read_bandwidth": "1e13", "matrix_flops": "1e15", "overhead_s": "0.0005"}


def sweep(path: Path, **changes: Any) -> Run:
    fields: dict[str, Any] = {
        "engines": ("fake",),
        "scenarios": ("prefill-512",),
        "batches": (1,),
        "engine_options": FAST,
        "no_fidelity": True,
    }
    Sweep(SweepRequest(**fields | changes), lambda _: None).run(path)
    return read_run(path)


def test_a_start_ends_with_the_trials_that_a_record_can_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "MOST_TRIALS_PER_CASE", 600)
    (case,) = sweep(tmp_path / "run").cases
    assert case.status == "ok"
    warm_up = [trial for trial in case.trials if trial.warm_up]
    assert len(warm_up) == 150
    assert len(case.trials) == 300
    assert case.starts[0].stopped_by in ("target_reached", "last_look")
    assert "not_steady" in {flag.code for flag in case.flags}


def test_a_soak_that_no_record_would_hold_fails_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "MOST_TRIALS_PER_CASE", 3000)
    (case,) = sweep(tmp_path / "run", soak_s=600.0).cases
    assert case.failure is not None
    assert case.failure.kind == "unsupported"
    assert "a soak of 600 s would make" in case.failure.message
    assert "take a longer workload" in case.failure.message


def test_a_long_row_is_judged_now_and_then_and_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    decide = stop.decide

    def counting(times: list[float], *rest: Any) -> stop.Decision:
        looked.append(len(times))
        return decide(times, *rest)

    monkeypatch.setattr(start, "decide", counting)
    monkeypatch.setattr(start, "MOST_TRIALS_PER_CASE", 4000)
    (case,) = sweep(tmp_path / "run").cases
    measured = sum(not trial.warm_up for trial in case.trials)
    assert measured > 900
    assert looked[:20] == list(range(1, 21))
    assert looked[-1] == measured
    assert len(looked) < measured / 2
