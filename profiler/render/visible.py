"""Characters that nobody sees, made visible: a run comes from another person."""

from __future__ import annotations

import re
from typing import Any, Final

# Controls, marks that turn the direction of text round, and what XML cannot carry: one of those in a text
# that is measured ends vl-convert, and with it the process.
_HIDDEN: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)


def visible(text: str) -> str:
    """Return a text whose hidden characters are spelt out by their code."""
    return _HIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def visible_in(value: Any) -> Any:
    """Return a document of dicts and lists with :func:`visible` texts."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {key: visible_in(item) for key, item in value.items()}
    return [visible_in(item) for item in value] if isinstance(value, list) else value
