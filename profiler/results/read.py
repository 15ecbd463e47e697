"""Reading a run from disk. A run may come from another person, so it is hostile input.

Sizes are limited, every line is validated without coercion, links are not followed, and whatever a
file says about itself is escaped before it stands in a message.
"""

from __future__ import annotations

import gc
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from profiler.errors import InputFileError
from profiler.results.checksums import CHECKSUMS_FILE, MAX_CHECKSUMS_BYTES, read_checksums
from profiler.results.schema import SCHEMA_VERSION, CaseRecord, RunRecord, SamplesRef

M = TypeVar("M", bound=BaseModel)

RUN_FILE = "run.json"
CASES_FILE = "cases.jsonl"
SAMPLES_FOLDER = "samples"
MAX_RUN_BYTES = 64 * 2**20
MAX_LINE_BYTES = 64 * 2**20
MAX_CASES_BYTES = 2 * 2**30
MAX_SAMPLES_BYTES = 2 * 2**30
MAX_FAULTS = 20
# Lines are long; the default of 8 KiB takes a dozen calls for each.
READ_BYTES = 2**20


def sha256_of(data: bytes) -> str:
    """SHA-256 of ``data`` in hex."""
    return hashlib.sha256(data).hexdigest()


def printable(text: str) -> str:
    """Escape what could move a terminal's cursor, change its colours or reverse its text."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


@dataclass(frozen=True)
class Run:
    """A run as read from disk.

    Attributes:
        path: its folder.
        record: ``run.json``.
        cases: finished and failed cases in the order they were measured.
        complete: whether the run was closed.
        warnings: what a reader should know, one line each.
    """

    path: Path
    record: RunRecord
    cases: tuple[CaseRecord, ...]
    complete: bool
    warnings: tuple[str, ...]


@contextmanager
def collection_paused() -> Iterator[None]:
    """Stop the collector of cycles: records have none, and looking for them takes longer than reading."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def read_run(path: Path) -> Run:
    """Read a run, complete or not.

    Raises:
        InputFileError: ``path`` holds no run, or one that is damaged or newer than this aiprof.
    """
    run_file = path / RUN_FILE
    record_bytes = read_limited(run_file, MAX_RUN_BYTES, hint="give the folder that a sweep wrote")
    record = _validated(RunRecord, record_bytes, str(run_file))
    digests = {RUN_FILE: sha256_of(record_bytes)}
    with collection_paused():
        cases, warnings = _read_cases(path / CASES_FILE, digests)
    planned = {planned.spec.case_id for planned in record.cases}
    warnings += [
        f"{path / CASES_FILE}: case {case.spec.case_id[:12]} is not in the plan of {RUN_FILE}"
        for case in cases
        # The points of a search follow from what it finds.
        if case.spec.case_id not in planned and record.settings.search is None
    ]
    warnings += [fault for case in cases for fault in _damaged_samples(path, case)]
    complete = os.path.lexists(path / CHECKSUMS_FILE)
    if complete:
        warnings += _against_checksums(path / CHECKSUMS_FILE, digests)
    else:
        done = planned & {case.spec.case_id for case in cases}
        warnings.append(f"{path}: incomplete ({len(done)} of {len(planned)} cases); continue with --resume")
    return Run(path, record, tuple(cases), complete, tuple(warnings))


def _read_cases(path: Path, digests: dict[str, str]) -> tuple[list[CaseRecord], list[str]]:
    """Read all whole lines, check the chain, and add the digest of the file to ``digests``."""
    cases: list[CaseRecord] = []
    warnings: list[str] = []
    faults: list[str] = []
    previous, before = digests[RUN_FILE], RUN_FILE
    content = hashlib.sha256()
    for number, line in enumerate(_lines(path), start=1):
        content.update(line)
        where = f"{path}:{number}"
        if not line.endswith(b"\n"):
            warnings.append(
                f"{where}: the last line is torn (the sweep was killed while writing it) and was left out"
            )
            break
        try:
            case = _validated(CaseRecord, line[:-1], where)
        except InputFileError as error:
            faults += error.faults
            if len(faults) >= MAX_FAULTS:
                break
        else:
            cases.append(case)
            if case.prev_sha256 != previous:
                warnings.append(
                    f"{where}: does not follow from {before}, which was edited after this line was written"
                )
        previous, before = sha256_of(line[:-1]), f"line {number}"
    if faults:
        raise InputFileError(faults[:MAX_FAULTS])
    digests[CASES_FILE] = content.hexdigest()
    return cases, warnings


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of ``cases.jsonl`` with their ends; a file that is not there has none."""
    if not os.path.lexists(path):
        return
    descriptor = _open_regular(path, MAX_CASES_BYTES)
    with os.fdopen(descriptor, "rb", buffering=READ_BYTES) as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise InputFileError(
                    [f"{path}:{number}: line is longer than {MAX_LINE_BYTES} bytes; not written by aiprof"]
                )
            yield line


def _against_checksums(path: Path, digests: dict[str, str]) -> list[str]:
    try:
        recorded = read_checksums(read_limited(path, MAX_CHECKSUMS_BYTES)).digests
    except (InputFileError, ValueError):
        return [f"{path}: cannot be read; nothing vouches for the last line of {CASES_FILE}"]
    return [
        f"{path.parent / name}: does not have the checksum it had when the run was closed; it was edited"
        for name, digest in digests.items()
        if recorded.get(name) != digest
    ]


def sample_refs(case: CaseRecord) -> list[SamplesRef]:
    """Return all references of a case to files with raw samples."""
    found = [getattr(case, name) for name in CaseRecord.model_fields]
    return [item for item in found if isinstance(item, SamplesRef)]


def _damaged_samples(path: Path, case: CaseRecord) -> list[str]:
    """Return one line for each file of raw samples that is not the one that the case was recorded with."""
    faults = []
    for ref in sample_refs(case):
        try:
            digest = digest_limited(path / ref.file, MAX_SAMPLES_BYTES)
        except InputFileError as error:
            faults += [
                f"{fault}; raw samples of case {case.spec.case_id[:12]} are lost" for fault in error.faults
            ]
            continue
        if digest != ref.sha256:
            what = f"does not have the checksum in {CASES_FILE}; raw samples were edited"
            faults.append(f"{path / ref.file}: {what}")
    return faults


def digest_limited(path: Path, limit: int) -> str:
    """SHA-256 of a regular file of at most ``limit`` bytes, in hex.

    Raises:
        InputFileError: it cannot be read, is larger, or is a link or a device.
    """
    with os.fdopen(_open_regular(path, limit), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_limited(path: Path, limit: int, hint: str = "") -> bytes:
    """Read a regular file of at most ``limit`` bytes.

    Raises:
        InputFileError: it cannot be read, is larger, or is a link or a device.
    """
    with os.fdopen(_open_regular(path, limit, hint), "rb") as file:
        # A read of ``limit`` bytes would set aside as many, however small the file is.
        return file.read(min(limit, os.fstat(file.fileno()).st_size) + 1)


def _open_regular(path: Path, limit: int, hint: str = "") -> int:
    # A link in a foreign run could lead to any file here, and opening a pipe would wait for ever.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if path.is_symlink():
            raise InputFileError([f"{path}: is a link; a run holds only files of its own"]) from None
        raise InputFileError(
            [f"{path}: cannot be read: {error.strerror}{'; ' + hint if hint else ''}"]
        ) from error
    status = os.fstat(descriptor)
    fault = None
    if not stat.S_ISREG(status.st_mode):
        fault = f"{path}: not a regular file"
    elif status.st_size > limit:
        fault = f"{path}: {status.st_size} bytes, more than the {limit} that a run may have"
    if fault:
        os.close(descriptor)
        raise InputFileError([fault])
    return descriptor


def _validated(model: type[M], data: bytes, where: str) -> M:
    try:
        found = model.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise InputFileError(_version_faults(data, where) or _faults(error, where)) from None
    # Without a version a record takes the newest one by default, and could be of any other program.
    if "schema_version" not in found.model_fields_set:
        raise InputFileError(_version_faults(data, where))
    return found


def _version_faults(data: bytes, where: str) -> list[str]:
    """Return why ``data`` is not of a version known here; nothing where it is, or says nothing wrong."""
    try:
        fields: Any = from_json(data)
    except ValueError as error:
        return [f"{where}: not valid JSON: {error}"]
    version = fields.get("schema_version") if isinstance(fields, dict) else None
    if type(version) is not int or version < 1:
        return [f"{where}: no schema_version; not written by aiprof"]
    if version > SCHEMA_VERSION:
        newest = "the newest known here; upgrade aiprof"
        return [f"{where}: schema version {version} is newer than {SCHEMA_VERSION}, {newest}"]
    return []


def _faults(error: ValidationError, where: str) -> list[str]:
    return [
        f"{where}: {printable('.'.join(map(str, fault['loc'])))[:200]}: {printable(fault['msg'])}"
        for fault in error.errors(include_url=False, include_input=False)[:MAX_FAULTS]
    ]
