"""Reads of sensors in a file, with what is needed to place them beside a run on another machine.

A Parquet file with one row per read (``sensor, t_before_ns, t_after_ns, raw, failure``). Its metadata hold
the sensors, the box, and what CLOCK_MONOTONIC and the wall clock showed at the same moment, when it began and
when it ended: all stamps are of this machine's CLOCK_MONOTONIC, which means nothing elsewhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from profiler.errors import InputFileError
from profiler.sensors.base import READ_FAILURES, Energy, SensorInfo
from profiler.sensors.power import power_energy
from profiler.sensors.ticks import Series
from profiler.sensors.window import counter_energy

FORMAT_VERSION: Final = 1
KEY: Final = b"aiprof_power"
"""Where the metadata of a file hold its header."""

SCHEMA: Final = pa.schema(
    [
        ("sensor", pa.dictionary(pa.int16(), pa.string())),
        ("t_before_ns", pa.int64()),
        ("t_after_ns", pa.int64()),
        ("raw", pa.int64()),
        ("failure", pa.int16()),
    ]
)
# Far beyond any meter.
_LEAST_SCALE = 1e-15
_MOST = {
    "max_power_w": 1e9, "wraps_at": 2**64, "tick_s": 1e6, "average_window_s": 1e6, "poll_hz": 1e6,
    "resolution": 2**53, "nominal": 2**63,
}  # fmt: skip


class ClockPair(BaseModel):
    """What both clocks showed at one moment.

    Attributes:
        monotonic_ns: CLOCK_MONOTONIC, in the middle of reading the other.
        realtime_ns: the wall clock.
        uncertainty_ns: the two were read at most this far apart.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    monotonic_ns: int = Field(ge=0)
    realtime_ns: int = Field(ge=0)
    uncertainty_ns: int = Field(ge=0)


class RecordingHeader(BaseModel):
    """The metadata of a recording.

    Attributes:
        version: of this format.
        aiprof_version: of the tool that wrote it.
        box: key of the box's CPU, which names the box without naming its owner.
        simulated: whether a sensor did not belong to hardware.
        sensors: what was read.
        start: both clocks when it began.
        end: both clocks when it ended.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    version: Literal[1] = FORMAT_VERSION
    aiprof_version: str
    box: str
    simulated: bool
    sensors: tuple[SensorInfo, ...]
    start: ClockPair
    end: ClockPair

    @field_validator("sensors")
    @classmethod
    def _could_be_read(cls, sensors: tuple[SensorInfo, ...]) -> tuple[SensorInfo, ...]:
        if len({info.key for info in sensors}) != len(sensors):
            raise ValueError("a sensor is listed twice")
        for info in sensors:
            if not _LEAST_SCALE <= info.scale <= 1 / _LEAST_SCALE:
                raise ValueError(f"{info.key} has a scale of {info.scale:g} per count, which no sensor has")
            for name, most in _MOST.items():
                value = getattr(info, name)
                if value is not None and not 0 <= value <= most:
                    raise ValueError(f"{info.key} has a {name} that no sensor has")
        return sensors


class Recording:
    """A recording that was read.

    Attributes:
        header: sensors, box and clocks.
    """

    def __init__(self, header: RecordingHeader, reads: dict[str, Series]) -> None:
        self.header = header
        self._reads = reads

    @property
    def sensors(self) -> dict[str, SensorInfo]:
        """The sensors by key."""
        return {info.key: info for info in self.header.sensors}

    def series(self, key: str) -> Series:
        """Return the reads of a sensor, in order.

        Raises:
            KeyError: it is not in the recording.
        """
        return self._reads[key]

    def monotonic_ns(self, realtime_ns: int) -> int:
        """Return the recording's own time at a moment of the wall clock.

        Straight between the two pairs of clocks: a wall clock that was set or slewed meanwhile is followed on
        average only (:meth:`clock_drift_ns` says by how much it was).
        """
        start, end = self.header.start, self.header.end
        wall, own = end.realtime_ns - start.realtime_ns, end.monotonic_ns - start.monotonic_ns
        if wall <= 0:
            return realtime_ns - start.realtime_ns + start.monotonic_ns
        return start.monotonic_ns + round((realtime_ns - start.realtime_ns) * (own / wall))

    def clock_drift_ns(self) -> int:
        """Return how much further the wall clock went than CLOCK_MONOTONIC while it was recorded."""
        start, end = self.header.start, self.header.end
        return (end.realtime_ns - start.realtime_ns) - (end.monotonic_ns - start.monotonic_ns)

    def energy(self, key: str, t0_ns: int, t1_ns: int) -> Energy:
        """Return the energy of one sensor over a window in the recording's own time.

        Raises:
            KeyError: it is not in the recording.
        """
        info, reads = self.sensors[key], self._reads[key]
        if info.kind == "energy_counter":
            return counter_energy(reads, info, t0_ns, t1_ns)
        return power_energy(reads, info, t0_ns, t1_ns)


def read_recording(path: Path) -> Recording:
    """Read a recording and check all of it: pages against their checksums, times, sensors.

    Raises:
        InputFileError: it cannot be read, is damaged or is no recording; one line.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            text = (file.metadata.metadata or {}).get(KEY)
            if text is None:
                raise _refused(path, "is a Parquet file, but no recording of aiprof power")
            header = _header(path, text)
            if file.schema_arrow.names != SCHEMA.names:
                raise _refused(path, "is damaged: its columns are not those of a recording")
            table = file.read().cast(SCHEMA)
            # Damage that no checksum covers shows only when the columns are looked into.
            table.validate(full=True)
        return Recording(header, _reads(path, header, table))
    except FileNotFoundError as error:
        raise _refused(path, "there is no such file") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise _refused(path, f"is damaged or no Parquet file ({line[:120]})") from error


def _header(path: Path, text: bytes) -> RecordingHeader:
    try:
        document = json.loads(text)
        version = document["version"]
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise _refused(path, f"has version {version} of the format; this aiprof reads {FORMAT_VERSION}")
        return TypeAdapter(RecordingHeader).validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _refused(path, f"is damaged: {where}: {first['msg']}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _refused(path, "is damaged: its description cannot be read") from error


def _reads(path: Path, header: RecordingHeader, table: pa.Table) -> dict[str, Series]:
    if any(column.null_count for column in table.columns):
        raise _refused(path, "is damaged: values are missing")
    names = np.asarray(table["sensor"].cast(pa.string()).to_pylist(), dtype=object)
    unknown = sorted({str(name) for name in names} - {info.key for info in header.sensors})
    if unknown:
        raise _refused(path, f"is damaged: it has reads of {unknown[0]}, which is not among its sensors")
    columns = [table[name].to_numpy().astype(np.int64) for name in SCHEMA.names[1:]]
    reads: dict[str, Series] = {}
    for info in header.sensors:
        own = names == info.key
        one = Series(*(column[own] for column in columns))
        if (np.diff(one.t_before_ns) < 0).any() or (one.t_after_ns < one.t_before_ns).any():
            raise _refused(path, f"is damaged: the reads of {info.key} are not in order of time")
        if ((one.failure < 0) | (one.failure >= len(READ_FAILURES))).any():
            raise _refused(path, f"is damaged: {info.key} has a failure that does not exist")
        reads[info.key] = one
    return reads


def _refused(path: Path, what: str) -> InputFileError:
    return InputFileError([f"{path}: {what}; record it again with `aiprof power --record FILE`"])
