"""Runs that were copied, forged, edited or broken decide nothing and break nothing."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from builders import make_case_fields, make_run_record, make_spec
from gate_builders import (
    SPEED,
    STEADY,
    judged,
    make_case,
    make_device,
    make_run,
    measured,
    one_line,
    run_with,
    spec_on,
)

from profiler.errors import InputFileError
from profiler.results.read import read_run
from profiler.results.store import RunWriter


def test_a_copy_of_a_run_does_not_count_twice(tmp_path: Path) -> None:
    run = run_with(make_case(spec_on(), (2.0, 2.02)))
    copy = dataclasses.replace(run, path=Path("copy"))
    line = one_line(tmp_path, SPEED % 10, run, copy)
    assert line.labels[0] == "2 starts"
    assert line.outcome == "undecided"


def test_a_start_named_twice_does_not_count_twice(tmp_path: Path) -> None:
    case = make_case(spec_on(), (2.0,))
    forged = case.model_copy(update={"starts": case.starts * 3})
    line = one_line(tmp_path, SPEED % 10, run_with(forged))
    assert line.outcome == "undecided"
    assert "two starts have the same number" in line.why


def test_a_summary_that_does_not_follow_from_its_trials_counts_for_nothing(tmp_path: Path) -> None:
    case = make_case(spec_on(), STEADY)
    better = case.measurements["output_tokens_per_s"].model_copy(update={"value": 640.0})
    forged = case.model_copy(update={"measurements": case.measurements | {"output_tokens_per_s": better}})
    line = one_line(tmp_path, SPEED % 10, run_with(forged))
    assert line.outcome == "undecided"
    assert "does not follow from the recorded trials" in line.why


def test_an_edited_run_counts_for_nothing(tmp_path: Path) -> None:
    spec = make_spec()
    path = tmp_path / "run"
    with RunWriter.create(path, make_run_record((spec,))) as writer:
        fields = make_case_fields(spec, starts=make_case(spec, STEADY).starts, flags=())
        writer.append(fields | {"trials": make_case(spec, STEADY).trials, "measurements": {}})
        writer.close()
    assert one_line(tmp_path, SPEED % 10, read_run(path)).outcome == "pass"
    cases = path / "cases.jsonl"
    honest = cases.read_text()
    cases.write_text(honest.replace("20.0", "21.0"))
    assert cases.read_text() != honest
    line = one_line(tmp_path, SPEED % 10, read_run(path))
    assert line.outcome == "undecided"
    assert "the run was edited" in line.why


def test_a_run_that_was_only_interrupted_counts(tmp_path: Path) -> None:
    spec, later = make_spec(), make_spec(batch=2)
    path = tmp_path / "run"
    with RunWriter.create(path, make_run_record((spec, later))) as writer:
        case = make_case(spec, STEADY)
        fields = make_case_fields(spec, starts=case.starts, trials=case.trials, flags=(), measurements={})
        writer.append(fields)
    with (path / "cases.jsonl").open("a") as file:
        file.write('{"torn":')
    found = judged(tmp_path, f"  - {SPEED % 10}", read_run(path), head="case: {batch: 1}\n")
    assert found.outcome == "pass"
    assert any("incomplete" in note for note in found.notes)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e308, 1e-320])
def test_times_that_cannot_be_true_count_for_nothing(tmp_path: Path, seconds: float) -> None:
    case = make_case(spec_on(), STEADY)
    trials = tuple(replace(trial, e2e_s=seconds) for trial in case.trials)
    run = run_with(case.model_copy(update={"trials": trials, "measurements": {}}))
    line = one_line(tmp_path, SPEED % 10, run)
    assert line.outcome == "undecided"
    assert "cannot be true" in line.why


@pytest.mark.parametrize("value", [1e308, -1.0])
def test_measurements_that_cannot_be_true_count_for_nothing(tmp_path: Path, value: float) -> None:
    extra = {"sustained_ratio": measured(value, "ratio", ci95=(value, value))}
    run = run_with(make_case(spec_on(), STEADY, extra=extra))
    line = one_line(tmp_path, "{metric: sustained_ratio, at_least: 0.5}", run)
    assert line.outcome == "undecided"
    assert "cannot be true" in line.why


def test_names_from_a_run_are_escaped_and_quoted(tmp_path: Path) -> None:
    name = "x'; rm -rf ~ #\x1b[2J\n<script>"
    run = run_with(make_case(spec_on(model=name), STEADY), device=make_device(name=name))
    line = one_line(tmp_path, SPEED % 63.7, run)
    words = shlex.split(line.command or "")
    assert words[words.index("--model") + 1] == "x'; rm -rf ~ #\\x1b[2J\\n<script>"
    assert "\n" not in (line.command or "")


def test_a_flood_of_cases_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("profiler.analysis.candidates.MOST_CASES", 3)
    run = make_run(*(make_case(spec_on(batch=batch), STEADY) for batch in range(1, 5)))
    with pytest.raises(InputFileError, match="4 cases, at most 3 can be judged"):
        judged(tmp_path, f"  - {SPEED % 10}", run)
    monkeypatch.undo()
    monkeypatch.setattr("profiler.analysis.gate.MOST_MATCHES", 3)
    line = one_line(tmp_path, SPEED % 10, run)
    assert "4 cases fit, more than 3" in line.why
