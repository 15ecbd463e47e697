"""Types of the fields of a record.

A run may come from another person, so everything is bounded, and whatever becomes a file name is
hexadecimal.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue

MAX_NAME: Final = 500
MAX_TEXT: Final = 4000
MAX_DEPTH: Final = 50


def _clipped(value: Any) -> Any:
    # An engine's message may be of any length; that must not keep its failure from being recorded.
    return value[: MAX_TEXT - 1] + "…" if isinstance(value, str) and len(value) > MAX_TEXT else value


def _utc(value: str) -> str:
    if datetime.fromisoformat(value).utcoffset() != timedelta(0):
        raise ValueError("must be an ISO 8601 time in UTC, e.g. 2026-01-31T12:00:00+00:00")
    return value


def _whole(value: Any) -> Any:
    """Refuse ``true`` and ``1.0``, which are equal to 1 and are no versions."""
    if type(value) is not int:
        raise ValueError("must be a whole number")
    return value


def _storable(value: Any, depth: int = 0) -> Any:
    """Refuse what JSON text can carry and a record may not: 1e999, lone surrogates, endless nesting."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be finite")
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, list):
        for item in value:
            _storable(item, depth + 1)
    elif isinstance(value, dict):
        for name, item in value.items():
            _storable(name, depth + 1)
            _storable(item, depth + 1)
    return value


# Of the versions of the format; see ``profiler.results.record_base.SCHEMA_VERSION``.
Version = Annotated[Literal[1], BeforeValidator(_whole)]
Identifier = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(max_length=MAX_NAME)]
Text = Annotated[str, Field(max_length=MAX_TEXT), BeforeValidator(_clipped)]
Utc = Annotated[str, Field(max_length=40), AfterValidator(_utc)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
# Up to 2**53 every JSON reader sees the same integer.
Count = Annotated[int, Field(ge=0, le=2**53)]
Positive = Annotated[int, Field(ge=1, le=2**53)]
# Nanoseconds on an axis that begins somewhere in the middle.
Moment = Annotated[int, Field(ge=-(2**53), le=2**53)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Details = Annotated[dict[str, JsonValue], AfterValidator(_storable)]
