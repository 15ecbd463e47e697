"""Weights on disk: which safetensors files make up a model, and a digest that tells them apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from profiler.errors import InputFileError

INDEX = "model.safetensors.index.json"
MAX_INDEX_BYTES = 64 << 20
MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library itself."""
SAMPLES, SAMPLE_BYTES = 64, 4096


_PLAIN = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
"""What ``config.json`` calls the plain number formats."""


def stored_precision(folder: Path) -> str | None:
    """Return the number format of weights by their ``config.json``, None unless it is a plain one."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config.get("quantization_config"):
            return None
        return _PLAIN.get(str(config.get("dtype") or config.get("torch_dtype")))
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the safetensors files of a model folder, sorted by name; empty when there are none.

    Raises:
        InputFileError: the index lists files that are not there, or cannot be read.
    """
    present = {path.name: path for path in folder.glob("*.safetensors")}
    index = folder / INDEX
    if not index.exists():
        return tuple(present[name] for name in sorted(present))
    listed = _listed(index)
    missing = sorted(listed - set(present))
    if missing:
        raise InputFileError(
            [
                f"{index}: {len(missing)} of {len(listed)} weight files are missing "
                f"({missing[0][:80]}{', …' if len(missing) > 1 else ''}); complete the download"
            ]
        )
    return tuple(present[name] for name in sorted(listed))


def _listed(index: Path) -> set[str]:
    try:
        with index.open("rb") as file:
            raw = file.read(MAX_INDEX_BYTES + 1)
        weight_map = json.loads(raw)["weight_map"] if len(raw) <= MAX_INDEX_BYTES else None
    except OSError as error:
        raise InputFileError([f"{index}: cannot be read: {error.strerror or error}"]) from None
    except (ValueError, RecursionError, KeyError, TypeError):
        weight_map = None
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise InputFileError([f"{index}: is not an index of safetensors files; delete or replace it"])
    return set(weight_map.values())


def weights_digest(files: tuple[Path, ...]) -> str:
    """SHA-256 over (name, size, SHA-256 of the header, SHA-256 of samples) of each file, sorted by name.

    The header names every tensor with its type, shape and place. The samples are 64 blocks of 4 KiB at
    even distances over the whole file, so that two trainings with the same layout differ too, in a
    fraction of a second however large the files are. It is not a checksum: a change between the
    samples goes unseen.

    Raises:
        InputFileError: a file is not a safetensors file.
    """
    headers = ((path, *_header(path)) for path in sorted(files, key=lambda path: path.name))
    return files_digest(
        (path.name, path, size, hashlib.sha256(header).hexdigest()) for path, size, header in headers
    )


def files_digest(files: Iterable[tuple[str, Path, int, str]]) -> str:
    """SHA-256 over (name, size, SHA-256 of the header, SHA-256 of samples) of each file, in the order given.

    Args:
        files: name, path, bytes and SHA-256 of the header of each.

    Raises:
        InputFileError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for name, path, size, header_sha256 in files:
        parts = (name, str(size), header_sha256, _sampled(path, size))
        digest.update("\0".join(parts).encode() + b"\n")
    return digest.hexdigest()


def _sampled(path: Path, size: int) -> str:
    digest = hashlib.sha256()
    last = max(0, size - SAMPLE_BYTES)
    try:
        with path.open("rb") as file:
            for number in range(SAMPLES):
                file.seek(last * number // (SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
    except OSError as error:
        raise InputFileError([f"{path}: cannot be read: {error.strerror or error}"]) from None
    return digest.hexdigest()


def _header(path: Path) -> tuple[int, bytes]:
    """Size of the file and the bytes of its JSON header (8 bytes of length come first)."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            fits = 0 < length <= min(MAX_HEADER_BYTES, size - 8)
            header = file.read(length) if fits else b""
    except OSError as error:
        raise InputFileError([f"{path}: cannot be read: {error.strerror or error}"]) from None
    if not header.startswith(b"{"):
        raise InputFileError([f"{path}: is not a safetensors file; download it again"])
    return size, header
