"""``aiprof hardware``: what it prints, for people and for programs; measured ceilings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders import make_run_record
from click.testing import CliRunner, Result

from profiler.cli.hardware import command
from profiler.errors import UsageError
from profiler.hardware.catalogue import catalogue
from profiler.results.store import RunWriter


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def run_json(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_table_has_a_row_for_every_part() -> None:
    result = run()
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.strip()}
    assert set(catalogue()) <= set(rows)
    assert rows["t-head-ppu"][4:8] == ["GiB", "–", "–", "–"]
    assert "no" in rows["a100-sxm"]


def test_one_part_shows_the_source_of_every_number() -> None:
    text = run("h20").stdout
    assert "550 W" in text
    assert "Epoch AI" in text
    assert "not legal advice" in text
    assert "bandwidth unpublished" in run("t-head-ppu").stdout


def test_json_is_in_base_units_with_sources() -> None:
    document = run_json("h200")
    assert document["memory_bandwidth_bytes_per_s"]["value"] == 4.8e12
    assert document["memory_bandwidth_bytes_per_s"]["licence"] == "Apache-2.0"
    assert document["flops"]["bf16"]["value"] == 989e12
    assert len(run_json()) == len(catalogue())


def test_an_unknown_name_is_refused() -> None:
    result = run("h101")
    assert isinstance(result.exception, UsageError)
    assert "did you mean" in str(result.exception)


def measured_run(tmp_path: Path, name: str, **changes: Any) -> Path:
    record = make_run_record(**changes)
    device = record.devices[0].model_copy(update={"name": name})
    RunWriter.create(tmp_path / "run", record.model_copy(update={"devices": (device,)})).close()
    return tmp_path / "run"


def test_a_run_replaces_the_datasheet(tmp_path: Path) -> None:
    path = measured_run(tmp_path, "NVIDIA H100 80GB HBM3")
    document = run_json("h100-sxm", "--measured", str(path))
    bandwidth = document["memory_bandwidth_bytes_per_s"]
    assert bandwidth["confidence"] == "measured"
    assert bandwidth["value"] != 3.35e12
    assert bandwidth["source"].startswith("run ")
    assert "memory_bandwidth" in document["measured"]
    assert document["tdp_w"]["confidence"] == "high"


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("NVIDIA H200", {}, "measured 'NVIDIA H200', which is not NVIDIA H100 SXM"),
        ("NVIDIA H100 80GB HBM3", {"simulated": True}, "is simulated"),
        ("NVIDIA H100 80GB HBM3", {"ceilings": ()}, "measured no read bandwidth"),
    ],
)
def test_a_run_that_cannot_serve(tmp_path: Path, name: str, changes: dict[str, Any], message: str) -> None:
    path = measured_run(tmp_path, name, **changes)
    result = run("h100-sxm", "--measured", str(path))
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)
    assert isinstance(run("--measured", str(path)).exception, UsageError)
