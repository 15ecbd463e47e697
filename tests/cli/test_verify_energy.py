"""Energies follow from the reads of sensors that a run keeps, and none can be changed unseen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from energy_runs import gpu_environment, sweep
from pyarrow import parquet
from verify_runs import assert_every_byte_counts, copied, edit_case, edit_run

from profiler.analysis.verify import Verification, verify_run
from profiler.results.checksums import sha256_of_file
from profiler.results.read import read_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A case on a library of one GPU at 300 W that is too hot; the fake engine takes real time."""
    environment = gpu_environment(tmp_path_factory.mktemp("nvml"))
    path = tmp_path_factory.mktemp("energy") / "run"
    arguments = ("--device", "cuda", "--scenario", "decode-128", "--concurrency", "1", "--budget", "10s")
    done = sweep(path, *arguments, environment=environment)
    assert done.returncode == 0, done.stderr
    (case,) = read_run(path).cases
    assert any(energy.joules is not None for energy in case.energies)
    return path


def figures(found: Verification) -> set[str]:
    return {figure for item in found.findings for figure in item.figures}


def test_energies_are_made_again_from_the_reads(run: Path) -> None:
    found = verify_run(run)
    assert (found.state, found.findings) == ("verified", ())
    assert "energies" not in found.left_out
    assert "baselines" in found.left_out


def test_any_changed_byte_is_noticed_in_the_reads_of_sensors_too(run: Path, tmp_path: Path) -> None:
    path = copied(run, tmp_path / "run")
    assert any(file.name.endswith(".sensors.parquet") for file in (path / "samples").iterdir())
    assert_every_byte_counts(path, examples=25)


def known(fields: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(energy for energy in fields["energies"] if energy["joules"] is not None)
    return found


def less(fields: dict[str, Any]) -> None:
    """Take a tenth off every energy, and off every figure that follows from it."""
    for energy in fields["energies"]:
        for name in ("joules", "net_j"):
            energy[name] = None if energy[name] is None else 0.9 * energy[name]
    for start in fields["starts"]:
        start["energy_j"] = None if start["energy_j"] is None else 0.9 * start["energy_j"]


def later(fields: dict[str, Any]) -> None:
    for spans in fields["energy_spans"]:
        spans["trials"] = [[moment + 10**8 for moment in span] for span in spans["trials"]]


@pytest.mark.parametrize(
    ("figure", "change"),
    [
        ("energies", less),
        ("energies", lambda fields: known(fields).update(bound_j=1e-6)),
        ("energies", lambda fields: known(fields).update(tokens=10**6)),
        ("energies", lambda fields: known(fields).update(flags=["made_up"])),
        ("energies", lambda fields: fields.update(energy_spans=[])),
        ("energies", lambda fields: fields.update(sensor_samples=None)),
        ("energies", lambda fields: fields["energies"].pop()),
        ("energy_spans", lambda fields: fields["energy_spans"][0]["trials"].pop()),
        ("energy_spans", lambda fields: fields["energy_spans"][0]["trials"][0].__setitem__(2, 2**52)),
        ("energy_j", lambda fields: fields["starts"][0].update(energy_j=1.0)),
        ("polled_device_bytes", lambda fields: fields["starts"][0]["memory"].update(polled_device_bytes=1)),
        ("flags", lambda fields: fields.update(
            flags=[flag for flag in fields["flags"] if flag["code"] != "throttled_thermal"])),
    ],
)  # fmt: skip
def test_an_energy_that_does_not_follow_is_named(
    run: Path, tmp_path: Path, figure: str, change: Callable[[dict[str, Any]], object]
) -> None:
    path = copied(run, tmp_path / "run")
    edit_case(path, change)
    assert figure in figures(verify_run(path))


def test_moved_work_does_not_get_the_energy_of_a_better_moment(run: Path, tmp_path: Path) -> None:
    path = copied(run, tmp_path / "run")
    edit_case(path, later)
    assert verify_run(path).state == "failed"


def rewritten(path: Path, change: Callable[[pyarrow.Table], pyarrow.Table]) -> None:
    """Change the reads of the only case, and make every digest fit."""
    fields = json.loads((path / "cases.jsonl").read_bytes())
    file = path / fields["sensor_samples"]["file"]
    table = change(parquet.read_table(file))
    parquet.write_table(table, file)
    digest = {"sha256": sha256_of_file(file), "rows": table.num_rows}
    edit_case(path, lambda case: case["sensor_samples"].update(digest))


def test_reads_that_say_something_else_are_noticed(run: Path, tmp_path: Path) -> None:
    path = copied(run, tmp_path / "run")

    def slower(table: pyarrow.Table) -> pyarrow.Table:
        values = [None if value is None else 0.9 * value for value in table["value"].to_pylist()]
        return table.set_column(3, "value", pyarrow.array(values))

    rewritten(path, slower)
    assert "energies" in figures(verify_run(path))


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.drop_columns(["call_ns"]),
        lambda table: table.set_column(1, "t_ns", pyarrow.array(["x"] * table.num_rows)),
        lambda table: table.set_column(1, "t_ns", pyarrow.array(list(range(table.num_rows, 0, -1)))),
        lambda table: table.set_column(1, "t_ns", pyarrow.nulls(table.num_rows, pyarrow.int64())),
        lambda table: table.set_column(3, "value", pyarrow.array([1e308] * table.num_rows)),
        lambda table: table.slice(0, 0),
    ],
)
def test_reads_that_make_no_sense_are_a_finding_and_no_crash(
    run: Path, tmp_path: Path, change: Callable[[pyarrow.Table], pyarrow.Table]
) -> None:
    path = copied(run, tmp_path / "run")
    rewritten(path, change)
    assert verify_run(path).state == "failed"


@pytest.mark.parametrize(
    "change",
    [
        lambda sensor: sensor["reading"].update(scale=sensor["reading"]["scale"] * 0.9),
        lambda sensor: sensor["reading"].update(scale=0.0),
        lambda sensor: sensor.update(reading=None),
    ],
)
def test_what_a_read_means_cannot_be_changed_either(
    run: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    path = copied(run, tmp_path / "run")

    def edit(fields: dict[str, Any]) -> None:
        for sensor in fields["sensors"]:
            if sensor["reading"] is not None and sensor["kind"] == "energy_counter":
                change(sensor)

    edit_run(path, edit)
    assert "energies" in figures(verify_run(path))
