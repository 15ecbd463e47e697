"""Recordings of sensors: what is written comes back, and what is damaged is refused in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from simulated_reads import COUNTER, Meter, random_profile

from profiler.backends.base import Unavailable
from profiler.errors import InputFileError, UsageError
from profiler.sensors.base import SensorInfo
from profiler.sensors.recording import (
    ClockPair,
    Recording,
    RecordingHeader,
    read_recording,
)
from profiler.sensors.recording_writer import RecordingWriter, read_clocks
from profiler.sensors.ticks import Series, series

SEED = 20261123
LOST = SensorInfo("test:other/power", "test", "other", "power_instant", "board", "W",
                  unavailable=Unavailable("lost", "it is gone", "look"))  # fmt: skip


def reads() -> Series:
    rng = np.random.default_rng(SEED)
    return Meter().counter(rng, random_profile(rng, "bursts", 4.0), 3.5)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "power.parquet"
    with RecordingWriter(path, "cpu-0123456789ab", [COUNTER, LOST]) as writer:
        whole = reads()
        half = int(whole.t_after_ns[len(whole) // 2])
        writer.add(COUNTER.key, whole.between(0, half))
        assert not path.exists()
        writer.add(COUNTER.key, whole)
        writer.add(COUNTER.key, whole)
    return path


def test_what_is_written_comes_back(recording: Path) -> None:
    found, whole = read_recording(recording), reads()
    back = found.series(COUNTER.key)
    for name in ("t_before_ns", "t_after_ns", "raw", "failure"):
        np.testing.assert_array_equal(getattr(back, name), getattr(whole, name))
    assert found.sensors == {COUNTER.key: COUNTER, LOST.key: LOST}
    assert len(found.series(LOST.key)) == 0
    assert found.header.box == "cpu-0123456789ab"
    assert found.header.start.monotonic_ns <= found.header.end.monotonic_ns
    assert [path.name for path in recording.parent.iterdir()] == ["power.parquet"]


def test_energy_of_a_recording_is_that_of_its_reads(recording: Path) -> None:
    found = read_recording(recording)
    moments = found.series(COUNTER.key).t_after_ns
    energy = found.energy(COUNTER.key, int(moments[-1]) - 2 * 10**9, int(moments[-1]) - 5 * 10**8)
    assert energy.joules is not None
    assert energy.method == "counter_tick_interpolated"


def test_moments_of_another_machine_are_found_by_the_wall_clock() -> None:
    """The wall clock went 3 ms further than the other one in 10 s, as a slewed one does."""
    start = ClockPair(monotonic_ns=5 * 10**9, realtime_ns=10**18, uncertainty_ns=50)
    end = ClockPair(monotonic_ns=15 * 10**9, realtime_ns=10**18 + 10_003_000_000, uncertainty_ns=50)
    header = RecordingHeader(aiprof_version="0", box="b", simulated=True, sensors=(), start=start, end=end)
    found = Recording(header, {})
    assert found.clock_drift_ns() == 3_000_000
    assert found.monotonic_ns(start.realtime_ns) == start.monotonic_ns
    assert found.monotonic_ns(end.realtime_ns) == end.monotonic_ns
    assert abs(found.monotonic_ns(10**18 + 5_001_500_000) - 10 * 10**9) <= 1


def test_both_clocks_are_read_together() -> None:
    first, second = read_clocks(), read_clocks()
    apart = (second.realtime_ns - first.realtime_ns) - (second.monotonic_ns - first.monotonic_ns)
    # A wall clock that is set between the two reads would fail this; that takes an administrator.
    assert abs(apart) <= first.uncertainty_ns + second.uncertainty_ns + 10**9


def refused(path: Path) -> str:
    with pytest.raises(InputFileError) as caught:
        read_recording(path)
    assert len(caught.value.faults) == 1
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_damaged_byte_is_refused_or_changes_nothing(recording: Path, tmp_path: Path) -> None:
    content, whole = recording.read_bytes(), reads()
    rng = np.random.default_rng(SEED)
    damaged = tmp_path / "damaged.parquet"
    harmless = 0
    for at in rng.integers(0, len(content), 150):
        changed = bytearray(content)
        changed[at] ^= 1 << int(rng.integers(0, 8))
        damaged.write_bytes(bytes(changed))
        try:
            back = read_recording(damaged).series(COUNTER.key)
        except InputFileError:
            continue
        harmless += 1
        np.testing.assert_array_equal(back.raw, whole.raw, err_msg=f"seed {SEED}, byte {at}")
        np.testing.assert_array_equal(back.t_before_ns, whole.t_before_ns)
    assert harmless < 100  # most of the file is data


@pytest.mark.parametrize("keep", [0, 3, 100, -1, -200])
def test_a_torn_file_is_refused(recording: Path, tmp_path: Path, keep: int) -> None:
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(recording.read_bytes()[:keep])
    assert "damaged" in refused(torn)


def rewritten(recording: Path, **changes: object) -> Path:
    table = pq.read_table(recording)
    header = json.loads(pq.read_metadata(recording).metadata[b"aiprof_power"])
    for key, value in changes.items():
        header[key] = value
    pq.write_table(table.replace_schema_metadata({b"aiprof_power": json.dumps(header).encode()}), recording)
    return recording


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scale", 0.0),
        ("scale", -1.0),
        ("scale", 5e-324),
        ("max_power_w", 1e308),
        ("wraps_at", 10**400),
        ("tick_s", 1e300),
        ("tick_s", -1.0),
    ],
)
def test_a_sensor_that_cannot_be_is_refused(recording: Path, field: str, value: float) -> None:
    header = json.loads(pq.read_metadata(recording).metadata[b"aiprof_power"])
    header["sensors"][0][field] = value
    assert "no sensor has" in refused(rewritten(recording, sensors=header["sensors"]))


def test_what_is_no_recording_is_refused(recording: Path, tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("power,seconds\n1,2\n")
    assert "no Parquet file" in refused(tmp_path / "text.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    assert "no recording" in refused(tmp_path / "other.parquet")
    assert "version 2" in refused(rewritten(recording, version=2))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("sensors", [], "not among its sensors"),
        ("sensors", "no list", "sensors"),
        ("start", {"monotonic_ns": -1, "realtime_ns": 0, "uncertainty_ns": 0}, "start.monotonic_ns"),
        ("more", 1, "more"),
        ("version", "one", "version"),
    ],
)
def test_a_wrong_description_is_refused(recording: Path, field: str, value: object, words: str) -> None:
    assert words in refused(rewritten(recording, **{field: value}))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([(5, 6, 1, 0), (3, 4, 1, 0)], "not in order"),
        ([(5, 4, 1, 0)], "not in order"),
        ([(5, 6, 1, 99)], "does not exist"),
    ],
)
def test_impossible_reads_are_refused(tmp_path: Path, rows: list[tuple[int, ...]], words: str) -> None:
    path = tmp_path / "power.parquet"
    with RecordingWriter(path, "b", [COUNTER]) as writer:
        for row in rows:
            writer._last_ns[COUNTER.key] = -1
            writer.add(COUNTER.key, series([row]))
    assert words in refused(path)


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--record .*nowhere"):
        RecordingWriter(tmp_path / "nowhere" / "power.parquet", "b", [])


def test_nothing_is_left_of_a_recording_that_failed(tmp_path: Path) -> None:
    def interrupted() -> None:
        with RecordingWriter(tmp_path / "p.parquet", "b", [COUNTER]) as writer:
            writer.add(COUNTER.key, reads())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_column_name_that_is_no_text_is_refused(recording: Path) -> None:
    whole, refused = recording.read_bytes(), 0
    for place in (found.start() for found in re.finditer(b"sensor|raw|failure", whole)):
        recording.write_bytes(whole[:place] + b"\xb3" + whole[place + 1 :])
        try:
            read_recording(recording)
        except InputFileError:
            refused += 1  # some of the places are nobody's name
    assert refused > 2
