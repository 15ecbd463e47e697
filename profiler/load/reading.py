"""What a finished exchange says: tokens with their stamps, or why it failed.

Runs after the request, never between two receipts. Chunks (events that bring content) and tokens are
told apart; where the number of tokens comes from is part of the result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Final, Literal

from profiler.load.endpoint import Api
from profiler.load.exchange import Exchange
from profiler.load.http import Content, Head, MalformedError, split_head
from profiler.load.redact import redact
from profiler.load.sse import events
from profiler.load.template import Template, template

TokenSource = Literal["token_ids", "stream_usage", "usage", "tokenizer", "chunks", "none"]
FirstSource = Literal["token_ids", "stream_usage", "tokenizer", "single", "share_of_text", "none"]
CountTokens = Callable[[str], int]

EVENTS_PER_STEP: Final = 32
"""About a tenth of a millisecond of work, so that a long answer read meanwhile delays nobody."""

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


@dataclass
class _Stream:
    """What the events of one stream add up to."""

    reading: Reading
    texts: list[str] = field(default_factory=list)
    ids: int = 0
    template: Template | None = None
    templates_left: int = 4
    usage_tokens: int | None = None
    stream_usage: bool = False
    final_usage: bool = False
    done: bool = False


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
    stream = _Stream(reading)
    unframed = _Unframed(exchange.pieces)
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
                _take(stream, whole[-1][0], json.loads(b"".join(piece for _, piece in whole)), api)
        else:
            stream_events = events(rest)
            while batch := list(islice(stream_events, EVENTS_PER_STEP)):
                _take_batch(stream, batch, api)
                if stream.done:
                    for _ in pieces:  # the framing must hold to its end
                        pass
                    break
                yield
    except MalformedError as error:
        waited = exchange.failure in ("timeout", "idle_timeout")  # in vain, for the end of a broken framing
        reading.fail(exchange.failure if exchange.failure and not waited else "malformed", str(error))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        # A stream that was cut ends in half an event; the cut is what happened.
        reading.fail(exchange.failure or "malformed", exchange.message or _malformed(error))
    _count(stream, count)
    ended = unframed.content is not None and unframed.content.done
    json_answer = unframed.head is not None and unframed.head.content_type == "application/json"
    return _judge(stream, exchange, key, ended=ended, json_answer=json_answer)


def _take_batch(stream: _Stream, batch: Sequence[tuple[int, bytes, bytes]], api: Api) -> None:
    """Add events up to ``[DONE]``; those that differ from one before in their text only are not parsed."""
    reading = stream.reading
    others: list[tuple[int, bytes, bytes]] = []
    for event in batch:
        stamp, data, kind = event
        text = None if kind or stream.template is None else stream.template.text(data)
        if text is not None:
            if others:
                _take_parsed(stream, others, api)
            reading.chunk_ns.append(stamp)
            reading.chunk_tokens.append(0)
            stream.texts.append(text.decode())
            continue
        if data == b"[DONE]":
            stream.done = True
            break
        others.append(event)
        if stream.template is None and stream.templates_left:
            _take_parsed(stream, others, api)
    _take_parsed(stream, others, api)


def _take_parsed(stream: _Stream, batch: list[tuple[int, bytes, bytes]], api: Api) -> None:
    """Parse events, add them, and empty the list."""
    if not batch:
        return
    for stamp, event in _parsed(batch):
        _take(stream, stamp, event, api)
    if stream.templates_left:
        found = template(batch[-1][1], lambda event: _only_text(event, api))
        if found is not None:
            stream.template = found
            stream.templates_left -= 1
    batch.clear()


def _only_text(event: Any, api: Api) -> str | None:
    """Return the text of an event that brings an answer's text and nothing else, None for any other."""
    if not isinstance(event, dict) or event.get("error") or isinstance(event.get("usage"), dict):
        return None
    choices = event.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        return None
    text, answer, ids = _chat_parts(choices[0]) if api == "chat" else _text_parts(choices[0])
    return text if answer and not ids and not choices[0].get("finish_reason") else None


def _parsed(batch: Sequence[tuple[int, bytes, bytes]]) -> Iterator[tuple[int, Any]]:
    """Yield stamp and content of events.

    All are parsed as one array, in a third of the time. Where that fails, or does not give as many
    (``1,2`` is no JSON, but fits into an array), they are parsed one by one up to the one that is at fault.
    """
    try:
        found = json.loads(b"[" + b",".join([data for _, data, _ in batch]) + b"]")
    except (ValueError, RecursionError):
        found = None
    if found is None or len(found) != len(batch) or any(kind for _, _, kind in batch):
        for stamp, data, kind in batch:
            event = json.loads(data)
            if kind == b"error" and isinstance(event, dict):
                event = {"error": event.get("error", event)}
            yield stamp, event
        return
    for (stamp, _, _), event in zip(batch, found, strict=True):
        yield stamp, event


class _Unframed:
    """Pieces of content of an exchange, taken out of their framing one by one."""

    def __init__(self, raw: Iterable[tuple[int, bytes]]) -> None:
        self.head: Head | None = None
        self.content: Content | None = None
        self._raw = raw

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Yield ``(stamp_ns, content)``."""
        before = b""
        for stamp, data in self._raw:
            if self.content is None:
                before += data
                self.head, data = split_head(before)
                if self.head is None:
                    continue
                self.content = Content(self.head)
            whole = self.content.whole_chunk(data)
            if whole is not None:
                yield stamp, whole
            elif data:
                self.content.feed(stamp, data)
                yield from self.content.pieces
                self.content.pieces.clear()


def _refused(reading: Reading, head: Head, content: bytes, key: str | None) -> Reading:
    text = content[:20_000].decode("utf-8", "replace")
    try:
        text = _error_text(json.loads(text))
    except (ValueError, RecursionError):
        pass  # not JSON: the text itself is the message
    kind = f"http_{head.status // 100}xx" if head.status >= 300 else "malformed"
    return reading.fail(kind, f"HTTP {head.status}: {redact(text, key)}".rstrip(": "))


def _error_text(answer: Any) -> str:
    if isinstance(answer, dict):
        inner = answer.get("error", answer.get("detail", answer))
        if isinstance(inner, dict) and isinstance(inner.get("message"), str):
            return str(inner["message"])
        return inner if isinstance(inner, str) else json.dumps(inner)[:2000]
    return json.dumps(answer)[:2000]


def _malformed(error: Exception) -> str:
    return (
        str(error)
        if isinstance(error, MalformedError)
        else f"an event is not what it should be: {error}"[:200]
    )


def _take(stream: _Stream, stamp: int, event: Any, api: Api) -> None:
    """Add one event."""
    reading = stream.reading
    if not isinstance(event, dict):
        raise MalformedError("an event is no JSON object")
    if event.get("error"):
        reading.fail("server_error", _error_text(event))
        return
    usage, choices = event.get("usage"), event.get("choices")
    fresh = _take_usage(stream, usage, final=not choices) if isinstance(usage, dict) else 0
    content, answer, ids = "", False, 0
    for choice in choices or ():
        text, is_answer, id_count = _chat_parts(choice) if api == "chat" else _text_parts(choice)
        content += text
        answer = answer or is_answer
        ids += id_count
        if choice.get("finish_reason"):
            reading.finish_reason = str(choice["finish_reason"])[:40]
    if content or ids or (fresh and choices):
        reading.chunk_ns.append(stamp)
        reading.chunk_tokens.append(ids or fresh)
        stream.texts.append(content)
        stream.ids += ids
        if reading.first_answer_ns is None and (answer or not content):
            reading.first_answer_ns = stamp


def _text_parts(choice: dict[str, Any]) -> tuple[str, bool, int]:
    text = choice.get("text") or ""
    return text, bool(text), len(choice.get("token_ids") or ())


def _chat_parts(choice: dict[str, Any]) -> tuple[str, bool, int]:
    delta = choice.get("delta") or choice.get("message") or {}
    thought = delta.get("reasoning_content") or delta.get("reasoning") or ""
    answer = delta.get("content") or delta.get("refusal") or ""
    for call in delta.get("tool_calls") or ():
        function = call.get("function") or {}
        answer += (function.get("name") or "") + (function.get("arguments") or "")
    return str(thought) + str(answer), bool(answer), len(choice.get("token_ids") or ())


def _take_usage(stream: _Stream, usage: dict[str, Any], *, final: bool) -> int:
    """Take a usage report and return how many tokens are new since the last."""
    reading = stream.reading
    if isinstance(usage.get("prompt_tokens"), int):
        reading.prompt_tokens = usage["prompt_tokens"]
    details = usage.get("prompt_tokens_details")
    if isinstance(details, dict) and isinstance(details.get("cached_tokens"), int):
        reading.cached_tokens = details["cached_tokens"]
    total = usage.get("completion_tokens")
    if not isinstance(total, int) or isinstance(total, bool) or total < 0:
        return 0
    fresh = total - (stream.usage_tokens or 0)
    stream.stream_usage = stream.stream_usage or bool(total and not final)
    stream.final_usage = stream.final_usage or final
    stream.usage_tokens = total
    return max(fresh, 0)


def _count(stream: _Stream, count: CountTokens | None) -> None:
    """Settle the number of tokens and those of the first chunk from the best source there is."""
    reading = stream.reading
    chunks = len(reading.chunk_ns)
    if stream.ids:
        reading.tokens, reading.token_source = stream.ids, "token_ids"
        if stream.usage_tokens is not None and stream.usage_tokens != stream.ids:
            # Ids of some chunks are missing (held back, or only sent once): the server's total counts.
            reading.tokens, reading.token_source = stream.usage_tokens, "usage"
    elif stream.usage_tokens is not None:
        reading.tokens = stream.usage_tokens
        reading.token_source = (
            "stream_usage" if stream.stream_usage and all(reading.chunk_tokens) else "usage"
        )
    elif count is not None and chunks:
        reading.tokens, reading.token_source = count("".join(stream.texts)), "tokenizer"
    elif chunks:
        reading.tokens, reading.token_source = chunks, "chunks"
    if not chunks or not reading.tokens:
        return
    if reading.token_source in ("token_ids", "stream_usage"):
        reading.first_tokens = reading.chunk_tokens[0] or 1
        reading.first_source = "token_ids" if reading.token_source == "token_ids" else "stream_usage"
        return
    if stream.ids and reading.chunk_tokens[0]:
        reading.first_tokens, reading.first_source = reading.chunk_tokens[0], "token_ids"
    elif reading.tokens <= chunks:
        reading.first_tokens, reading.first_source = 1, "single"
    elif count is not None:
        reading.first_tokens, reading.first_source = max(1, count(stream.texts[0])), "tokenizer"
    else:
        reading.first_tokens, reading.first_source = _share(stream, reading.tokens), "share_of_text"
    reading.chunk_tokens = [0] * chunks


def _share(stream: _Stream, tokens: int) -> int:
    """Tokens of the first chunk when only the total is known: its share of the characters, at least 1."""
    characters = sum(map(len, stream.texts))
    if not characters:
        return max(1, round(tokens / len(stream.texts)))
    return max(1, round(tokens * len(stream.texts[0]) / characters))


def _judge(
    stream: _Stream, exchange: Exchange, key: str | None, *, ended: bool, json_answer: bool
) -> Reading:
    """Say whether the request succeeded."""
    reading = stream.reading
    reading.message = redact(reading.message, key)
    if exchange.failure and not (stream.done and exchange.failure in ("stream_cut", "idle_timeout")):
        return reading.fail(exchange.failure, exchange.message)
    if not ended and not stream.done:
        return reading.fail("stream_cut", "the answer does not end where it should")
    if not ended:
        reading.notes |= NOT_CLOSED
    if not reading.chunk_ns or not reading.tokens:
        return reading.fail("no_tokens", "the answer holds no token")
    if not stream.done and not json_answer:
        reading.notes |= DONE_MISSING
        said_so = reading.finish_reason or stream.final_usage
        if not said_so and reading.tokens < exchange.output_tokens:
            return reading.fail("stream_cut", "the stream ends early, without finish_reason or [DONE]")
    if reading.tokens != exchange.output_tokens:
        reading.notes |= LENGTH_DIFFERS
    return reading
