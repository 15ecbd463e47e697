"""Power over time in the report: what is drawn, what is kept when it is thinned, and files from strangers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import make_case_fields, make_run_record, make_spec
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.errors import InputFileError
from profiler.render.charts_power import MAX_POINTS, Course, power_figure, thinned
from profiler.render.report_energy import box_table, energy_table
from profiler.render.report_subjects import collect
from profiler.results.read import Run, read_run
from profiler.results.schema import (
    EnergyRecord,
    Measurement,
    PhaseRecord,
    PlanSettings,
    SamplesRef,
    SensorRecord,
)
from profiler.results.sensor_samples import read_sensor_samples
from profiler.results.store import RunWriter

GPU = "nvml:GPU-1"
SECONDS = 60


def sensor(name: str, kind: str, unit: str) -> SensorRecord:
    return SensorRecord(
        key=f"{GPU}/{name}", source="nvml", device="GPU-1", kind=kind, scope="board", unit=unit, sampled=True
    )


def energy(covers: str, joules: float) -> EnergyRecord:
    return EnergyRecord(
        start=0, phase="trials", covers=covers, scope="board", sensors=(f"{GPU}/energy",), joules=joules,
        bound_j=0.01 * joules, window_s=50.0, active_s=50.0, tokens=1000, method="counter_tick_interpolated",
    )  # fmt: skip


def columns() -> dict[str, Any]:
    """A counter that is new every 100 ms at 300 W, with one second of 600 W, and two states."""
    t_ns = (np.arange(SECONDS * 100) * 10_000_000).astype(np.int64)
    seconds = t_ns * 1e-9
    joules = 300.0 * seconds + 300.0 * np.clip(seconds - 30.0, 0.0, 1.0)
    joules = np.interp(np.floor(seconds * 10) / 10, seconds, joules)
    slow = t_ns[::50]
    return {
        "sensor": [
            *[f"{GPU}/energy"] * len(t_ns),
            *[f"{GPU}/temperature"] * len(slow),
            *[f"{GPU}/sm_clock"] * len(slow),
        ],
        "t_ns": np.concatenate([t_ns, slow, slow]),
        "call_ns": np.full(len(t_ns) + 2 * len(slow), 1000),
        "value": np.concatenate([joules, 50 + slow * 1e-9 / 3, np.full(len(slow), 1.98e9)]),
        "failure": [None] * (len(t_ns) + 2 * len(slow)),
    }


def write(path: Path, *, soak: bool = False) -> Run:
    settings_ = PlanSettings(
        preset="quick",
        budget_s=300.0,
        starts=1,
        target_relative_half_width=0.02,
        repeat_on_interference=False,
        soak_s=50.0 if soak else None,
    )
    spec = make_spec()
    sensors = (
        sensor("energy", "energy_counter", "J"), sensor("temperature", "temperature", "degC"),
        sensor("memory_clock", "clock", "Hz"), sensor("sm_clock", "clock", "Hz"),
    )  # fmt: skip
    phases = (
        PhaseRecord(start=0, phase="warm-up", begin_s=2.0, end_s=8.0),
        PhaseRecord(start=0, phase="trials", begin_s=8.0, end_s=58.0),
    )
    figure = Measurement(value=15.0, unit="J/token", ci95=(14.9, 15.1), n=1, method="counter", scope="board")
    with RunWriter.create(path, make_run_record((spec,), settings=settings_, sensors=sensors)) as writer:
        ref = writer.write_samples(spec.case_id, columns(), suffix=".sensors")
        fields = make_case_fields(
            spec, phases=phases, energies=(energy("device", 15_000.0), energy("wall", 30_000.0)),
            sensor_samples=ref,
        )  # fmt: skip
        fields["measurements"] = {**fields["measurements"], "energy_per_output_token_j": figure}
        writer.append(fields)
        writer.close()
    return read_run(path)


def test_power_is_drawn_with_its_phases_and_peak(tmp_path: Path) -> None:
    figure = power_figure(collect([write(tmp_path / "run")])[1])
    assert figure is not None
    (panel,) = figure.panels
    assert "600 W" in panel.svg
    assert "240 points" in figure.caption
    assert [entry.text for entry in figure.legend] == [
        "measured trials",
        "repeated for their energy",
        "warm-up",
    ]
    (row,) = figure.table.rows
    texts = [cell.text for cell in row.cells]
    assert texts[-6:] == ["W", "300", "306", "600", "300", "300"]


def test_a_soak_has_temperature_and_clock_too(tmp_path: Path) -> None:
    figure = power_figure(collect([write(tmp_path / "run", soak=True)])[1])
    assert figure is not None
    rows = {row.cells[-7].text: [cell.text for cell in row.cells[-6:]] for row in figure.table.rows}
    assert set(rows) == {"power", "temperature", "clock"}
    # A third of a degree per second: the last third of 50 s is 33 s later than the first.
    assert float(rows["temperature"][-1]) - float(rows["temperature"][-2]) == pytest.approx(11.1, abs=0.3)
    assert rows["clock"][-2:] == ["1,980", "1,980"]


def test_joules_per_token_of_the_device_and_watts_of_the_box(tmp_path: Path) -> None:
    entries = collect([write(tmp_path / "run")])[1]
    (row,) = energy_table(entries).rows
    assert "15.0" in [cell.text for cell in row.cells]
    (row,) = box_table(entries).rows
    assert [cell.text for cell in row.cells[-4:]] == ["wall", "board", "600", "30.0"]


@settings(deadline=None)
@given(st.lists(st.floats(0, 1000), min_size=1, max_size=3000))
def test_thinning_keeps_extremes_order_and_the_limit(values: list[float]) -> None:
    course = Course("power", "W", np.arange(len(values), dtype=float), np.array(values))
    kept = thinned(course)
    assert len(kept) <= MAX_POINTS
    assert max(value for _, value in kept) == max(values)
    assert min(value for _, value in kept) == min(values)
    moments = [moment for moment, _ in kept]
    assert moments == sorted(moments)


def test_a_file_that_is_gone_or_edited_is_left_out(tmp_path: Path) -> None:
    run = write(tmp_path / "run")
    ref = run.cases[0].sensor_samples
    assert ref is not None
    path = run.path / ref.file
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(InputFileError, match="was edited"):
        read_sensor_samples(run.path, ref, [f"{GPU}/energy"])
    assert power_figure(collect([run])[1]) is None
    path.unlink()
    assert power_figure(collect([run])[1]) is None


@pytest.mark.parametrize(
    "content", [b"", b"PAR1 nothing of that kind PAR1", b"PAR1" + b"\xff" * 500 + b"PAR1"]
)
def test_what_is_no_parquet_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "samples").mkdir()
    name = f"samples/{'0' * 64}.sensors.parquet"
    (tmp_path / name).write_bytes(content)
    ref = SamplesRef(file=name, sha256=hashlib.sha256(content).hexdigest(), rows=1)
    with pytest.raises(InputFileError, match="cannot be read as Parquet") as caught:
        read_sensor_samples(tmp_path, ref, ["x"])
    assert "\n" not in str(caught.value)
