"""Strategies that damage valid input: bytes, lines, and values of a JSON document in place."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

# Numbers, names and shapes that parsers trip over more often than over random ones.
NASTY_NUMBERS = (
    0,
    -1,
    1,
    2**31,
    2**53 + 1,
    2**63,
    2**64,
    -(2**63),
    10**400,
    1e308,
    -1e308,
    5e-324,
    0.1,
    -0.0,
)
NASTY_TEXTS = (
    "",
    "\0",
    "../../etc/passwd",
    "/etc/passwd",
    "~",
    "x" * 5000,
    "\x1b[31m",
    "\u202e",
    "<script>",
    "{{ 7 * 7 }}",
    "NaN",
    "1e999",
    "9" * 5000,
    "=1+1",
    "null",
    "\ud800",
)
RAW_TOKENS = (
    b"NaN",
    b"Infinity",
    b"1e999",
    b"null",
    b"{",
    b"}",
    b"[",
    b"]" * 3,
    b'"',
    b"\\u0000",
    b"\\ud800",
    b"\x00",
    b"\xff",
    b"\n",
    b"\r",
    b"&a ",
    b"*a",
    b"!!python/object/apply:os.system ",
    b"<<: ",
    b"- ",
    b": ",
    b"---\n",
    b"[" * 2000,
    b"9" * 5000,
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
)

values = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from(NASTY_NUMBERS)
    | st.sampled_from(NASTY_TEXTS)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def damaged_bytes(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A seed with a few bytes changed, cut out, doubled, or replaced by something that parsers dislike."""
    data = bytearray(draw(st.sampled_from(list(seeds))))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        how = draw(st.sampled_from(("flip", "cut", "double", "token", "insert", "truncate")))
        length = draw(st.integers(1, 40))
        if how == "flip" and place < len(data):
            data[place] ^= draw(st.integers(1, 255))
        elif how == "cut":
            del data[place : place + length]
        elif how == "double":
            data[place:place] = data[place : place + length]
        elif how == "token":
            data[place : place + draw(st.integers(0, 3))] = draw(st.sampled_from(RAW_TOKENS))
        elif how == "insert":
            data[place:place] = draw(st.binary(max_size=8))
        elif how == "truncate" and draw(st.booleans()):
            del data[place:]
    return bytes(data)


def _places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items: Any = ()
    if isinstance(document, dict):
        items = document.items()
    elif isinstance(document, list):
        items = enumerate(document)
    for key, inner in items:
        yield from _places(inner, (*path, key))


@st.composite
def damaged_document(draw: st.DrawFn, seeds: Sequence[Any]) -> Any:
    """A JSON document in which a few values are replaced, left out, renamed, doubled or moved."""
    document = copy.deepcopy(draw(st.sampled_from(list(seeds))))
    for _ in range(draw(st.integers(1, 3))):
        places = [place for place in _places(document) if place]
        if not places:
            return draw(values)
        *way, key = draw(st.sampled_from(places))
        parent = document
        for step in way:
            parent = parent[step]
        how = draw(st.sampled_from(("replace", "replace", "remove", "rename", "borrow", "double")))
        if how == "replace":
            parent[key] = draw(values)
        elif how == "remove":
            del parent[key]
        elif how == "rename" and isinstance(parent, dict):
            parent[draw(st.sampled_from(NASTY_TEXTS) | st.text(max_size=8))] = parent.pop(key)
        elif how == "double" and isinstance(parent, list):
            parent.extend(copy.deepcopy(parent[key]) for _ in range(draw(st.integers(1, 30))))
        elif how == "borrow":
            other: Any = document
            for step in draw(st.sampled_from(places)):
                other = other[step]
            parent[key] = copy.deepcopy(other)
    return document


def as_json(document: Any) -> bytes:
    """A document as JSON text, with whatever it holds; lone surrogates stay escaped."""
    return json.dumps(document).encode()


def damaged_json(
    documents: Sequence[Any], spell: Callable[[Any], bytes] = as_json
) -> st.SearchStrategy[bytes]:
    """Damaged documents, spelt as JSON, and damaged spellings of whole ones."""
    spelt = [spell(document) for document in documents]
    return damaged_document(documents).map(spell) | damaged_bytes(spelt)
