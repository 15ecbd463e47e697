from __future__ import annotations

import math
from pathlib import Path

import pytest
from builders import make_case_fields, make_run_record, make_spec

from profiler.render.report_judge import StartsJudge
from profiler.render.report_subjects import Entry, Subject
from profiler.results.read import read_run
from profiler.results.schema import StartRecord, TrialRecord
from profiler.results.store import RunWriter


def entry(folder: Path, seconds: list[float]) -> Entry:
    """A case with one start for each of ``seconds``, every trial of which took exactly so long."""
    starts = tuple(
        StartRecord(
            index=index,
            used=True,
            load_s=1.0,
            compile_s=None,
            steady=True,
            stopped_by="target_reached",
            probe_before_bytes_per_s=None,
            probe_after_bytes_per_s=None,
            energy_j=None,
            measured_s=10.0,
            details={},
        )
        for index in range(len(seconds))
    )
    trials = tuple(
        TrialRecord(start=start, index=trial, warm_up=False, prefill_s=0.1, decode_s=time, e2e_s=time + 0.1)
        for start, time in enumerate(seconds)
        for trial in range(5)
    )
    spec = make_spec()
    with RunWriter.create(folder, make_run_record((spec,))) as writer:
        writer.append(make_case_fields(spec, starts=starts, trials=trials))
    run = read_run(folder)
    device = run.record.devices[0]
    subject = Subject(0, "box", run, device, device.key, "torch")
    return Entry(subject, run.cases[0])


def test_boxes_that_differ_by_more_than_their_starts(tmp_path: Path) -> None:
    fast = entry(tmp_path / "fast", [1.0, 1.01, 0.99])
    slow = entry(tmp_path / "slow", [2.0, 2.02, 1.98])
    ratio = StartsJudge().ratio("decode_tokens_per_s", fast, slow)
    assert ratio is not None
    assert ratio.value == pytest.approx(2.0, rel=1e-3)
    assert ratio.distinguishable
    assert ratio.undecided == ""
    assert 1.9 < ratio.low < 2.0 < ratio.high < 2.1


def test_boxes_that_differ_by_less(tmp_path: Path) -> None:
    one = entry(tmp_path / "one", [1.0, 1.1, 0.9])
    two = entry(tmp_path / "two", [1.02, 1.13, 0.93])
    ratio = StartsJudge().ratio("decode_tokens_per_s", one, two)
    assert ratio is not None
    assert not ratio.distinguishable


def test_the_ratio_turns_over_with_its_sides(tmp_path: Path) -> None:
    one = entry(tmp_path / "one", [1.0, 1.1, 0.9])
    two = entry(tmp_path / "two", [1.3, 1.4, 1.35])
    there = StartsJudge().ratio("tpot_s", one, two)
    back = StartsJudge().ratio("tpot_s", two, one)
    assert there is not None
    assert back is not None
    assert math.isclose(there.value * back.value, 1.0)
    assert math.isclose(there.low * back.high, 1.0)


def test_one_start_decides_nothing(tmp_path: Path) -> None:
    one = entry(tmp_path / "one", [1.0])
    two = entry(tmp_path / "two", [5.0])
    ratio = StartsJudge().ratio("decode_tokens_per_s", one, two)
    assert ratio is not None
    assert ratio.undecided
