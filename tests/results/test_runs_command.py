"""``aiprof runs``: every run is listed, damaged ones included, and names cannot harm a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from builders import make_case_fields, make_run_record, make_spec, write_example_run
from click.testing import CliRunner, Result

from profiler.cli.runs import command
from profiler.errors import InputFileError, UsageError
from profiler.results.store import RunWriter


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with four runs in ./runs: complete, incomplete, newer and damaged."""
    folder = tmp_path / "runs"
    write_example_run(folder / "a-complete")
    write_example_run(folder / "b incomplete", close=False)
    newer = make_run_record(created_utc="2026-02-01T00:00:00Z", simulated=True)
    RunWriter.create(folder / "c-newer", newer).close()
    write_example_run(folder / "d-damaged")
    (folder / "d-damaged" / "cases.jsonl").write_text("x\ny\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    return folder


def _invoke(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def test_runs_are_listed_newest_first_with_damaged_ones_last(runs: Path) -> None:
    result = _invoke()
    assert result.exit_code == 0
    header, *lines = result.stdout.splitlines()
    assert header.split() == ["run", "when", "(UTC)", "device", "preset", "cases", "state"]
    assert [line.split("  ")[0] for line in lines[:4]] == [
        "runs/c-newer",
        "runs/a-complete",
        "runs/b incomplete",
        "runs/d-damaged",
    ]
    newer, complete, incomplete, damaged = lines[:4]
    assert "2026-02-01 00:00  A CPU   quick   0 ok, 0 failed of 1" in newer
    assert newer.endswith("complete, simulated")
    assert "1 ok, 1 failed of 2 (+ 1 skipped)  complete" in complete
    assert "1 ok, 1 failed of 3 (+ 1 skipped)  incomplete" in incomplete
    assert damaged.endswith("damaged")
    assert lines[4:] == [
        "incomplete, continue with: aiprof sweep --resume 'runs/b incomplete'",
        "damaged: runs/d-damaged/cases.jsonl:1: not valid JSON: expected value at line 1 column 1 "
        "(and 1 more faults)",
    ]
    assert result.stderr == ""


def test_the_list_as_json(runs: Path) -> None:
    listed = {Path(run["path"]).name: run for run in json.loads(_invoke("--json").stdout)}
    assert list(listed) == ["c-newer", "a-complete", "b incomplete", "d-damaged"]
    assert listed["a-complete"]["cases"] == {"planned": 2, "ok": 1, "failed": 1, "skipped": 1}
    assert listed["a-complete"]["resume"] is None
    assert listed["b incomplete"]["complete"] is False
    assert listed["b incomplete"]["resume"] == "aiprof sweep --resume 'runs/b incomplete'"
    assert listed["c-newer"]["simulated"] is True
    assert len(listed["d-damaged"]["damaged"]) == 2


def test_a_folder_can_be_named(runs: Path) -> None:
    assert _invoke(str(runs)).stdout.count(str(runs)) == _invoke().stdout.count("runs/")


@pytest.mark.parametrize("arguments", [[], ["empty"]])
def test_an_empty_folder_says_what_makes_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    result = _invoke(*arguments)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "`aiprof sweep` makes one" in result.stderr
    assert json.loads(_invoke(*arguments, "--json").stdout) == []


def test_one_run_shows_its_cases_and_why_some_have_no_result(runs: Path) -> None:
    result = _invoke("b incomplete")
    title, header, *lines = result.stdout.splitlines()
    assert title.startswith("runs/b incomplete: 2026-01-31 12:00 UTC on A CPU, preset quick; ")
    assert "engine" not in header  # the same for all cases
    ok, failed, skipped, not_run = lines[:4]
    assert "50.0 ±1.0%" in ok
    assert "one_start, few_trials" in ok
    assert "out_of_memory" in failed
    assert " skipped " in skipped
    assert " not run " in not_run
    assert lines[4:] == [
        "failed: smollm2-135m bf16 decode-128 batch 8: in load: needs 2 GiB more memory; use a smaller batch",
        "skipped: smollm2-135m bf16 decode-128 batch 512: needs 3.0 GiB more memory",
        "incomplete, continue with: aiprof sweep --resume 'runs/b incomplete'",
    ]
    assert "incomplete (2 of 3 cases)" in result.stderr


def test_one_run_as_json(runs: Path) -> None:
    document = json.loads(_invoke("runs/b incomplete", "--json").stdout)
    assert [case["status"] for case in document["case_list"]] == ["ok", "failed", "skipped", "not_run"]
    ok, failed, skipped, _ = document["case_list"]
    assert ok["measurements"]["energy_j"]["value"] is None
    assert failed["failure"]["kind"] == "out_of_memory"
    assert skipped["lacking_bytes"] == 3 * 2**30


def test_columns_that_differ_are_shown(tmp_path: Path) -> None:
    specs = (make_spec(engine="torch"), make_spec(engine="fake"))
    RunWriter.create(tmp_path / "run", make_run_record(specs)).close()
    assert "engine" in _invoke(str(tmp_path / "run")).stdout.splitlines()[1]


def test_a_damaged_or_unknown_run_is_an_error(runs: Path) -> None:
    damaged = _invoke("d-damaged")
    assert isinstance(damaged.exception, InputFileError)
    assert len(damaged.exception.faults) == 2
    unknown = _invoke("a-complet")
    assert isinstance(unknown.exception, UsageError)
    assert "did you mean 'a-complete'?" in str(unknown.exception)


@pytest.mark.parametrize("value", [1e308, 1e-308, 0.0, -3.0])
def test_names_and_figures_of_a_hostile_run_are_shown_as_text(tmp_path: Path, value: float) -> None:
    spec = make_spec(model="[red]\x1b[31m\u202eevil\n" + "x" * 200, scenario="<b>")
    fields = make_case_fields(spec)
    speed = fields["measurements"]["decode_tokens_per_s"].model_copy(
        update={"value": value, "ci95": (-1e308, 1e308)}
    )
    fields["measurements"] = {"decode_tokens_per_s": speed}
    record = make_run_record((spec,))
    device = record.devices[0].model_copy(update={"name": "\x1b]0;evil\x07"})
    with RunWriter.create(tmp_path / "run", record.model_copy(update={"devices": (device,)})) as writer:
        writer.append(fields)
        writer.close()
    result = _invoke(str(tmp_path / "run"))
    assert result.exit_code == 0
    title, header, row = result.stdout.splitlines()
    assert r"[red]\x1b[31m\u202eevil\n" in row
    assert all(line.isprintable() for line in (title, header, row))
    assert len(row) < 400  # not all the digits of 1e308


def test_a_terminal_gets_its_width_and_no_colour_when_asked(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    result = CliRunner().invoke(command, [], color=True)
    assert "\x1b[1m" in result.stdout  # it is taken for a terminal; NO_COLOR leaves bold alone
    assert "\x1b[3" not in result.stdout
    table = click.unstyle(result.stdout).split("incomplete, continue")[0]
    assert max(len(line) for line in table.splitlines()) <= 60
