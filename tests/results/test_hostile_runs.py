"""A run from another person is hostile input: nothing in it may crash, hang, escape or mislead."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from builders import make_case_fields, make_run_record, make_spec, write_example_run
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import InputFileError
from profiler.results import read
from profiler.results.load import frame_of
from profiler.results.read import printable, read_run
from profiler.results.store import RunWriter


@pytest.fixture
def run_path(tmp_path: Path) -> Path:
    return write_example_run(tmp_path / "run")


def _first_line(path: Path) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((path / "cases.jsonl").read_text().splitlines()[0])
    return fields


def _write_line(path: Path, text: str | bytes) -> None:
    (path / "cases.jsonl").write_bytes((text.encode() if isinstance(text, str) else text) + b"\n")


def _faults(path: Path) -> tuple[str, ...]:
    with pytest.raises(InputFileError) as error:
        read_run(path)
    assert all("\n" not in fault and str(path) in fault for fault in error.value.faults)
    return error.value.faults


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("elapsed_s", "20"),
        ("elapsed_s", True),
        ("elapsed_s", [20]),
        ("simulated", "false"),
        ("simulated", 0),
        ("status", "fine"),
        ("spec", None),
        ("trials", {"0": {}}),
        ("measurements", []),
        ("started_utc", 1769860800),
        ("flags", "simulated"),
    ],
)
def test_wrong_types_are_refused_and_never_converted(run_path: Path, field: str, value: Any) -> None:
    _write_line(run_path, json.dumps(_first_line(run_path) | {field: value}))
    assert any(fault.startswith(f"{run_path}/cases.jsonl:1: {field}") for fault in _faults(run_path))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 400])
@pytest.mark.parametrize("place", ['"value": 50.0', '"threads": 2'])
def test_numbers_that_are_none_are_refused_on_the_way_out(run_path: Path, number: str, place: str) -> None:
    line = json.dumps(_first_line(run_path))
    assert place in line
    if number.isdigit() and "threads" in place:
        return  # a long integer is JSON, and details are nobody's arithmetic
    _write_line(run_path, line.replace(place, f"{place.partition(':')[0]}: {number}"))
    assert _faults(run_path)


def test_the_largest_floats_survive_and_can_be_tabulated(run_path: Path) -> None:
    line = json.dumps(_first_line(run_path)).replace('"value": 50.0', '"value": 1e308')
    _write_line(run_path, line)
    run = read_run(run_path)
    assert run.cases[0].measurements["decode_tokens_per_s"].value == 1e308
    assert frame_of([run])["value"].max() == 1e308


@pytest.mark.parametrize("field", ["batch", "seed", "prompt_tokens"])
def test_integers_beyond_64_bits_are_refused(run_path: Path, field: str) -> None:
    fields = _first_line(run_path)
    fields["spec"][field] = 2**70
    _write_line(run_path, json.dumps(fields))
    assert _faults(run_path)[0].startswith(f"{run_path}/cases.jsonl:1: spec.{field}: ")


@pytest.mark.parametrize("depth", [60, 500, 100_000])
def test_deep_nesting_is_refused_without_exhausting_the_stack(run_path: Path, depth: int) -> None:
    nested = "[" * depth + "]" * depth
    _write_line(run_path, json.dumps(_first_line(run_path)).replace('"threads": 2', f'"threads": {nested}'))
    assert _faults(run_path)


def test_a_huge_line_is_refused_without_reading_it_whole(
    run_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "MAX_LINE_BYTES", 10_000)
    with (run_path / "cases.jsonl").open("ab") as file:
        file.write(b" " * 10_001 + b"\n")
    (fault,) = _faults(run_path)
    assert fault.startswith(f"{run_path}/cases.jsonl:3: line is longer than 10000 bytes")


def test_files_beyond_the_limits_are_refused(run_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A sparse file: large on paper only.
    with (run_path / "cases.jsonl").open("r+b") as file:
        file.truncate(read.MAX_CASES_BYTES + 1)
    assert "more than the" in _faults(run_path)[0]
    monkeypatch.setattr(read, "MAX_RUN_BYTES", 10)
    assert "run.json" in _faults(run_path)[0]


@pytest.mark.parametrize(
    "content", [b"", b"null", b"[]", b"3", b'"x"', b"\xff\xfe", b"{", b'{"schema_version": 1}{']
)
@pytest.mark.parametrize("name", ["run.json", "cases.jsonl"])
def test_what_is_not_a_record_is_refused(run_path: Path, name: str, content: bytes) -> None:
    (run_path / name).write_bytes(content + b"\n")
    assert _faults(run_path)


@pytest.mark.parametrize("version", [None, 0, -1, True, 1.0, "1"])
def test_a_record_must_say_its_version(run_path: Path, version: Any) -> None:
    _write_line(run_path, json.dumps(_first_line(run_path) | {"schema_version": version}))
    assert _faults(run_path) == (f"{run_path}/cases.jsonl:1: no schema_version; not written by aiprof",)


@pytest.mark.parametrize("name", ["run.json", "cases.jsonl"])
def test_a_newer_schema_is_refused_with_the_way_out(run_path: Path, name: str) -> None:
    path = run_path / name
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2', 1))
    (fault,) = _faults(run_path)
    assert "schema version 2 is newer than 1" in fault
    assert fault.endswith("upgrade aiprof")


def test_all_damaged_lines_are_named_at_once(run_path: Path) -> None:
    lines = (run_path / "cases.jsonl").read_text().splitlines()
    _write_line(run_path, "\n".join(['{"schema_version": 1}'[:-1], "", lines[0].replace('"ok"', '"oh"')]))
    assert [fault.split(": ")[0] for fault in _faults(run_path)] == [
        f"{run_path}/cases.jsonl:{number}" for number in (1, 2, 3)
    ]


def test_faults_are_limited_and_cannot_steer_a_terminal(run_path: Path) -> None:
    surprise = {f"\x1b[31m\u202e{number}" + "x" * 5000: number for number in range(1000)}
    _write_line(run_path, json.dumps(_first_line(run_path) | surprise))
    faults = _faults(run_path)
    assert 1 < len(faults) <= read.MAX_FAULTS
    assert all(len(fault) < 1000 and fault.isprintable() for fault in faults)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "samples/../run.json", f"samples/{'A' * 64}.parquet", "/etc/passwd", ""]
)
def test_file_names_outside_the_run_are_refused(run_path: Path, name: str) -> None:
    fields = _first_line(run_path)
    fields["samples"]["file"] = name
    _write_line(run_path, json.dumps(fields))
    assert "samples.file" in _faults(run_path)[0]


@pytest.mark.parametrize("name", ["run.json", "cases.jsonl"])
def test_links_are_not_followed(run_path: Path, tmp_path: Path, name: str) -> None:
    (run_path / name).rename(tmp_path / name)
    (run_path / name).symlink_to(tmp_path / name)
    assert _faults(run_path) == (f"{run_path / name}: is a link; a run holds only files of its own",)


@pytest.mark.parametrize("name", ["run.json", "cases.jsonl"])
def test_pipes_and_folders_are_refused_without_waiting(run_path: Path, name: str) -> None:
    (run_path / name).unlink()
    os.mkfifo(run_path / name)
    assert _faults(run_path) == (f"{run_path / name}: not a regular file",)
    (run_path / name).unlink()
    (run_path / name).mkdir()
    assert _faults(run_path) == (f"{run_path / name}: not a regular file",)


def test_a_folder_that_is_no_run_is_said_to_be_none(tmp_path: Path) -> None:
    (fault,) = _faults(tmp_path)
    assert fault == (
        f"{tmp_path}/run.json: cannot be read: No such file or directory; give the folder that a sweep wrote"
    )


def test_html_and_markup_in_names_stay_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>[bold red]{{ 7 * 7 }}\x1b[2J"
    spec = make_spec(model=evil)
    with RunWriter.create(tmp_path, make_run_record((spec,))) as writer:
        writer.append(make_case_fields(spec))
        writer.close()
    run = read_run(tmp_path)
    assert run.cases[0].spec.model == evil
    assert set(frame_of([run])["model"]) == {evil}


@given(st.text())
def test_printable_text_is_one_harmless_line(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert (shown == text) == text.isprintable()


@given(st.binary(max_size=300))
def test_no_bytes_at_all_raise_anything_but_an_input_file_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("run")
    (path / "run.json").write_bytes(content)
    with pytest.raises(InputFileError):
        read_run(path)
