"""``aiprof compare``: the table, Markdown and JSON, exit codes, and runs from hostile hands."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import click
import pytest
from builders import digest, make_case_fields, make_run_record, make_spec
from click.testing import CliRunner, Result
from comparisons import make_starts, steady

from profiler.cli.compare import command
from profiler.errors import InputFileError, UsageError
from profiler.results.store import RunWriter


def write_box(path: Path, seconds: Mapping[int, float], starts: int = 3, **changes: Any) -> Path:
    """Write a run of one case per batch size."""
    specs = {batch: make_spec(batch=batch, **changes) for batch in seconds}
    record = make_run_record(tuple(specs.values()), run_id=digest(path.name)[:32])
    with RunWriter.create(path, record) as writer:
        for batch, spec in specs.items():
            times = steady(seconds[batch], starts, seed=(path.name, batch))
            writer.append(make_case_fields(spec) | make_starts(times))
        writer.close()
    return path


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with runs ``a``, ``b`` (twice as fast, one case more) and ``one`` (one start)."""
    folder = tmp_path / "runs"
    write_box(folder / "a", {1: 1.0, 4: 2.0})
    write_box(folder / "b", {1: 0.5, 4: 1.0, 8: 1.0})
    write_box(folder / "one", {1: 1.0}, starts=1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    return folder


def _invoke(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments, standalone_mode=False)


def test_the_table_has_the_answer_first_and_every_case_below(runs: Path) -> None:
    result = _invoke("a", "b")
    assert result.exception is None
    assert result.return_value == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "A  a (A CPU, torch 2.13.0)"
    assert lines[3] == "B against A: 2 cases in common, 1 not comparable"
    assert re.match(r"  decode tok/s  B faster in 2 \([\d.]+ to [\d.]+%\)$", lines[5])
    row = next(line for line in lines if line.startswith("  decode tok/s ") and "–" in line)
    assert re.search(r"2\.\d{3} \(1\.\d{3}–2\.\d{3}\)    B faster by [\d.]+%$", row)
    at = lines.index("Not comparable, B against A")
    assert lines[at + 1 : at + 3] == [
        "  A has it only with batch 1, 4 instead of 8",
        "    decode-128 · smollm2-135m · bf16 · batch 8",
    ]
    assert any("95% interval over starts, not corrected" in line for line in lines)
    assert result.stderr == ""


def test_one_start_is_undecided_with_the_way_out(runs: Path) -> None:
    text = _invoke("a", "one").stdout
    assert "undecided (one start)" in text
    assert "--preset standard" in text
    assert "faster" not in text


def test_json_has_every_metric_and_only_plain_numbers(runs: Path) -> None:
    document = json.loads(_invoke("a", "b", "--json", "--threshold", "3%").stdout)
    assert [side["letter"] for side in document["sides"]] == ["A", "B"]
    (pair,) = document["pairs"]
    metric = pair["cases"][0]["metrics"][0]
    assert metric["metric"] == "prefill_tokens_per_s"
    assert metric["verdict"] == "different"
    assert metric["ratio_ci95"][0] < metric["ratio"] < metric["ratio_ci95"][1]
    assert pair["unmatched"][0]["kind"] == "batch"
    assert document["threshold"]["threshold"] == 0.03
    assert {entry["status"] for entry in document["threshold"]["judgements"]} == {"ok"}
    assert document["warnings"] == []


def test_markdown_is_a_table_with_as_many_cells_in_every_row(runs: Path) -> None:
    text = _invoke("a", "b", "--markdown", "--threshold", "3%").stdout
    assert text.startswith("### B against A\n")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 2 * 3
    assert {row.count("|") for row in rows} == {7}
    assert "0 regressions" in text
    assert "<details><summary>1 cases that cannot be compared</summary>" in text


def test_long_markdown_is_cut_and_says_so(tmp_path: Path) -> None:
    many = dict.fromkeys(range(1, 70), 1.0)
    left, right = write_box(tmp_path / "a", many), write_box(tmp_path / "b", many | {69: 0.1})
    text = _invoke(str(left), str(right), "--markdown").stdout
    assert "57 more rows: `aiprof compare --json` has all." in text
    assert "batch 69" in text  # what differs stays
    assert len(text) < 65536


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["a", "b", "--threshold", "3%"], 0),
        (["b", "a", "--threshold", "3%"], 1),
        (["a", "b", "--baseline", "b", "--threshold", "3%"], 1),
        (["a", "--baseline", "b", "--threshold", "3%"], 1),
        (["b", "a", "--threshold", "60%"], 0),
        (["b", "a", "--threshold", "60%", "--strict"], 3),
        (["a", "one", "--threshold", "3%"], 3),
        (["b", "a"], 0),
    ],
)
def test_exit_codes(runs: Path, arguments: list[str], code: int) -> None:
    result = _invoke(*arguments)
    assert result.exception is None
    assert result.return_value == code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a"], "at least two boxes, not 1 run"),
        (["a", "a"], "at least two boxes, not 1 run"),
        (["a", "c"], "no such run"),
        (["a", "b", "--json", "--markdown"], "choose one of"),
        (["a", "b", "--strict"], "--strict goes with --threshold"),
        (["a", "b", "--metric", "ttft"], "did you mean 'ttft_s'"),
        (
            ["a", "b", "--metric", "peak_engine_bytes", "--threshold", "3%"],
            "metric with an interval over starts",
        ),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(runs: Path, arguments: list[str], message: str) -> None:
    result = _invoke(*arguments)
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)


@pytest.mark.parametrize("text", ["3", "0.03", "-1%", "100%", "nan%", "x%", "%"])
def test_a_threshold_is_a_percentage(runs: Path, text: str) -> None:
    result = _invoke("a", "b", "--threshold", text)
    assert isinstance(result.exception, click.BadParameter)
    assert "write 3%" in str(result.exception)


def test_a_folder_of_runs_and_a_metric_can_be_given(runs: Path) -> None:
    text = _invoke(str(runs), "--metric", "tpot_s").stdout
    assert "C against A" in text
    assert "TPOT" in text
    assert "decode tok/s" not in text
    assert "ms" in text


def test_damaged_runs_are_refused_all_at_once(runs: Path) -> None:
    for name in ("a", "b"):
        (runs / name / "cases.jsonl").write_text("x\n")
    result = _invoke("a", "b")
    assert isinstance(result.exception, InputFileError)
    assert len(result.exception.faults) == 2


def test_incomplete_runs_are_compared_with_a_warning(runs: Path) -> None:
    (runs / "a" / "checksums.json").unlink()
    result = _invoke("a", "b")
    assert "incomplete" in result.stderr
    assert "A CPU, torch 2.13.0; incomplete" in result.stdout


def test_a_terminal_of_80_columns_is_not_exceeded(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    result = CliRunner().invoke(
        command, ["a", "b", "one", "--threshold", "3%"], color=True, standalone_mode=False
    )
    assert result.exception is None
    assert "\x1b[1m" in result.stdout  # it is taken for a terminal
    assert max(len(line) for line in click.unstyle(result.stdout).splitlines()) <= 80


EVIL = "[red]\x1b[31m\u202eevil|`</code><script>alert(1)</script>@someone #1\n| x |" + "y" * 300


def _hostile(path: Path, value: float) -> Path:
    spec = make_spec(model=EVIL, scenario=EVIL, engine=EVIL)
    record = make_run_record((spec,), run_id=f"{len(path.name):032x}")
    device = record.devices[0].model_copy(update={"name": EVIL})
    fields = make_case_fields(spec) | make_starts(steady(1.0, seed=path.name))
    power = make_case_fields()["measurements"]["prefill_s"].model_copy(
        update={"value": value, "ci95": (-1e308, 1e308), "unit": EVIL}
    )
    trials = tuple(trial if trial.start else replace(trial, e2e_s=value) for trial in fields["trials"])
    fields |= {"measurements": {"power_mean_w": power, EVIL: power}, "trials": trials}
    with RunWriter.create(path, record.model_copy(update={"devices": (device,)})) as writer:
        writer.append(fields)
        writer.close()
    return path


@pytest.mark.parametrize("value", [1e308, 5e-324, 0.0, -3.0])
def test_names_and_figures_of_hostile_runs_are_text(tmp_path: Path, value: float) -> None:
    paths = [str(_hostile(tmp_path / name, value)) for name in ("a", "bb")]
    table = _invoke(*paths, "--threshold", "3%")
    assert table.exception is None
    assert all(line.isprintable() for line in table.stdout.splitlines())
    assert max(len(line) for line in table.stdout.splitlines()) < 1000
    markdown = _invoke(*paths, "--markdown", "--threshold", "3%").stdout
    assert not re.search(r"<script|</code><s|@someone|#1\b|\x1b", markdown)
    assert {row.count("|") for row in markdown.splitlines() if row.startswith("|")} == {7}
    assert "<script>" in unescape(markdown)  # shown, not dropped
    json.loads(_invoke(*paths, "--json").stdout, parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} in JSON")


def test_help_names_the_exit_codes() -> None:
    text = CliRunner().invoke(command, ["--help"]).stdout
    assert "Exit codes with --threshold" in text
    assert command.short_help == "Say which boxes really differ, by how much, and how sure that is."


def test_regressions_are_listed_one_by_one_and_missing_evidence_by_reason(runs: Path) -> None:
    slower = _invoke("b", "a", "--threshold", "3%").stdout
    assert slower.count("  regression: B: ") == 2 * 3
    one_start = _invoke("a", "one", "--threshold", "3%").stdout
    assert one_start.count("  undecided: B: ") == 2  # one start, and the case that is missing
    assert "prefill tok/s and 2 more: one start on B" in one_start


def test_unmatched_cases_of_a_large_run_are_counted_not_all_printed(tmp_path: Path) -> None:
    left = write_box(tmp_path / "a", dict.fromkeys(range(1, 41), 1.0))
    right = write_box(tmp_path / "b", dict.fromkeys(range(1, 41), 1.0), seed=5)
    text = _invoke(str(left), str(right)).stdout
    assert "0 cases in common, 80 not comparable" in text
    assert text.count("and 20 more; --json lists all") == 2
