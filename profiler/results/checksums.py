"""``checksums.json``: the digest of every file of a closed run, chained in the order written.

Each entry's ``chain`` is the SHA-256 of the chain before it, the file's digest and its name, so the last
one, the ``root``, stands for all files and their order. The file is written in one spelling only:
whoever knows the files can write it again, and a single changed byte in it shows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from profiler.results.fields import Identifier
from profiler.results.record_base import SCHEMA_VERSION, Record

CHECKSUMS_FILE: Final = "checksums.json"
SIGNATURE_FILE: Final = "signature.json"
PAGE_FILE: Final = "report.html"
MAX_CHECKSUMS_BYTES: Final = 16 * 2**20
_FIRST: Final = hashlib.sha256(b"aiprof checksums 1\n").hexdigest()

# Whatever a run may hold; nothing here leads out of its folder.
FILE_NAME: Final = r"^(run\.json|cases\.jsonl|report\.html|samples/[0-9a-f]{64}(\.[a-z]{1,20})?\.parquet)$"


class FileDigest(Record):
    """One file of a run.

    Attributes:
        name: its path within the run, with ``/``.
        sha256: of its content.
        chain: see the module.
    """

    name: Annotated[str, Field(pattern=FILE_NAME)]
    sha256: Identifier
    chain: Identifier


class Checksums(Record):
    """The content of ``checksums.json``.

    Attributes:
        schema_version: of this format.
        files: in the order written.
        root: chain of the last file.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    files: tuple[FileDigest, ...]
    root: Identifier

    def encoded(self) -> bytes:
        """Return the file's content."""
        return json.dumps(self.model_dump(mode="json"), indent=1).encode() + b"\n"

    @property
    def digests(self) -> dict[str, str]:
        """Digest of each file by its name."""
        return {file.name: file.sha256 for file in self.files}


@dataclass(frozen=True)
class NamedDigest:
    """A file's name within the run and its SHA-256."""

    name: str
    sha256: str


def chained(files: Sequence[NamedDigest]) -> Checksums:
    """Return the checksums of files in the order written."""
    chain, entries = _FIRST, []
    for file in files:
        chain = hashlib.sha256(f"{chain} {file.sha256} {file.name}\n".encode()).hexdigest()
        entries.append(FileDigest(name=file.name, sha256=file.sha256, chain=chain))
    return Checksums(files=tuple(entries), root=chain)


def with_page(checksums: Checksums, sha256: str) -> Checksums:
    """Return the checksums with the page as the file written last."""
    kept = [NamedDigest(file.name, file.sha256) for file in checksums.files if file.name != PAGE_FILE]
    return chained([*kept, NamedDigest(PAGE_FILE, sha256)])


def read_checksums(data: bytes) -> Checksums:
    """Read the content of ``checksums.json``; anything but the spelling we write is refused.

    Raises:
        ValueError: it is not what aiprof writes.
    """
    checksums = Checksums.model_validate_json(data, strict=True)
    names = [file.name for file in checksums.files]
    if len(set(names)) < len(names):
        raise ValueError("a file is listed twice")
    again = chained([NamedDigest(file.name, file.sha256) for file in checksums.files])
    if again.encoded() != data:
        raise ValueError("its chain does not follow from its entries")
    return checksums


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file in hex, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
