"""YAML files that people write: a strict YAML 1.2 subset into a pydantic model, every fault at once.

The subset is what can be read in one way only. Refused are tags, anchors and aliases, duplicate
keys, keys that are not scalars, NaN and infinities, integers with a leading zero (octal in YAML
1.1, decimal in 1.2), several documents in one file, more than :data:`MAX_BYTES` bytes,
:data:`MAX_VALUES` values or :data:`MAX_DEPTH` levels. Plain scalars follow the YAML 1.2 core
schema: ``no``, ``on``, ``12:30:00``, ``2026-01-02`` and ``1_000`` are text, ``1e3`` is a float,
``<<`` is an ordinary key. A key is always the text that stands in the file.

Values reach the model as JSON does and strictly: text is never taken for a number, a list fills a
tuple, a whole number fills a float. Models should forbid unknown keys; :class:`FileModel` does.
"""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from profiler.errors import InputFileError
from profiler.yamlio_faults import Location, plain_words, show_key, show_path

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_VALUES = 20_000
MAX_FAULTS = 100
MAX_NUMBER_CHARACTERS = 100

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
    except _UnreadableError as error:
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


class _UnreadableError(Exception):
    """Reading cannot go on after this fault."""

    def __init__(self, line: int, what: str) -> None:
        self.line = line
        super().__init__(what)


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with our refusals; scalars stay unresolved (see :func:`_scalar`)."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - the name and type are PyYAML's

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.refused: list[tuple[int, str]] = []
        self.aliases: set[yaml.Node] = set()
        self.depth = 0
        self.values = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        parser: Any = self  # the stubs leave the parser's methods untyped
        event = parser.peek_event()
        line = event.start_mark.line + 1
        if self.values == MAX_VALUES:
            raise _UnreadableError(line, f"more than {MAX_VALUES} values; split the file up")
        self.values += 1
        if isinstance(event, yaml.AliasEvent):
            parser.get_event()
            name = show_key(str(event.anchor))
            self.refused.append((line, f"alias '*{name}' is refused; write the value out"))
            node = yaml.ScalarNode("", "", event.start_mark, event.end_mark)  # type: ignore[arg-type]
            self.aliases.add(node)
            return node
        if event.anchor is not None:
            self.refused.append((line, f"anchor '&{show_key(event.anchor)}' is refused; remove it"))
            event.anchor = None
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self.refused.append((line, f"tag {show_key(tag)} is refused; remove it"))
            event.tag = None
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _UnreadableError(line, f"nested more than {MAX_DEPTH} levels deep")
        composed = super().compose_node(parent, index)
        self.depth -= 1
        return composed


def _compose(loader: Any) -> yaml.Node | None:
    """Return the only document's root, or None when there is none."""
    loader.get_event()
    root = None if loader.check_event(yaml.StreamEndEvent) else loader.compose_document()
    if not loader.check_event(yaml.StreamEndEvent):
        line = loader.peek_event().start_mark.line + 1
        raise _UnreadableError(line, "a second document begins here; only one per file is allowed")
    return root


def _parse(text: str) -> tuple[_Loader, yaml.Node]:
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        root = _compose(loader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        raise _UnreadableError(line, f"character U+{code:04X} is not allowed in YAML") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = " ".join(f"{error.context or ''} {error.problem or ''}".split())
        raise _UnreadableError(mark.line + 1 if mark else 1, f"not valid YAML: {words}") from None
    except (ValueError, OverflowError):
        # PyYAML lets int() and chr() fail as they like in "\UFFFFFFFF" and in %YAML directives.
        line = loader.line + 1 if loader else 1
        raise _UnreadableError(line, "not valid YAML: an escape or a version is out of range") from None
    if root is None:
        raise _UnreadableError(1, "holds nothing but comments")
    return loader, root


_NULL = re.compile(r"(?:null|Null|NULL|~|)\Z")
_TRUE = re.compile(r"(?:true|True|TRUE)\Z")
_FALSE = re.compile(r"(?:false|False|FALSE)\Z")
_INTEGER = re.compile(r"[-+]?[0-9]+\Z")
_OTHER_BASE = re.compile(r"(?:0o[0-7]+|0x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_NOT_FINITE = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")


def _scalar(text: str) -> bool | int | float | str | None:
    """Resolve a plain scalar by the YAML 1.2 core schema (section 10.3.2 of its specification).

    Raises:
        ValueError: a number that we refuse.
    """
    if _NULL.match(text):
        return None
    if _TRUE.match(text) or _FALSE.match(text):
        return text[0] in "tT"
    if _NOT_FINITE.match(text):
        raise ValueError(f"'{text}' is refused; numbers must be finite")
    whole, other_base = _INTEGER.match(text), _OTHER_BASE.match(text)
    if not (whole or other_base or _FLOAT.match(text)):
        return text
    if len(text) > MAX_NUMBER_CHARACTERS:
        raise ValueError(f"a number of {len(text)} characters; at most {MAX_NUMBER_CHARACTERS} are allowed")
    if other_base:
        return int(text, 0)
    if whole:
        digits = text.lstrip("+-")
        if len(digits) > 1 and digits[0] == "0":
            raise ValueError(
                f"'{text}' could be octal or decimal; write it without the leading 0, or in quotes for text"
            )
        return int(text)
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"'{text}' is too large for a number")
    return number


def _text(text: str) -> str:
    """Join the surrogate pairs that JSON's escapes spell large characters with.

    Raises:
        ValueError: a surrogate without its other half.
    """
    try:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise ValueError("holds half a surrogate pair, which is not a character") from None


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
        loader, root = _parse(text)
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
            return _scalar(node.value) if getattr(node, "style", None) is None else _text(node.value)
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
                name = _text(key.value)
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
