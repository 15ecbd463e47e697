"""Writes recordings of sensors; what is in them stands in ``recording.py``."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from profiler import __version__
from profiler.errors import UsageError
from profiler.sensors.base import SensorInfo
from profiler.sensors.recording import KEY, SCHEMA, ClockPair, RecordingHeader
from profiler.sensors.ticks import Series

_CLOCK_TRIES = 7
_FOREVER = (1 << 63) - 1


def read_clocks() -> ClockPair:
    """Read both clocks as close together as a few tries allow."""
    pairs = []
    for _ in range(_CLOCK_TRIES):
        before = time.monotonic_ns()
        wall = time.time_ns()
        after = time.monotonic_ns()
        pairs.append((after - before, (before + after) // 2, wall))
    apart, monotonic, wall = min(pairs)
    return ClockPair(monotonic_ns=monotonic, realtime_ns=wall, uncertainty_ns=(apart + 1) // 2)


class RecordingWriter:
    """Writes a recording; the file appears under its name when it is complete.

    Args:
        path: the file.
        box: see :class:`RecordingHeader`.
        sensors: that will be read.

    Raises:
        UsageError: the file cannot be written.
    """

    def __init__(self, path: Path, box: str, sensors: list[SensorInfo]) -> None:
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._box = box
        self._sensors = sensors
        self._start = read_clocks()
        self.rows = 0
        self._last_ns: dict[str, int] = {info.key: -1 for info in sensors}
        try:
            self._file = self._part.open("wb")
            self._writer = pq.ParquetWriter(self._file, SCHEMA, compression="zstd", write_page_checksum=True)
        except OSError as error:
            raise _cannot_write(path, error) from error

    @property
    def keys(self) -> tuple[str, ...]:
        """The sensors of the recording."""
        return tuple(self._last_ns)

    def __enter__(self) -> RecordingWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._close()
            return
        self._part.unlink(missing_ok=True)
        try:
            self._writer.close()
            self._file.close()
        except OSError:  # a full disk, which is what ended the recording
            pass

    def add(self, key: str, reads: Series) -> None:
        """Append those reads of one sensor that are later than all before.

        Raises:
            UsageError: the file cannot be written.
        """
        reads = reads.between(self._last_ns[key] + 1, _FOREVER)
        if not len(reads):
            return
        self._last_ns[key] = int(reads.t_after_ns[-1])
        numbers = pa.array(np.zeros(len(reads), dtype=np.int16))
        columns = [
            pa.DictionaryArray.from_arrays(numbers, pa.array([key])),
            *(pa.array(column) for column in (reads.t_before_ns, reads.t_after_ns, reads.raw)),
            pa.array(reads.failure.astype(np.int16)),
        ]
        try:
            self._writer.write_table(pa.table(columns, schema=SCHEMA))
        except OSError as error:
            raise _cannot_write(self._path, error) from error
        self.rows += len(reads)

    def _close(self) -> None:
        header = RecordingHeader(
            aiprof_version=__version__,
            box=self._box,
            simulated=any(info.simulated for info in self._sensors),
            sensors=tuple(self._sensors),
            start=self._start,
            end=read_clocks(),
        )
        plain = {**header.model_dump(), "sensors": [asdict(info) for info in self._sensors]}
        try:
            self._writer.add_key_value_metadata({KEY: json.dumps(plain, allow_nan=False).encode()})
            self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._part.replace(self._path)
        except OSError as error:
            raise _cannot_write(self._path, error) from error


def _cannot_write(path: Path, error: OSError) -> UsageError:
    return UsageError(f"--record {path}: cannot be written ({error.strerror or error}); name another file")
