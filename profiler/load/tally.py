"""What the events of a stream add up to: chunks, tokens, usage, and where the counts come from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from profiler.load.endpoint import Api
from profiler.load.http import MalformedError
from profiler.load.outcome import CountTokens, Reading
from profiler.load.template import Template, template

Event = tuple[int, bytes, bytes]
"""Stamp, data and type, as :func:`profiler.load.sse.events` gives them."""


@dataclass
class Tally:
    """The sum so far.

    Attributes:
        reading: filled as events come.
        texts: content of each chunk.
        ids: token ids seen.
        template: by which events that bring only a text are read, or None.
        templates_left: how often one is still looked for.
        usage_tokens: output tokens of the last usage report, or None.
        stream_usage: usage came along with content.
        final_usage: usage came by itself, at the end.
        done: ``[DONE]`` was there.
    """

    reading: Reading
    texts: list[str] = field(default_factory=list)
    ids: int = 0
    template: Template | None = None
    templates_left: int = 4
    usage_tokens: int | None = None
    stream_usage: bool = False
    final_usage: bool = False
    done: bool = False


def take_events(tally: Tally, batch: Sequence[Event], api: Api) -> None:
    """Add events up to ``[DONE]``; those that differ from one before in their text only are not parsed."""
    reading = tally.reading
    others: list[Event] = []
    for event in batch:
        stamp, data, kind = event
        text = None if kind or tally.template is None else tally.template.text(data)
        if text is not None:
            if others:
                _take_parsed(tally, others, api)
            reading.chunk_ns.append(stamp)
            reading.chunk_tokens.append(0)
            tally.texts.append(text.decode())
            continue
        if data == b"[DONE]":
            tally.done = True
            break
        others.append(event)
        if tally.template is None and tally.templates_left:
            _take_parsed(tally, others, api)
    _take_parsed(tally, others, api)


def take_texts(tally: Tally, stamps: Sequence[int], texts: Sequence[bytes]) -> None:
    """Add events that bring a text and nothing else."""
    tally.reading.chunk_ns += stamps
    tally.reading.chunk_tokens += [0] * len(stamps)
    tally.texts += map(bytes.decode, texts)


def _take_parsed(tally: Tally, batch: list[Event], api: Api) -> None:
    """Parse events, add them, and empty the list."""
    if not batch:
        return
    for stamp, event in _parsed(batch):
        take(tally, stamp, event, api)
    if tally.templates_left:
        found = template(batch[-1][1], lambda event: _only_text(event, api))
        tally.templates_left -= 1
        tally.template = found or tally.template
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


def _parsed(batch: Sequence[Event]) -> Iterator[tuple[int, Any]]:
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


def take(tally: Tally, stamp: int, event: Any, api: Api) -> None:
    """Add one event."""
    reading = tally.reading
    if not isinstance(event, dict):
        raise MalformedError("an event is no JSON object")
    if event.get("error"):
        reading.fail("server_error", error_text(event))
        return
    usage, choices = event.get("usage"), event.get("choices")
    fresh = _take_usage(tally, usage, final=not choices) if isinstance(usage, dict) else 0
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
        tally.texts.append(content)
        tally.ids += ids
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


def _take_usage(tally: Tally, usage: dict[str, Any], *, final: bool) -> int:
    """Take a usage report and return how many tokens are new since the last."""
    reading = tally.reading
    if isinstance(usage.get("prompt_tokens"), int):
        reading.prompt_tokens = usage["prompt_tokens"]
    details = usage.get("prompt_tokens_details")
    if isinstance(details, dict) and isinstance(details.get("cached_tokens"), int):
        reading.cached_tokens = details["cached_tokens"]
    total = usage.get("completion_tokens")
    if not isinstance(total, int) or isinstance(total, bool) or total < 0:
        return 0
    fresh = total - (tally.usage_tokens or 0)
    tally.stream_usage = tally.stream_usage or bool(total and not final)
    tally.final_usage = tally.final_usage or final
    tally.usage_tokens = total
    return max(fresh, 0)


def settle_counts(tally: Tally, count: CountTokens | None) -> None:
    """Settle the number of tokens and those of the first chunk from the best source there is."""
    reading = tally.reading
    chunks = len(reading.chunk_ns)
    if tally.ids:
        reading.tokens, reading.token_source = tally.ids, "token_ids"
        if tally.usage_tokens is not None and tally.usage_tokens != tally.ids:
            # Ids of some chunks are missing (held back, or only sent once): the server's total counts.
            reading.tokens, reading.token_source = tally.usage_tokens, "usage"
    elif tally.usage_tokens is not None:
        reading.tokens = tally.usage_tokens
        reading.token_source = "stream_usage" if tally.stream_usage and all(reading.chunk_tokens) else "usage"
    elif count is not None and chunks:
        reading.tokens, reading.token_source = count("".join(tally.texts)), "tokenizer"
    elif chunks:
        reading.tokens, reading.token_source = chunks, "chunks"
    if not chunks or not reading.tokens:
        return
    if reading.token_source in ("token_ids", "stream_usage"):
        reading.first_tokens = reading.chunk_tokens[0] or 1
        reading.first_source = "token_ids" if reading.token_source == "token_ids" else "stream_usage"
        return
    if tally.ids and reading.chunk_tokens[0]:
        reading.first_tokens, reading.first_source = reading.chunk_tokens[0], "token_ids"
    elif reading.tokens <= chunks:
        reading.first_tokens, reading.first_source = 1, "single"
    elif count is not None:
        reading.first_tokens, reading.first_source = max(1, count(tally.texts[0])), "tokenizer"
    else:
        reading.first_tokens, reading.first_source = _share(tally, reading.tokens), "share_of_text"
    reading.chunk_tokens = [0] * chunks


def _share(tally: Tally, tokens: int) -> int:
    """Tokens of the first chunk when only the total is known: its share of the characters, at least 1."""
    characters = sum(map(len, tally.texts))
    if not characters:
        return max(1, round(tokens / len(tally.texts)))
    return max(1, round(tokens * len(tally.texts[0]) / characters))


def error_text(answer: Any) -> str:
    """Return what an error's JSON says, in the forms that servers give it."""
    if isinstance(answer, dict):
        inner = answer.get("error", answer.get("detail", answer))
        if isinstance(inner, dict) and isinstance(inner.get("message"), str):
            return str(inner["message"])
        return inner if isinstance(inner, str) else json.dumps(inner)[:2000]
    return json.dumps(answer)[:2000]
