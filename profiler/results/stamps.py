"""The raw samples of a case, read back: the stamps of every token."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from profiler.errors import InputFileError
from profiler.results.read import MAX_SAMPLES_BYTES, read_limited, sha256_of
from profiler.results.schema import SamplesRef

COLUMNS: Final = ("start", "trial", "warm_up", "token", "since_submit_ns")
MAX_ROWS: Final = 50_000_000


def read_columns(path: Path, ref: SamplesRef) -> dict[str, Any]:
    """Return the columns of a file of raw samples as Arrow arrays by name.

    Args:
        path: folder of the run.
        ref: of the case's record.

    Raises:
        InputFileError: the file is not the one that was recorded, or cannot be read.
    """
    import pyarrow
    from pyarrow import parquet

    file = path / ref.file
    data = read_limited(file, MAX_SAMPLES_BYTES)
    if sha256_of(data) != ref.sha256:
        raise InputFileError([f"{file}: does not have the checksum in the record of its case"])
    try:
        reader = parquet.ParquetFile(pyarrow.BufferReader(data))
        rows = reader.metadata.num_rows
        if rows != ref.rows or rows > MAX_ROWS:
            raise InputFileError([f"{file}: has {rows} rows, not the {ref.rows} recorded"])
        table = reader.read()
        # Damage that no checksum covers shows only when the columns are looked into.
        table.validate(full=True)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputFileError([f"{file}: is not Parquet that can be read: {str(error)[:200]}"]) from None
    return {name: table.column(name) for name in table.column_names}


def read_stamps(path: Path, ref: SamplesRef) -> dict[tuple[int, int], list[int]]:
    """Return the nanoseconds after submit of every output token, by (start, trial).

    Args:
        path: folder of the run.
        ref: of the case's record.

    Raises:
        InputFileError: the file is not the one that was recorded, or holds something else.
    """
    file = path / ref.file
    found = read_columns(path, ref)
    if tuple(found) != COLUMNS:
        raise InputFileError([f"{file}: does not have the columns {', '.join(COLUMNS)}"])
    columns = {name: column.to_pylist() for name, column in found.items()}
    stamps: dict[tuple[int, int], list[int]] = {}
    for start, trial, token, stamp in zip(
        columns["start"], columns["trial"], columns["token"], columns["since_submit_ns"], strict=True
    ):
        if not all(isinstance(value, int) for value in (start, trial, token, stamp)):
            raise InputFileError([f"{file}: holds something that is no number"])
        own = stamps.setdefault((start, trial), [])
        if token != len(own):
            raise InputFileError([f"{file}: token {token} of trial {trial} stands where {len(own)} should"])
        own.append(stamp)
    return stamps
