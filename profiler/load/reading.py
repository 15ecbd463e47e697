"""What a finished exchange says: tokens with their stamps, or why it failed.

Runs after the request, never between two receipts. Chunks (events that bring content) and tokens are
told apart; where the number of tokens comes from is part of the result.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from itertools import chain, islice
from typing import Final

from profiler.load.endpoint import Api
from profiler.load.exchange import Exchange
from profiler.load.http import Content, Head, MalformedError, split_head
from profiler.load.outcome import DONE_MISSING, LENGTH_DIFFERS, NOT_CLOSED, RETRIED, CountTokens, Reading
from profiler.load.redact import redact
from profiler.load.sse import Place, events
from profiler.load.tally import Tally, error_text, settle_counts, take, take_events, take_texts

CHUNKS_PER_STEP: Final = 128
EVENTS_PER_STEP: Final = 32
"""About a tenth of a millisecond of work, so that a long answer read meanwhile delays nobody."""


def read_exchange(
    exchange: Exchange, api: Api, *, key: str | None = None, count: CountTokens | None = None
) -> Reading:
    """Return what an exchange that has ended says; all of :func:`reading_steps` at once."""
    steps = reading_steps(exchange, api, key=key, count=count)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            reading: Reading = end.value
            return reading


def reading_steps(
    exchange: Exchange, api: Api, *, key: str | None = None, count: CountTokens | None = None
) -> Generator[None, None, Reading]:
    """Read an exchange that has ended in steps of at most :data:`EVENTS_PER_STEP` events.

    Args:
        exchange: the exchange with its raw pieces.
        api: how to read events.
        key: the API key, kept out of messages.
        count: counts the tokens of a text, for servers that report neither usage nor ids.
    """
    reading = Reading(notes=RETRIED if exchange.retries else 0)
    tally = Tally(reading)
    unframed = Unframed(exchange.pieces)
    try:
        pieces = iter(unframed)
        first = next(pieces, None)
        head = unframed.head
        if head is None:
            return reading.fail(exchange.failure or "stream_cut", exchange.message or "no answer")
        reading.http_status = head.status
        rest = pieces if first is None else chain((first,), pieces)
        if head.status != 200:
            return _refused(reading, head, b"".join(piece for _, piece in rest), key)
        if head.content_type == "application/json":
            whole = list(rest)
            if whole:
                take(tally, whole[-1][0], json.loads(b"".join(piece for _, piece in whole)), api)
        else:
            place = Place()
            stream_events = events(rest, place)
            # A template is found by the first few events; until then each is parsed.
            while batch := list(islice(stream_events, EVENTS_PER_STEP if tally.template else 4)):
                take_events(tally, batch, api)
                if tally.done:
                    for _ in pieces:  # the framing must hold to its end
                        pass
                    break
                yield
                if tally.template is not None and place.between and unframed.between:
                    while unframed.take_plain(tally, CHUNKS_PER_STEP):
                        yield
    except MalformedError as error:
        waited = exchange.failure in ("timeout", "idle_timeout")  # in vain, for the end of a broken framing
        reading.fail(exchange.failure if exchange.failure and not waited else "malformed", str(error))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        # A stream that was cut ends in half an event; the cut is what happened.
        reading.fail(exchange.failure or "malformed", exchange.message or _malformed(error))
    settle_counts(tally, count)
    ended = unframed.content is not None and unframed.content.done
    json_answer = unframed.head is not None and unframed.head.content_type == "application/json"
    return _judge(tally, exchange, key, ended=ended, json_answer=json_answer)


class Unframed:
    """Pieces of content of an exchange, taken out of their framing one by one.

    Attributes:
        head: of the answer, as soon as it is there.
        content: takes the framing off.
        between: the receipt that was taken last was one whole chunk, and nothing of it is left.
    """

    def __init__(self, raw: Sequence[tuple[int, bytes]]) -> None:
        self.head: Head | None = None
        self.content: Content | None = None
        self.between = False
        self._raw = raw
        self._next = 0

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Yield ``(stamp_ns, content)``."""
        before = b""
        while self._next < len(self._raw):
            stamp, data = self._raw[self._next]
            self._next += 1
            if self.content is None:
                before += data
                self.head, data = split_head(before)
                if self.head is None:
                    continue
                self.content = Content(self.head)
            whole = self.content.whole_chunk(data)
            self.between = whole is not None
            if whole is not None:
                yield stamp, whole
            elif data:
                self.content.feed(stamp, data)
                yield from self.content.pieces
                self.content.pieces.clear()

    def take_plain(self, tally: Tally, most: int) -> bool:
        """Take receipts that are one chunk with one event of the template each, past all other readers.

        Returns:
            Whether ``most`` were taken, so that there may be more.
        """
        assert tally.template is not None
        plain = self._raw[self._next : self._next + most]
        texts = tally.template.texts_of_chunks([data for _, data in plain])
        take_texts(tally, [stamp for stamp, _ in plain[: len(texts)]], texts)
        self._next += len(texts)
        return len(texts) == most


def _refused(reading: Reading, head: Head, content: bytes, key: str | None) -> Reading:
    text = content[:20_000].decode("utf-8", "replace")
    try:
        text = error_text(json.loads(text))
    except (ValueError, RecursionError):
        pass  # not JSON: the text itself is the message
    kind = f"http_{head.status // 100}xx" if head.status >= 300 else "malformed"
    return reading.fail(kind, f"HTTP {head.status}: {redact(text, key)}".rstrip(": "))


def _malformed(error: Exception) -> str:
    return (
        str(error)
        if isinstance(error, MalformedError)
        else f"an event is not what it should be: {error}"[:200]
    )


def _judge(tally: Tally, exchange: Exchange, key: str | None, *, ended: bool, json_answer: bool) -> Reading:
    """Say whether the request succeeded."""
    reading = tally.reading
    reading.message = redact(reading.message, key)
    if exchange.failure and not (tally.done and exchange.failure in ("stream_cut", "idle_timeout")):
        return reading.fail(exchange.failure, exchange.message)
    if not ended and not tally.done:
        return reading.fail("stream_cut", "the answer does not end where it should")
    if not ended:
        reading.notes |= NOT_CLOSED
    if not reading.chunk_ns or not reading.tokens:
        return reading.fail("no_tokens", "the answer holds no token")
    if not tally.done and not json_answer:
        reading.notes |= DONE_MISSING
        said_so = reading.finish_reason or tally.final_usage
        if not said_so and reading.tokens < exchange.output_tokens:
            return reading.fail("stream_cut", "the stream ends early, without finish_reason or [DONE]")
    if reading.tokens != exchange.output_tokens:
        reading.notes |= LENGTH_DIFFERS
    return reading
