"""One request on its way: its stamps and the raw bytes that came back."""

from __future__ import annotations

from typing import Final

ANSWER_BYTES: Final = 256 * 1024
TOKEN_BYTES: Final = 16 * 1024


class Exchange:
    """A request and its answer as they happen; all stamps are CLOCK_MONOTONIC nanoseconds, 0 before they are.

    Attributes:
        index: number of the request in the whole load.
        endpoint: index of the URL that it goes to.
        scheduled_ns: when it was due.
        sent_ns: when its first byte was handed to the kernel.
        first_byte_ns: receipt of the first byte of the answer.
        end_ns: when it was over, as the client saw it.
        prompt_tokens: prompt length asked for, or 0 when the prompt is text of unknown length.
        output_tokens: tokens asked for.
        pieces: ``(stamp_ns, bytes)`` of every receipt.
        received: bytes received.
        failure: name of a failure seen while it ran, or None.
        message: what is behind it.
        retries: how often it was sent again because a kept-alive connection was gone.
    """

    __slots__ = (
        "end_ns", "endpoint", "failure", "first_byte_ns", "index", "message",
        "output_tokens", "pieces", "prompt_tokens", "received", "retries", "scheduled_ns", "sent_ns",
    )  # fmt: skip

    def __init__(self, index: int, scheduled_ns: int, prompt_tokens: int, output_tokens: int) -> None:
        self.index = index
        self.endpoint = 0
        self.scheduled_ns = scheduled_ns
        self.sent_ns = self.first_byte_ns = self.end_ns = 0
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.pieces: list[tuple[int, bytes]] = []
        self.received = 0
        self.failure: str | None = None
        self.message = ""
        self.retries = 0

    @property
    def most_bytes(self) -> int:
        """More than an answer of this length can have, log-probabilities included.

        Without it thousands of endless answers could each take what a single long one may.
        """
        return ANSWER_BYTES + TOKEN_BYTES * self.output_tokens

    @property
    def last_byte_ns(self) -> int:
        """Receipt of the last byte so far."""
        return self.pieces[-1][0] if self.pieces else 0
