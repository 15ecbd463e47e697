"""The run on disk: create, append, resume, close; ``read`` is the other direction.

``run.json`` is written first (temporary file, then rename). Each finished case adds one line to
``cases.jsonl``, synced to disk before the next case begins, carrying the SHA-256 of the line before
it. ``checksums.json`` closes the run; a run without it is incomplete, not tampered with. A torn last
line (a crash while appending) is cut on resume and warned about by readers.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel

from profiler.errors import InputFileError, MeasurementError, UsageError
from profiler.results.checksums import (
    CHECKSUMS_FILE,
    MAX_CHECKSUMS_BYTES,
    PAGE_FILE,
    SIGNATURE_FILE,
    NamedDigest,
    chained,
    read_checksums,
    sha256_of_file,
    with_page,
)
from profiler.results.read import (
    CASES_FILE,
    MAX_LINE_BYTES,
    MAX_RUN_BYTES,
    RUN_FILE,
    SAMPLES_FOLDER,
    Run,
    read_limited,
    read_run,
    sample_refs,
    sha256_of,
)
from profiler.results.schema import CaseRecord, RunRecord, SamplesRef
from profiler.results.whole_files import explained, sync_folder, write_whole_file

__all__ = [
    "CASES_FILE",
    "CHECKSUMS_FILE",
    "RUN_FILE",
    "SAMPLES_FOLDER",
    "Run",
    "RunWriter",
    "list_page",
    "read_run",
    "sha256_of",
    "sha256_of_file",
]


class RunWriter:
    """Appends cases to a run. Holds a lock, so that two sweeps cannot write to one run.

    Use :meth:`create` or :meth:`resume`; leave through :meth:`close` or as a context manager
    (which releases the lock but does not close the run).
    """

    def __init__(self, path: Path, record: RunRecord, cases: IO[bytes], last_sha256: str) -> None:
        self.path = path
        self.record = record
        self._cases = cases
        self._last_sha256 = last_sha256

    @classmethod
    def create(cls, path: Path, record: RunRecord) -> RunWriter:
        """Make the folder and write ``run.json``.

        Raises:
            UsageError: the folder already holds a run, or is a file.
            MeasurementError: it cannot be written.
        """
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path}: is a file; give --out a folder that does not exist yet")
        if (path / RUN_FILE).exists():
            raise UsageError(
                f"{path}: already holds a run; continue it with --resume {path} or choose another --out"
            )
        data = _to_json(record, indent=1)
        if len(data) > MAX_RUN_BYTES:
            raise UsageError(
                f"{path}: the plan has {len(record.cases)} cases, too many for one run; split it"
            )
        with explained(path):
            (path / SAMPLES_FOLDER).mkdir(parents=True, exist_ok=True)
        cases = _open_locked(path)
        try:
            # Only now nobody else can be creating a run here.
            if (path / RUN_FILE).exists() or cases.seek(0, os.SEEK_END):
                raise UsageError(f"{path}: already holds results; choose another --out")
            write_whole_file(path / RUN_FILE, data)
            with contextlib.suppress(OSError):  # a parent that may not be read
                sync_folder(path.parent)
        except BaseException:
            cases.close()
            raise
        return cls(path, record, cases, sha256_of(data))

    @classmethod
    def resume(cls, path: Path) -> tuple[RunWriter, Run]:
        """Open an unfinished run for appending, cutting a torn last line.

        Raises:
            InputFileError: the run cannot be read.
            UsageError: another sweep is writing to it.
        """
        read_limited(path / RUN_FILE, MAX_RUN_BYTES, hint="give the folder that a sweep wrote")
        cases = _open_locked(path)
        try:
            # Read only under the lock: what another sweep has just appended must be seen.
            run = read_run(path)
            cases.seek(0)
            content = cases.read()
            whole = content[: content.rfind(b"\n") + 1]
            with explained(path):
                cases.truncate(len(whole))
                os.fsync(cases.fileno())
                for stale in (CHECKSUMS_FILE, SIGNATURE_FILE, PAGE_FILE):
                    (path / stale).unlink(missing_ok=True)
                (path / SAMPLES_FOLDER).mkdir(exist_ok=True)
        except BaseException:
            cases.close()
            raise
        lines = whole.split(b"\n")
        last = sha256_of(lines[-2]) if len(lines) > 1 else sha256_of_file(path / RUN_FILE)
        return cls(path, run.record, cases, last), run

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._cases.close()

    def append(self, fields: Mapping[str, Any]) -> CaseRecord:
        """Append one case and return it as recorded.

        Args:
            fields: the fields of :class:`CaseRecord` without ``prev_sha256``.

        Raises:
            MeasurementError: the disk refused it; the lines before are untouched.
        """
        case = CaseRecord(prev_sha256=self._last_sha256, **fields)
        line = _to_json(case)
        if len(line) > MAX_LINE_BYTES:
            raise MeasurementError(
                f"{self.path / CASES_FILE}: the record of case {case.spec.case_id[:12]} has {len(line)} "
                f"bytes, more than the {MAX_LINE_BYTES} that readers accept; measure it with fewer trials"
            )
        end = self._cases.seek(0, os.SEEK_END)
        with explained(self.path / CASES_FILE):
            try:
                written = 0
                while written < len(line):
                    written += self._cases.write(line[written:])
                os.fsync(self._cases.fileno())
            except BaseException:
                # Half a line (a full disk, an interrupt) would be cut on resume anyway; do it while we know.
                with contextlib.suppress(OSError):
                    self._cases.truncate(end)
                raise
        self._last_sha256 = sha256_of(line.rstrip(b"\n"))
        return case

    def write_samples(self, case_id: str, columns: Mapping[str, Any], *, suffix: str = "") -> SamplesRef:
        """Write raw samples of a case as Parquet and return the reference for its record.

        Args:
            case_id: of the case.
            columns: name -> values, all equally long.
            suffix: ``""`` for the stamps of tokens, ``".sensors"`` for the reads of sensors.

        Raises:
            MeasurementError: the disk refused it.
        """
        import pyarrow
        from pyarrow import parquet

        # NaN stands for a missing value in arrays; on disk it is null.
        arrays = {name: pyarrow.array(values, from_pandas=True) for name, values in columns.items()}
        table = pyarrow.table(arrays)
        sink = pyarrow.BufferOutputStream()
        parquet.write_table(table, sink, compression="zstd")
        data = sink.getvalue().to_pybytes()
        name = f"{SAMPLES_FOLDER}/{case_id}{suffix}.parquet"
        write_whole_file(self.path / name, data)
        return SamplesRef(file=name, sha256=sha256_of(data), rows=table.num_rows)

    def close(self) -> None:
        """Write ``checksums.json`` over all files of the record and release the lock.

        What a killed sweep left half-written, and samples that no case refers to, are removed first.
        """
        run = read_run(self.path)
        samples = [ref.file for case in run.cases for ref in sample_refs(case)]
        with explained(self.path):
            _remove_leftovers(self.path, {Path(name).name for name in samples})
            names = [RUN_FILE, *dict.fromkeys(samples), CASES_FILE]
            files = [NamedDigest(name, sha256_of_file(self.path / name)) for name in names]
        write_whole_file(self.path / CHECKSUMS_FILE, chained(files).encoded())
        self._cases.close()


def _remove_leftovers(path: Path, kept: set[str]) -> None:
    for file in path.glob(".*.tmp"):
        file.unlink()
    for file in (path / SAMPLES_FOLDER).iterdir():
        if file.name not in kept and not file.is_dir():
            file.unlink()


def list_page(path: Path) -> bool:
    """Enter the page of a closed run into its checksums; return False for a run that is not closed.

    Raises:
        MeasurementError: the disk refused it.
    """
    try:
        known = read_checksums(read_limited(path / CHECKSUMS_FILE, MAX_CHECKSUMS_BYTES))
        digest = sha256_of_file(path / PAGE_FILE)
    except (InputFileError, ValueError, OSError):
        return False
    write_whole_file(path / CHECKSUMS_FILE, with_page(known, digest).encoded())
    return True


def _open_locked(path: Path) -> IO[bytes]:
    """Open ``cases.jsonl`` for appending, alone."""
    with explained(path):
        # Append mode: opening truncates nothing that another sweep may have written.
        cases = (path / CASES_FILE).open("a+b", buffering=0)
    try:
        fcntl.flock(cases, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        cases.close()
        raise UsageError(
            f"{path}: another aiprof sweep is writing to this run; wait for it or stop it"
        ) from error
    except OSError as error:
        cases.close()
        raise UsageError(
            f"{path}: cannot be locked ({error.strerror}); choose --out on a local disk"
        ) from error
    return cases


def _to_json(record: BaseModel, indent: int | None = None) -> bytes:
    return (
        json.dumps(
            record.model_dump(mode="json"), indent=indent, allow_nan=False, ensure_ascii=False
        ).encode()
        + b"\n"
    )
