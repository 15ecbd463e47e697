"""Reads of sensors from a run on disk, which may come from another person: sizes are checked first."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from profiler.errors import InputFileError
from profiler.results.read import read_limited, sha256_of
from profiler.results.schema import SamplesRef
from profiler.results.stamps import read_columns

MAX_BYTES: Final = 256 * 2**20
MAX_ROWS: Final = 20_000_000
_COLUMNS: Final = ("sensor", "t_ns", "value")


READ_COLUMNS: Final = ("sensor", "t_ns", "call_ns", "value", "failure")


def read_reads(run: Path, ref: SamplesRef) -> dict[str, NDArray[Any]]:
    """Return every read of every sensor in one case, as columns of equal length.

    Raises:
        InputFileError: the file is missing, too large, damaged, or not the one that was recorded.
    """
    import pyarrow

    found = read_columns(run, ref)
    if tuple(found) != READ_COLUMNS:
        raise InputFileError([f"{run / ref.file}: does not have the columns {', '.join(READ_COLUMNS)}"])
    kinds = {"sensor": "string", "t_ns": "int64", "call_ns": "int64", "value": "float64", "failure": "string"}
    try:
        columns = {name: column.cast(kinds[name]) for name, column in found.items()}
        if any(columns[name].null_count for name in ("sensor", "t_ns", "call_ns")):
            raise ValueError("values are missing")
        return {name: column.to_numpy(zero_copy_only=False) for name, column in columns.items()}
    except (pyarrow.ArrowException, ValueError) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputFileError([f"{run / ref.file}: does not hold reads of sensors: {line[:200]}"]) from None


@dataclass(frozen=True)
class SensorSeries:
    """Good reads of one sensor, in order.

    Attributes:
        seconds: since the origin of the case, on the axis of its ``phases``.
        values: in the sensor's unit.
    """

    seconds: NDArray[np.float64]
    values: NDArray[np.float64]


def read_sensor_samples(run: Path, ref: SamplesRef, keys: Iterable[str]) -> dict[str, SensorSeries]:
    """Return the reads of some sensors in one case; a key without reads is not in the answer.

    Raises:
        InputFileError: the file is missing, too large, damaged, or not the one that was recorded.
    """
    import pyarrow
    from pyarrow import parquet

    path = run / ref.file
    data = read_limited(path, MAX_BYTES)
    if sha256_of(data) != ref.sha256:
        raise InputFileError([f"{path}: is not the file that the case recorded; it was edited"])
    try:
        file = parquet.ParquetFile(io.BytesIO(data))
        if file.metadata.num_rows > MAX_ROWS:
            raise InputFileError([f"{path}: {file.metadata.num_rows} rows, more than {MAX_ROWS}"])
        table = file.read(columns=list(_COLUMNS))
        names = table["sensor"].to_numpy(zero_copy_only=False)
        seconds = _numbers(table["t_ns"]) * 1e-9
        values = _numbers(table["value"])
    except (pyarrow.ArrowException, KeyError, ValueError, OSError) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputFileError([f"{path}: cannot be read as Parquet: {line[:200]}"]) from error
    # Reads from before the case are kept for its energies.
    good = np.isfinite(values) & np.isfinite(seconds) & (seconds >= 0)
    found: dict[str, SensorSeries] = {}
    for key in keys:
        own = good & (names == key)
        if own.any():
            order = np.argsort(seconds[own], kind="stable")
            found[key] = SensorSeries(seconds[own][order], values[own][order])
    return found


def _numbers(column: Any) -> NDArray[np.float64]:
    numbers: NDArray[np.float64] = column.cast("float64").to_numpy(zero_copy_only=False)
    return numbers
