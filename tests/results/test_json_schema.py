"""The published JSON Schemas: up to date, and true of what aiprof writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from builders import write_example_run

from profiler.results.json_schema import FILES, schema_text, write_schemas

FOLDER = Path(__file__).parents[2] / "docs" / "schema"


def _schema(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((FOLDER / name).read_text())
    return schema


@pytest.mark.parametrize("name", list(FILES))
def test_the_files_are_what_the_code_says(name: str) -> None:
    """If this fails: ``python -m profiler.results.json_schema docs/schema``."""
    assert (FOLDER / name).read_text() == schema_text(FILES[name])


def test_no_other_file_is_published() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(FILES)


@pytest.mark.parametrize("close", [True, False])
def test_a_written_run_is_valid(tmp_path: Path, close: bool) -> None:
    path = write_example_run(tmp_path / "run", close=close)
    validator = jsonschema.Draft202012Validator
    for name in FILES:
        validator.check_schema(_schema(name))
    validator(_schema("run.schema.json")).validate(json.loads((path / "run.json").read_text()))
    lines = (path / "cases.jsonl").read_text().splitlines()
    assert len(lines) == 2
    for line in lines:
        validator(_schema("case.schema.json")).validate(json.loads(line))


@pytest.mark.parametrize(
    ("field", "value"),
    [("elapsed_s", "20"), ("status", "fine"), ("schema_version", 2), ("prev_sha256", "x"), ("surprise", 1)],
)
def test_a_wrong_record_is_not_valid(tmp_path: Path, field: str, value: Any) -> None:
    path = write_example_run(tmp_path / "run")
    case = json.loads((path / "cases.jsonl").read_text().splitlines()[0])
    validator = jsonschema.Draft202012Validator(_schema("case.schema.json"))
    assert validator.is_valid(case)
    assert not validator.is_valid(case | {field: value})
    assert not validator.is_valid({name: case[name] for name in case if name != "trials"})


@pytest.mark.parametrize(("value", "reason"), [(None, None), (1.0, "none")])
def test_the_schema_knows_that_a_measurement_has_a_value_or_a_reason(
    tmp_path: Path, value: float | None, reason: str | None
) -> None:
    path = write_example_run(tmp_path / "run")
    case = json.loads((path / "cases.jsonl").read_text().splitlines()[0])
    case["measurements"]["prefill_s"] |= {"value": value, "reason": reason}
    assert not jsonschema.Draft202012Validator(_schema("case.schema.json")).is_valid(case)


def test_the_module_writes_the_files(tmp_path: Path) -> None:
    write_schemas(tmp_path / "schema")
    assert {path.name for path in (tmp_path / "schema").iterdir()} == set(FILES)
    usage = subprocess.run(
        [sys.executable, "-m", "profiler.results.json_schema"], capture_output=True, text=True, check=False
    )
    assert usage.returncode == 1
    assert usage.stderr.startswith("usage: ")
