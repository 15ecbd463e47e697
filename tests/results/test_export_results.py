"""Exports: exact where the format can be, harmless where it is a spreadsheet, whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pandas as pd
import pytest
from builders import make_case_fields, make_run_record, make_spec, write_example_run
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from profiler.cli.export import command
from profiler.errors import InputFileError, UsageError
from profiler.results.export import encode, write_whole
from profiler.results.load import RUN_COLUMNS, frame_of, load_runs
from profiler.results.store import RunWriter, read_run

GOLDEN = Path(__file__).parent / "data" / "run-schema-1"
FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\rx", "\n=1", "＝1", "－1", "=HYPERLINK(1)"]


@pytest.fixture
def run_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_example_run(tmp_path / "runs" / "one")


def _invoke(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def test_csv_has_a_header_and_a_line_for_each_row(run_path: Path) -> None:
    frame = load_runs(run_path)
    rows = list(csv.DictReader(io.StringIO(encode(frame, "csv").decode())))
    assert list(rows[0]) == list(RUN_COLUMNS)
    assert [row["metric"] for row in rows] == list(frame["metric"].fillna(""))
    assert [float(row["value"]) for row in rows if row["value"]] == list(frame["value"].dropna())
    assert rows[0]["created_utc"] == "2026-01-31T12:00:00+00:00"


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_cell_that_a_spreadsheet_would_run_is_neutralised_in_csv_only(tmp_path: Path, formula: str) -> None:
    spec = make_spec(model=formula)
    with RunWriter.create(tmp_path, make_run_record((spec,))) as writer:
        writer.append(make_case_fields(spec))
        writer.close()
    frame = frame_of([read_run(tmp_path)])
    rows = list(csv.DictReader(io.StringIO(encode(frame, "csv").decode(), newline="")))
    assert {row["model"] for row in rows} == {"'" + formula.replace("\r", "\n")}
    assert {row["model"] for row in json.loads(encode(frame, "json"))} == {formula}
    assert set(pd.read_parquet(io.BytesIO(encode(frame, "parquet")))["model"]) == {formula}


def test_negative_numbers_and_ordinary_text_are_left_alone(tmp_path: Path) -> None:
    spec = make_spec(seed=-5, model="a=b")
    with RunWriter.create(tmp_path, make_run_record((spec,))) as writer:
        writer.append(make_case_fields(spec))
        writer.close()
    (row, *_) = csv.DictReader(io.StringIO(encode(frame_of([read_run(tmp_path)]), "csv").decode()))
    assert (row["seed"], row["model"]) == ("-5", "a=b")


@given(st.text(max_size=20))
def test_no_text_cell_of_a_csv_begins_like_a_formula(text: str) -> None:
    frame = load_runs(GOLDEN).head(1).assign(model=pd.Series([text], dtype="string"))
    (row,) = csv.DictReader(io.StringIO(encode(frame, "csv").decode(), newline=""))
    assert row["model"].lstrip()[:1] not in set("=+-@＝＋－＠")
    assert row["model"].removeprefix("'") == text.replace("\r\n", "\n").replace("\r", "\n").removeprefix("'")


def test_json_is_strict_and_exact(run_path: Path) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    rows = json.loads(encode(load_runs(run_path), "json"), parse_constant=refuse)
    assert [list(row) for row in rows] == [list(RUN_COLUMNS)] * len(rows)
    energy = next(row for row in rows if row["metric"] == "energy_j")
    assert energy["value"] is None
    assert (energy["batch"], energy["predicted"]) == (1, False)


def test_parquet_keeps_the_dtypes(run_path: Path) -> None:
    frame = load_runs(run_path)
    back = pd.read_parquet(io.BytesIO(encode(frame, "parquet")))
    assert {str(name): str(dtype) for name, dtype in back.dtypes.items()} == RUN_COLUMNS
    assert back.equals(frame)


def test_an_empty_frame_can_be_exported() -> None:
    frame = load_runs([])
    assert encode(frame, "csv").decode() == ",".join(RUN_COLUMNS) + "\n"
    assert json.loads(encode(frame, "json")) == []
    assert len(pd.read_parquet(io.BytesIO(encode(frame, "parquet")))) == 0


def test_a_failing_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.csv"
    write_whole(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match=r"results\.csv: cannot be written: No space left on device"):
        write_whole(path, b"new")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_whole(tmp_path / "link", b"x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"x"


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    # A pipe of our own stands for /dev/stdout and its like: a fault here must not cost a real device.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_whole(pipe, b"x")
        assert pipe.is_fifo()
        assert os.read(reader, 10) == b"x"
    finally:
        os.close(reader)


@pytest.mark.parametrize("format_", ["csv", "json"])
def test_the_command_writes_to_standard_output(run_path: Path, format_: str) -> None:
    result = _invoke("one", f"--{format_}")
    assert result.exit_code == 0
    assert result.stdout_bytes == encode(load_runs(run_path), "csv" if format_ == "csv" else "json")
    assert result.stderr == ""


def test_the_command_writes_a_file(run_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.parquet"
    result = _invoke("runs", "--parquet", "--out", str(out))
    assert (result.exit_code, result.output) == (0, "")
    assert pd.read_parquet(out).equals(load_runs(run_path))


def test_parquet_refuses_a_terminal(run_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _invoke("one", "--parquet").stdout_bytes.startswith(b"PAR1")
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True)
    result = _invoke("one", "--parquet")
    assert isinstance(result.exception, UsageError)
    assert result.stdout_bytes == b""


@pytest.mark.parametrize("flags", [[], ["--csv", "--json"], ["--csv", "--parquet", "--json"]])
def test_exactly_one_format_is_chosen(run_path: Path, flags: list[str]) -> None:
    result = _invoke("one", *flags)
    assert isinstance(result.exception, UsageError)
    assert "choose one of --csv, --parquet, --json and --vllm-json" in str(result.exception)


def test_warnings_go_to_standard_error(run_path: Path) -> None:
    (run_path / "checksums.json").unlink()
    result = _invoke("one", "--json")
    assert "aiprof: runs/one: incomplete" in result.stderr
    assert len(json.loads(result.stdout)) == 8


def test_damaged_and_unknown_runs_end_the_export(run_path: Path) -> None:
    write_example_run(run_path.parent / "two")
    (run_path.parent / "two" / "run.json").unlink()
    damaged = _invoke("runs", "--csv")
    assert isinstance(damaged.exception, InputFileError)
    assert damaged.stdout == ""
    assert isinstance(_invoke("three", "--csv").exception, UsageError)
    assert _invoke("--csv").exit_code == 2
