"""YAML files that people write: a strict YAML 1.2 subset into a pydantic model, every fault at once.

The subset is what can be read in one way only. Refused are tags, anchors and aliases, duplicate
keys, keys that are not scalars, NaN and infinities, integers with a leading zero (octal in YAML
1.1, decimal in 1.2), several documents in one file, more than :data:`MAX_BYTES` bytes,
or more values or levels than :mod:`profiler.yamlio_syntax` allows. Plain scalars follow the YAML 1.2 core
schema: ``no``, ``on``, ``12:30:00``, ``2026-01-02`` and ``1_000`` are text, ``1e3`` is a float,
``<<`` is an ordinary key. A key is always the text that stands in the file.

Values reach the model as JSON does and strictly: text is never taken for a number, a list fills a
tuple, a whole number fills a float. Models should forbid unknown keys; :class:`FileModel` does.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from profiler.errors import InputFileError
from profiler.yamlio_faults import Location, plain_words, show_path
from profiler.yamlio_syntax import UnreadableError, compose_only, joined_text, plain_scalar

MAX_BYTES = 1 << 20
MAX_FAULTS = 100

M = TypeVar("M", bound=BaseModel)


class FileModel(BaseModel):
    """Base of models that are filled from files: unknown keys are faults, instances are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def load_yaml(path: Path, model: type[M]) -> M:
    """Read the YAML file ``path`` into ``model``.

    Raises:
        InputFileError: the file cannot be read, is not YAML of our subset, or does not fit the model.
    """
    return parse_yaml(_read_text(path), model, str(path))


def parse_yaml(text: str, model: type[M], where: str) -> M:
    """Read YAML ``text`` into ``model``.

    Args:
        text: one YAML document.
        model: class to fill.
        where: what stands before the line number in faults, usually the file's name.

    Raises:
        InputFileError: with one line ``where:line: field.path: what is wrong`` per fault, by line.
    """
    if len(text) > MAX_BYTES:
        raise InputFileError([f"{where}: larger than {MAX_BYTES} characters; split it up"])
    if not text.strip("\ufeff \t\r\n"):
        raise InputFileError([f"{where}: is empty"])
    document = _Document()
    try:
        document.read(text)
    except UnreadableError as error:
        document.fault(error.line, str(error))
        raise InputFileError(_report(where, document.faults)) from None
    filled: M | None = None
    try:
        # JSON mode is strict about types without refusing lists for tuples or text for enums and paths.
        filled = model.model_validate_json(json.dumps(document.value), strict=True)
    except ValidationError as error:
        for location, what in plain_words(error, model, document.value):
            if not document.is_spoiled(location):
                document.fault(document.line_of(location), what, location)
    if document.faults or filled is None:
        raise InputFileError(_report(where, document.faults))
    return filled


def _report(where: str, faults: list[tuple[int, str]]) -> list[str]:
    lines = [f"{where}:{line}: {what}" for line, what in sorted(faults, key=lambda fault: fault[0])]
    if len(lines) > MAX_FAULTS:
        left_out = len(lines) - MAX_FAULTS
        lines[MAX_FAULTS:] = [f"{where}: and {left_out} more faults; correct these first"]
    return lines


def _read_text(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputFileError([f"{path}: is a directory, not a YAML file"])
        if not stat.S_ISREG(mode):  # reading a pipe or a terminal could wait for ever
            raise InputFileError([f"{path}: is not a regular file; save the YAML to a file first"])
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputFileError([f"{path}: no such file"]) from None
    except ValueError as error:  # a NUL byte or a lone surrogate in the name
        raise InputFileError([f"{str(path)!r}: not a usable file name ({error})"]) from None
    except OSError as error:
        raise InputFileError([f"{path}: cannot be read: {error.strerror or error}"]) from None
    if len(raw) > MAX_BYTES:
        raise InputFileError([f"{path}: larger than {MAX_BYTES} bytes; split it up"])
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = f"0x{raw[error.start]:02x}"
        raise InputFileError([f"{path}:{line}: byte {byte} is not UTF-8 text; save it as UTF-8"]) from None


class _Document:
    """One parsed document: plain values, the line of every location, and the faults so far."""

    def __init__(self) -> None:
        self.value: Any = None
        self.faults: list[tuple[int, str]] = []
        self._lines: dict[Location, int] = {}
        self._spoiled: set[Location] = set()
        self._aliases: set[yaml.Node] = set()

    def read(self, text: str) -> None:
        """Parse ``text``; faults that reading can go on after are collected."""
        loader, root = compose_only(text)
        self._aliases = loader.aliases
        self.faults += loader.refused
        self.value = self._convert(root, ())

    def fault(self, line: int, what: str, location: Location = ()) -> None:
        """Note one fault."""
        self.faults.append((line, f"{show_path(location)}: {what}" if location else what))

    def line_of(self, location: Location) -> int:
        """Line of the key or list item at ``location``, or of the nearest part around it."""
        return next((self._lines[part] for part in _outward(location) if part in self._lines), 1)

    def is_spoiled(self, location: Location) -> bool:
        """Whether the value at ``location`` already has a fault and was replaced by null."""
        return any(part in self._spoiled for part in _outward(location))

    def _convert(self, node: yaml.Node, location: Location) -> Any:
        self._lines.setdefault(location, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, location)
        if isinstance(node, yaml.SequenceNode):
            return [self._convert(item, (*location, index)) for index, item in enumerate(node.value)]
        if node in self._aliases:
            self._spoiled.add(location)
            return None
        try:
            # Quoted and block scalars are text whatever they look like.
            return (
                plain_scalar(node.value) if getattr(node, "style", None) is None else joined_text(node.value)
            )
        except ValueError as error:
            self.fault(node.start_mark.line + 1, str(error), location)
            self._spoiled.add(location)
            return None

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key in self._aliases:
                continue
            if not isinstance(key, yaml.ScalarNode):
                self.fault(line, "a key must be plain text", location)
                continue
            try:
                name = joined_text(key.value)
            except ValueError as error:
                self.fault(line, f"a key {error}", location)
                continue
            inner = (*location, name)
            if name in entries:
                self.fault(line, f"duplicate key (first in line {self._lines[inner]})", inner)
                continue
            self._lines[inner] = line
            entries[name] = self._convert(value, inner)
        return entries


def _outward(location: Location) -> Iterator[Location]:
    return (location[:end] for end in range(len(location), -1, -1))
