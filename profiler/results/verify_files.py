"""Are the files of a run those that were written? Nothing is believed here but bytes.

Every file of a closed run has to be in ``checksums.json`` and to have its digest, every line of
``cases.jsonl`` has to carry the digest of the line before, and nothing else may lie in the folder.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic_core import from_json

from profiler.errors import InputFileError
from profiler.results.checksums import (
    CHECKSUMS_FILE,
    MAX_CHECKSUMS_BYTES,
    PAGE_FILE,
    SIGNATURE_FILE,
    Checksums,
    read_checksums,
)
from profiler.results.read import (
    CASES_FILE,
    MAX_CASES_BYTES,
    MAX_LINE_BYTES,
    MAX_RUN_BYTES,
    MAX_SAMPLES_BYTES,
    RUN_FILE,
    SAMPLES_FOLDER,
    digest_limited,
    printable,
    read_limited,
    sha256_of,
)

LIMITS: Final = {RUN_FILE: MAX_RUN_BYTES, CASES_FILE: MAX_CASES_BYTES}
MOST_FILES: Final = 200_000
ALL_FIGURES: Final = ("every figure of the run",)
OF_THE_PAGE: Final = ("every figure that the page shows",)


@dataclass(frozen=True)
class Finding:
    """Something about a run that does not verify.

    Attributes:
        file: name within the run.
        place: where in the file, e.g. ``line 3 (decode-128 · batch 1)``, or empty.
        figures: what is in doubt.
        what: what is wrong, and what to do where something can be done.
    """

    file: str
    place: str
    figures: tuple[str, ...]
    what: str

    def __str__(self) -> str:
        where = f"{self.file}{': ' + self.place if self.place else ''}"
        return f"{where}: {self.what} ({', '.join(self.figures)})"


@dataclass(frozen=True)
class Files:
    """What the bytes of a run say.

    Attributes:
        checksums: of the closed run, or None when it is not closed or they cannot be read.
        closed: whether there is a ``checksums.json``.
        findings: what does not verify.
        notes: what killed sweeps leave, which is no evidence of anything.
    """

    checksums: Checksums | None
    closed: bool
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


def check_files(path: Path) -> Files:
    """Check every file of a run against its checksums, and the chain of its cases.

    Raises:
        InputFileError: ``path`` cannot be listed.
    """
    findings: list[Finding] = []
    notes: list[str] = []
    checksums: Checksums | None = None
    there = _listing(path, findings)
    closed = CHECKSUMS_FILE in there
    if closed:
        try:
            checksums = read_checksums(read_limited(path / CHECKSUMS_FILE, MAX_CHECKSUMS_BYTES))
        except (InputFileError, ValueError) as error:
            what = f"is not as aiprof wrote it: {printable(str(error).splitlines()[0])[:200]}"
            findings.append(Finding(CHECKSUMS_FILE, "", ALL_FIGURES, what))
    broken = list(_chain(path, checksums.digests.get(RUN_FILE) if checksums else None))
    findings += broken
    for name, digest in (checksums.digests if checksums else {}).items():
        if name not in there:
            findings.append(Finding(name, "", doubted(name), "is missing"))
            continue
        try:
            found = digest_limited(path / name, LIMITS.get(name, MAX_SAMPLES_BYTES))
        except InputFileError as error:
            findings.append(Finding(name, "", doubted(name), printable(str(error))))
            continue
        if found != digest and not (name == CASES_FILE and any(broken)):
            findings.append(Finding(name, _last_line(path, name), doubted(name), "was changed"))
    listed = {CHECKSUMS_FILE, SIGNATURE_FILE, *(checksums.digests if checksums else there)}
    for name in sorted(there - listed):
        if name == PAGE_FILE or (name.rpartition("/")[2].startswith(".") and name.endswith(".tmp")):
            notes.append(f"{printable(name)}: left by a sweep that was killed; nothing vouches for it")
        else:
            what = "is not listed in checksums.json; move it out of the run"
            findings.append(Finding(printable(name), "", ("none of the run",), what))
    return Files(checksums, closed, tuple(findings), tuple(notes))


def doubted(name: str) -> tuple[str, ...]:
    """Return which figures rest on a file."""
    if name == PAGE_FILE:
        return OF_THE_PAGE
    if name.startswith(SAMPLES_FOLDER):
        return (f"every figure of case {Path(name).name[:12]}",)
    return ALL_FIGURES


def _listing(path: Path, findings: list[Finding]) -> set[str]:
    """Return the names of all regular files below ``path``; links, pipes and deep folders are findings."""
    names: set[str] = set()
    folders = [""]
    try:
        while folders:
            folder = folders.pop()
            with os.scandir(path / folder) as entries:
                for entry in entries:
                    name = f"{folder}{entry.name}"
                    mode = entry.stat(follow_symlinks=False).st_mode
                    if stat.S_ISREG(mode):
                        names.add(name)
                    elif stat.S_ISDIR(mode) and name == SAMPLES_FOLDER:
                        folders.append(f"{name}/")
                    else:
                        what = "is a link, a folder or a device; a run holds only files of its own"
                        findings.append(Finding(printable(name), "", doubted(name), what))
                    if len(names) > MOST_FILES:
                        raise InputFileError([f"{path}: more than {MOST_FILES} files; not written by aiprof"])
    except OSError as error:
        raise InputFileError([f"{path}: cannot be read: {error.strerror}"]) from error
    return names


def _chain(path: Path, run_sha256: str | None) -> Iterator[Finding]:
    """Yield a finding for every line that is not the one that the next line was written after.

    Args:
        path: folder of the run.
        run_sha256: the digest that ``run.json`` should have, or None where nothing says.
    """
    try:
        previous = digest_limited(path / RUN_FILE, MAX_RUN_BYTES)
    except InputFileError:
        return
    before: tuple[str, str, tuple[str, ...]] = (RUN_FILE, "", ALL_FIGURES)
    try:
        descriptor = os.open(path / CASES_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if not line.endswith(b"\n"):
                return
            told = _told(line)
            place = f"line {number}{told.label}"
            if told.previous is None:
                yield Finding(CASES_FILE, place, told.figures, "cannot be read as a case")
            elif told.previous != previous:
                if before[0] != RUN_FILE:
                    yield Finding(*before, "was changed after the line that follows it was written")
                elif previous == run_sha256:
                    # The link itself was changed, or lines before this one are gone, or all are foreign.
                    what = f"does not follow from {RUN_FILE}, which is as it was"
                    yield Finding(CASES_FILE, place, ALL_FIGURES, what)
                else:
                    yield Finding(*before, "was changed after the first case was written")
            previous, before = sha256_of(line[:-1]), (CASES_FILE, place, told.figures)


@dataclass(frozen=True)
class _Told:
    """What a line says about itself, believed only for messages."""

    previous: str | None
    label: str
    figures: tuple[str, ...]


def _told(line: bytes) -> _Told:
    try:
        fields: Any = from_json(line)
        spec = fields["spec"]
        label = printable(f" ({spec['scenario']} · {spec['model']} · batch {spec['batch']})")[:200]
        case = printable(str(spec["case_id"]))[:12]
        return _Told(str(fields["prev_sha256"]), label, (f"every figure of case {case}",))
    except (ValueError, KeyError, TypeError):
        return _Told(None, "", ("every figure of that case",))


def _last_line(path: Path, name: str) -> str:
    """A file of cases whose chain holds can only have been changed in its last line."""
    if name != CASES_FILE:
        return ""
    with (path / name).open("rb") as file:
        lines = sum(1 for _ in file)
    return f"line {lines}, the last one"
