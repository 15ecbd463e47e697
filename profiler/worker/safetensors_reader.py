"""Read ``model.safetensors`` checkpoints, single or sharded, without the safetensors package.

The vendor's environment may not have that package, and a checkpoint comes from somebody else: every
number in a header is checked before it is used, a fault names its file and tensor, and all headers
are read before the first tensor is copied.

Format: 8 bytes header length (little-endian), a JSON object ``name -> {dtype, shape, data_offsets}``,
then the data, without holes or overlaps (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import math
import mmap
import os
import stat
from typing import Any, NamedTuple

import torch

from .protocol import EngineError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_MAX_HEADER_BYTES = 100_000_000  # the limit of the reference implementation
_MAX_INDEX_BYTES = 100_000_000
_MAX_DIMENSIONS = 16
# Bytes copied before their pages are given back, so that a load never holds the file in memory too.
_COPY_BYTES = 32 << 20
_BITS = {"F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16}
_BITS.update({"I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8})
_READABLE = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class TensorEntry(NamedTuple):
    """Where one tensor is: ``begin`` and ``end`` are byte offsets from the start of ``file``."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Checkpoint:
    """All tensors of a checkpoint folder.

    Args:
        folder: holds ``model.safetensors``, or ``model.safetensors.index.json`` and its shards.

    Attributes:
        tensors: entry of every tensor by its name.

    Raises:
        EngineError: ``weights``, naming every missing or damaged file.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        single = os.path.join(folder, SINGLE)
        if os.path.lexists(single):
            self.tensors = read_header(single)
            return
        index = os.path.join(folder, INDEX)
        if not os.path.lexists(index):
            raise _fault(folder, f"holds neither {SINGLE} nor {INDEX}")
        self.tensors = self._read_shards(index, _read_index(index))

    def copy(self, name: str, destination: Any) -> None:
        """Copy a tensor into ``destination`` on whatever device, converting to its dtype.

        Args:
            name: a key of :attr:`tensors` with a floating-point dtype.
            destination: contiguous tensor with the entry's number of values.

        Raises:
            EngineError: ``weights``, when the dtype is not one of fp64, fp32, fp16 and bf16.
        """
        entry = self.tensors[name]
        dtype = _READABLE.get(entry.dtype)
        if dtype is None:
            raise _fault(entry.file, f"tensor {name} is {entry.dtype}, which the torch engine cannot convert")
        flat, width = destination.view(-1), _BITS[entry.dtype] // 8
        mapped = _map(entry.file)
        for begin in range(entry.begin, entry.end, _COPY_BYTES):
            end = min(begin + _COPY_BYTES, entry.end)
            raw = torch.frombuffer(mapped, dtype=torch.uint8, count=end - begin, offset=begin)
            if begin % width:
                raw = raw.clone()  # an odd header length leaves the data unaligned
            first = (begin - entry.begin) // width
            flat[first : first + (end - begin) // width].copy_(raw.view(dtype))
            _release(mapped, begin, end)

    def _read_shards(self, index: str, files: dict[str, str]) -> dict[str, TensorEntry]:
        tensors: dict[str, TensorEntry] = {}
        faults = []
        for shard in sorted(set(files.values())):
            try:
                found = read_header(os.path.join(self._folder, shard))
            except EngineError as error:
                faults.append(error.message)
                continue
            absent = sorted(name for name, file in files.items() if file == shard and name not in found)
            if absent:
                faults.append(
                    f"{os.path.join(self._folder, shard)}: lacks {listing(absent)}, against {INDEX}"
                )
            twice = sorted(name for name in found if name in tensors)
            if twice:
                faults.append(f"{index}: more than one shard holds {listing(twice)}")
            tensors.update(found)
        if faults:
            raise EngineError("weights", "; ".join(faults))
        return tensors


def read_header(path: str) -> dict[str, TensorEntry]:
    """Return the entries of one safetensors file, every number checked against the file.

    Raises:
        EngineError: ``weights``, with the first thing that is wrong with the file.
    """
    try:
        with open(path, "rb", opener=_open_regular) as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
                raise _fault(
                    path, f"header of {length} in a file of {size} bytes: truncated, or not safetensors"
                )
            header = _parse(path, file.read(length))
    except OSError as error:
        raise _fault(path, f"cannot be read: {error.strerror}") from error
    header.pop("__metadata__", None)
    entries = {name: _entry(path, name, fields, 8 + length) for name, fields in header.items()}
    position = 8 + length
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != position:
            raise _fault(
                path,
                f"tensor {name} starts at byte {entry.begin}, the one before ends at {position}",
            )
        position = entry.end
    if position != size:
        raise _fault(path, f"the tensors end at byte {position}, the file at {size}: truncated or damaged")
    return entries


def listing(names: list[str], most: int = 4) -> str:
    """Join the first ``most`` names and say how many there are in all."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown}, … ({len(names)} in all)"


def _entry(path: str, name: str, fields: Any, data: int) -> TensorEntry:
    if not isinstance(fields, dict) or not {"dtype", "shape", "data_offsets"} <= set(fields):
        raise _fault(path, f"tensor {name} has no dtype, shape and data_offsets")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise _fault(path, f"tensor {name} has the unknown dtype {str(dtype)[:40]!r}")
    if not _natural_numbers(shape) or len(shape) > _MAX_DIMENSIONS:
        raise _fault(path, f"tensor {name} has a shape that is not a short list of whole numbers")
    if not _natural_numbers(offsets) or len(offsets) != 2:
        raise _fault(path, f"tensor {name} has data_offsets that are not two whole numbers")
    if offsets[1] - offsets[0] != math.prod(shape) * _BITS[dtype] // 8:
        raise _fault(path, f"tensor {name} has data_offsets that do not fit its shape and dtype")
    return TensorEntry(path, dtype, tuple(shape), data + offsets[0], data + offsets[1])


def _natural_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 63 for item in value)


def _read_index(path: str) -> dict[str, str]:
    """Return ``weight_map`` (tensor -> file name); file names must be plain names in the same folder."""
    try:
        with open(path, "rb", opener=_open_regular) as file:
            content = file.read(_MAX_INDEX_BYTES + 1)
    except OSError as error:
        raise _fault(path, f"cannot be read: {error.strerror}") from error
    if len(content) > _MAX_INDEX_BYTES:
        raise _fault(path, f"is larger than {_MAX_INDEX_BYTES} bytes")
    files = _parse(path, content).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise _fault(path, "has no weight_map")
    for name, file in files.items():
        plain = isinstance(file, str) and file.isprintable() and not set("/\\") & set(file)
        plain = plain and file.endswith(".safetensors")
        if not plain:
            raise _fault(path, f"puts {name} into {str(file)[:80]!r}, which names no shard beside it")
    return files


def _parse(path: str, content: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name appears twice in one object")
        return found

    try:
        parsed = json.loads(content.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise _fault(path, f"is not valid JSON: {str(error)[:200]}") from error
    if not isinstance(parsed, dict):
        raise _fault(path, "does not hold a JSON object")
    return parsed


def _open_regular(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a FIFO of that name would wait for a writer for ever.
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _fault(path, "is not a regular file")
    return descriptor


def _map(path: str) -> mmap.mmap:
    try:
        with open(path, "rb") as file:
            # Copy-on-write, because torch warns about buffers that it could not write to; nobody writes.
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError as error:
        raise _fault(path, f"cannot be read: {error.strerror}") from error


def _release(mapped: mmap.mmap, begin: int, end: int) -> None:
    """Give the pages of bytes ``begin`` to ``end`` back, where the system can."""
    if hasattr(mapped, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
        first = begin - begin % mmap.PAGESIZE
        mapped.madvise(mmap.MADV_DONTNEED, first, end - first)


def _fault(path: str, message: str) -> EngineError:
    return EngineError("weights", f"{path}: {message}")
