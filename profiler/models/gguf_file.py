"""Reading the header of a GGUF file: metadata, and where each tensor is and in which type.

A file may come from anyone: every count and length is held against the bytes that are there before it is
used, arrays of a tokenizer are walked over without being kept, and no tensor's data are read.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian).
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from profiler.errors import InputFileError
from profiler.models.gguf_types import TYPES, GgmlType

MAGIC = b"GGUF"
MAX_HEADER_BYTES = 256 << 20
"""Vocabularies of a quarter of a million tokens with their merges take about 20 MB."""
MAX_ELEMENTS = 1 << 23
"""Elements of all arrays together; those of the largest vocabularies are a million."""
MAX_FIELDS, MAX_TENSORS, MAX_DIMENSIONS = 1 << 14, 1 << 18, 4
MAX_KEY_BYTES, MAX_NAME_BYTES = 1 << 16, 256
MAX_KEPT = 4096
"""Arrays of numbers up to this length are kept, one per layer at most; others are only counted."""

_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", _BOOL: "<B", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip


class Counted(NamedTuple):
    """An array that was walked over: how many elements it has."""

    length: int


class TensorPlace(NamedTuple):
    """One tensor: ``dims`` as in the file (the length of a row first), ``offset`` from the file's begin."""

    type: GgmlType
    dims: tuple[int, ...]
    offset: int
    size: int


@dataclass(frozen=True)
class GgufFile:
    """The header of one file.

    Attributes:
        path: of the file.
        version: of the format.
        fields: metadata: numbers, truth values, texts, short arrays of numbers as tuples; other arrays
            as :class:`Counted`.
        tensors: by name, in the order of the file.
        size: of the whole file in bytes.
        header_bytes: up to the first tensor's data.
        header_sha256: of those bytes, in which all metadata and all names, types and places stand.
    """

    path: Path
    version: int
    fields: Mapping[str, Any]
    tensors: Mapping[str, TensorPlace]
    size: int
    header_bytes: int
    header_sha256: str


def is_gguf(path: Path) -> bool:
    """Whether a path is meant as a GGUF file: by its name, or a file that begins as one."""
    if path.suffix.lower() == ".gguf":
        return True
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read_gguf(path: Path) -> GgufFile:
    """Read the header of a file.

    Raises:
        InputFileError: it cannot be read, is no GGUF file, is truncated, or says what cannot be.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputFileError([f"{path}: is not a regular file"])
        with path.open("rb") as file:
            return _Header(path, file).read()
    except OSError as error:
        raise InputFileError([f"{path}: cannot be read: {error.strerror or error}"]) from None


class _Header:
    """Reads from the begin of a file on, never past its end."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._size = os.fstat(file.fileno()).st_size
        self._sha256 = hashlib.sha256()
        self._at = 0
        self._elements = 0

    def read(self) -> GgufFile:
        if self._size < len(MAGIC) or self._take(len(MAGIC)) != MAGIC:
            raise self._fault("is not a GGUF file")
        version = self._number("<I")
        if version in (2 << 24, 3 << 24):
            raise self._fault("is a big-endian GGUF file, which llama.cpp does not load on this machine")
        if version not in (2, 3):
            raise self._fault(f"is of GGUF version {version}; only 2 and 3 are known: convert it anew")
        count, length = self._number("<Q"), self._number("<Q")
        if count > MAX_TENSORS or length > MAX_FIELDS:
            raise self._fault(f"claims {count} tensors and {length} metadata fields, more than any model has")
        fields = self._fields(length)
        infos = self._infos(count)
        alignment = fields.get("general.alignment", 32)
        if type(alignment) is not int or not 0 < alignment <= 1 << 16 or alignment & (alignment - 1):
            raise self._fault(f"general.alignment is {str(alignment)[:40]}, not a power of two")
        begin = self._at + -self._at % alignment
        return GgufFile(
            path=self._path,
            version=version,
            fields=fields,
            tensors=self._placed(infos, begin, alignment),
            size=self._size,
            header_bytes=self._at,
            header_sha256=self._sha256.hexdigest(),
        )

    def _fields(self, count: int) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for _ in range(count):
            key = self._text(MAX_KEY_BYTES)
            kind = self._number("<I")
            value = self._array(key) if kind == _ARRAY else self._value(key, kind)
            if key in fields:
                raise self._fault(f"names {key[:80]!r} twice")
            fields[key] = value
        return fields

    def _value(self, key: str, kind: int) -> Any:
        if kind == _STRING:
            return self._text(MAX_HEADER_BYTES)
        if kind not in _SCALARS:
            raise self._fault(f"gives {key[:80]!r} the unknown type {kind}")
        value = self._number(_SCALARS[kind])
        return bool(value) if kind == _BOOL else value

    def _array(self, key: str) -> Any:
        kind, count = self._number("<I"), self._number("<Q")
        self._elements += count
        if self._elements > MAX_ELEMENTS:
            raise self._fault(f"claims {count} elements of {key[:80]!r}, more than any vocabulary has")
        if kind == _STRING:
            for _ in range(count):
                self._take(self._number("<Q"))
            return Counted(count)
        if kind not in _SCALARS:
            raise self._fault(f"gives {key[:80]!r} the unknown element type {kind}")
        spelt = _SCALARS[kind]
        raw = self._take(count * struct.calcsize(spelt))
        if count > MAX_KEPT:
            return Counted(count)
        return struct.unpack(f"<{count}{spelt[1:]}", raw)

    def _infos(self, count: int) -> list[tuple[str, GgmlType, tuple[int, ...], int]]:
        found = []
        for _ in range(count):
            name = self._text(MAX_NAME_BYTES)
            dimensions = self._number("<I")
            if not 1 <= dimensions <= MAX_DIMENSIONS:
                raise self._fault(f"gives tensor {name!r} {dimensions} dimensions")
            dims = tuple(self._number("<Q") for _ in range(dimensions))
            kind, offset = self._number("<I"), self._number("<Q")
            if kind not in TYPES:
                raise self._fault(
                    f"keeps tensor {name!r} in the type number {kind}, which this aiprof does not know"
                )
            if 0 in dims or math.prod(dims) >= 1 << 48 or dims[0] % TYPES[kind].block:
                raise self._fault(f"gives tensor {name!r} the shape {list(dims)} in {TYPES[kind].name}")
            found.append((name, TYPES[kind], dims, offset))
        return found

    def _placed(
        self, infos: list[tuple[str, GgmlType, tuple[int, ...], int]], begin: int, alignment: int
    ) -> dict[str, TensorPlace]:
        """Return where the tensors are; like ggml, take no holes and no overlaps."""
        places: dict[str, TensorPlace] = {}
        position = 0
        for name, kind, dims, offset in infos:
            size = math.prod(dims) // kind.block * kind.block_bytes
            if name in places:
                raise self._fault(f"holds tensor {name!r} twice")
            if offset != position:
                raise self._fault(f"puts tensor {name!r} at byte {offset} of the data, not at {position}")
            if begin + offset + size > self._size:
                raise self._fault(
                    f"ends at byte {self._size}, its tensor {name!r} at {begin + offset + size}: truncated, "
                    "download it again"
                )
            places[name] = TensorPlace(kind, dims, begin + offset, size)
            position += size + -size % alignment
        return places

    def _text(self, longest: int) -> str:
        length = self._number("<Q")
        if length > longest:
            raise self._fault(f"claims a text of {length} bytes in its header")
        try:
            return self._take(length).decode()
        except UnicodeDecodeError:
            raise self._fault("holds a text that is not UTF-8 in its header") from None

    def _number(self, spelt: str) -> Any:
        return struct.unpack(spelt, self._take(struct.calcsize(spelt)))[0]

    def _take(self, count: int) -> bytes:
        if self._at + count > self._size:
            raise self._fault("ends within its header: truncated, download it again")
        if self._at + count > MAX_HEADER_BYTES:
            raise self._fault(f"has a header of more than {MAX_HEADER_BYTES >> 20} MiB, which no model has")
        raw = self._file.read(count)
        if len(raw) != count:
            raise self._fault("became shorter while it was read")
        self._at += count
        self._sha256.update(raw)
        return raw

    def _fault(self, what: str) -> InputFileError:
        return InputFileError([f"{self._path}: {what}"])
