"""Events of a stream that differ from one another in their text only: read without parsing each.

Nearly all events of an answer are byte for byte the same except for one string. What surrounds that
string is found in one event and proved: with another string in its place the event parses and means
that string and nothing else. An event with the same surroundings and a string without quotes,
backslashes or control characters in between then means its string, by the grammar of JSON (RFC 8259).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from profiler.load.http import size_line

_TEXT = re.compile(rb'"(?:text|content)": ?"([^"\\]+)"')
_SPECIAL = re.compile(rb'["\\\x00-\x1f]')
_OTHER = "another text"


class Template:
    """What surrounds the text of an event.

    Args:
        before: bytes up to the text.
        after: bytes from the end of the text on.
    """

    __slots__ = ("_after", "_before", "_framed_after", "_framed_before", "_from", "_to")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = before
        self._after = after
        self._from = len(before)
        self._to = -len(after)
        self._framed_after = after + b"\n\n\r\n"
        self._framed_before: dict[int, bytes] = {}

    def text(self, event: bytes) -> bytes | None:
        """Return the text of an event in UTF-8, or None where the event has to be parsed."""
        if not (event.startswith(self._before) and event.endswith(self._after)):
            return None
        text = event[self._from : self._to]
        return None if not text or _SPECIAL.search(text) else text

    def texts_of_chunks(self, receipts: Sequence[bytes]) -> list[bytes]:
        """Return the texts of receipts that are one HTTP chunk with one event each, up to the first other."""
        after, to = self._framed_after, -len(self._framed_after)
        texts: list[bytes] = []
        size, before, start = -1, b"", 0
        for data in receipts:
            if len(data) != size:
                size = len(data)
                before = self._framed_before.get(size) or self._framing(size)
                start = len(before)
            if not (data.startswith(before) and data.endswith(after)):
                break
            texts.append(data[start:to])
        if not all(texts) or _SPECIAL.search(b"".join(texts)):
            # Which, is looked for only where there is one: these end what is plain.
            odd = (at for at, text in enumerate(texts) if not text or _SPECIAL.search(text))
            del texts[next(odd) :]
        return texts

    def _framing(self, size: int) -> bytes:
        """Return how a chunk of ``size`` bytes in all begins."""
        head = size_line(size)
        # Of a length that no chunk has, nothing can begin like this.
        before = head + b"data: " + self._before if head else b"\n"
        if len(self._framed_before) < 1000:
            self._framed_before[size] = before
        return before


def template(event: bytes, means: Callable[[Any], str | None]) -> Template | None:
    """Return the template of an event, or None where it has none.

    Args:
        event: an event of the stream, JSON in UTF-8.
        means: returns the text of a parsed event that brings a text and nothing else, and None for others.
    """
    found = _TEXT.search(event)
    if found is None:
        return None
    before, after = event[: found.start(1)], event[found.end(1) :]
    try:
        proved = means(json.loads(before + _OTHER.encode() + after)) == _OTHER
    except (ValueError, RecursionError):
        return None
    return Template(before, after) if proved else None
