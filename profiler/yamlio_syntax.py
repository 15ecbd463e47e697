"""The syntax of the YAML subset of :mod:`profiler.yamlio`: what is refused, and what a plain scalar means."""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from profiler.yamlio_faults import show_key

MAX_DEPTH = 64
MAX_VALUES = 20_000
MAX_NUMBER_CHARACTERS = 100


class UnreadableError(Exception):
    """Reading cannot go on after this fault."""

    def __init__(self, line: int, what: str) -> None:
        self.line = line
        super().__init__(what)


class Loader(yaml.SafeLoader):
    """PyYAML's parser with our refusals; scalars stay unresolved (see :func:`plain_scalar`)."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - the name and type are PyYAML's

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.refused: list[tuple[int, str]] = []
        self.aliases: set[yaml.Node] = set()
        self.depth = 0
        self.values = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose one value; what is refused is noted and read on behind."""
        parser: Any = self  # the stubs leave the parser's methods untyped
        event = parser.peek_event()
        line = event.start_mark.line + 1
        if self.values == MAX_VALUES:
            raise UnreadableError(line, f"more than {MAX_VALUES} values; split the file up")
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
            raise UnreadableError(line, f"nested more than {MAX_DEPTH} levels deep")
        composed = super().compose_node(parent, index)
        self.depth -= 1
        return composed


def _compose(loader: Any) -> yaml.Node | None:
    """Return the only document's root, or None when there is none."""
    loader.get_event()
    root = None if loader.check_event(yaml.StreamEndEvent) else loader.compose_document()
    if not loader.check_event(yaml.StreamEndEvent):
        line = loader.peek_event().start_mark.line + 1
        raise UnreadableError(line, "a second document begins here; only one per file is allowed")
    return root


def compose_only(text: str) -> tuple[Loader, yaml.Node]:
    """Return the loader and the root of the only document in ``text``.

    Raises:
        UnreadableError: it is not YAML of our subset in a way that ends the reading.
    """
    loader: Loader | None = None
    try:
        loader = Loader(text)
        root = _compose(loader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        raise UnreadableError(line, f"character U+{code:04X} is not allowed in YAML") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = " ".join(f"{error.context or ''} {error.problem or ''}".split())
        raise UnreadableError(mark.line + 1 if mark else 1, f"not valid YAML: {words}") from None
    except (ValueError, OverflowError):
        # PyYAML lets int() and chr() fail as they like in "\UFFFFFFFF" and in %YAML directives.
        line = loader.line + 1 if loader else 1
        raise UnreadableError(line, "not valid YAML: an escape or a version is out of range") from None
    if root is None:
        raise UnreadableError(1, "holds nothing but comments")
    return loader, root


_NULL = re.compile(r"(?:null|Null|NULL|~|)\Z")
_TRUE = re.compile(r"(?:true|True|TRUE)\Z")
_FALSE = re.compile(r"(?:false|False|FALSE)\Z")
_INTEGER = re.compile(r"[-+]?[0-9]+\Z")
_OTHER_BASE = re.compile(r"(?:0o[0-7]+|0x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_NOT_FINITE = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")


def plain_scalar(text: str) -> bool | int | float | str | None:
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


def joined_text(text: str) -> str:
    """Join the surrogate pairs that JSON's escapes spell large characters with.

    Raises:
        ValueError: a surrogate without its other half.
    """
    try:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise ValueError("holds half a surrogate pair, which is not a character") from None
