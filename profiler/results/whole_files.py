"""Files that are there in full or not at all, even after a power cut."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from profiler.errors import MeasurementError


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn a failing write into one line that says what survived.

    Raises:
        MeasurementError: in place of the OSError.
    """
    try:
        yield
    except OSError as error:
        raise MeasurementError(
            f"{path}: cannot be written: {error.strerror or error}; "
            "everything recorded before is intact; free some space and continue with --resume"
        ) from error


def write_whole_file(path: Path, data: bytes) -> None:
    """Write a file so that it is there in full or not at all, even after a power cut.

    Raises:
        MeasurementError: the disk refused it.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with explained(path):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the disk knows which files a folder has."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
