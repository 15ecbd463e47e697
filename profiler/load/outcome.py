"""The outcome of one request, as it goes into the results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

TokenSource = Literal["token_ids", "stream_usage", "usage", "tokenizer", "chunks", "none"]
FirstSource = Literal["token_ids", "stream_usage", "tokenizer", "single", "share_of_text", "none"]
CountTokens = Callable[[str], int]

DONE_MISSING: Final = 1
RETRIED: Final = 2
NOT_CLOSED: Final = 4
LENGTH_DIFFERS: Final = 8
"""Bits of :attr:`Reading.notes`."""


@dataclass
class Reading:
    """The outcome of one request.

    Attributes:
        status: ``ok`` or the name of the failure (docs/metrics.md).
        message: what is behind a failure, redacted.
        chunk_ns: stamp of every event that brought content or tokens.
        chunk_tokens: tokens of each, 0 where only the total is known.
        tokens: output tokens, or None.
        token_source: where ``tokens`` comes from.
        first_tokens: tokens of the first chunk, or None.
        first_source: where that comes from.
        prompt_tokens: prompt length that the server reports, or None.
        cached_tokens: prompt tokens that the server took from a cache, or None when it does not say.
        finish_reason: as the server says, or an empty string.
        first_answer_ns: stamp of the first content that is not reasoning, or None.
        notes: bits of what was odd and did no harm.
        http_status: status of the answer, 0 without one.
    """

    status: str = "ok"
    message: str = ""
    chunk_ns: list[int] = field(default_factory=list)
    chunk_tokens: list[int] = field(default_factory=list)
    tokens: int | None = None
    token_source: TokenSource = "none"
    first_tokens: int | None = None
    first_source: FirstSource = "none"
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    finish_reason: str = ""
    first_answer_ns: int | None = None
    notes: int = 0
    http_status: int = 0

    def fail(self, status: str, message: str) -> Reading:
        """Make it a failure, unless it is one already."""
        if self.status == "ok":
            self.status, self.message = status, message
        return self
