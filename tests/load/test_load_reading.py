"""Framing, events and tokens do not depend on where the network cuts the bytes."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.load.exchange import Exchange
from profiler.load.http import Content, MalformedError, parse_head, split_head
from profiler.load.outcome import Reading
from profiler.load.reading import read_exchange
from profiler.load.sse import events

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(text: str, **more: Any) -> bytes:
    whole = {"choices": [{"index": 0, "text": text, **more}]}
    return b"data: " + json.dumps(whole, ensure_ascii=False).encode() + b"\n\n"


def cut(data: bytes, places: list[int]) -> list[tuple[int, bytes]]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [(number + 1, data[low:high]) for number, (low, high) in enumerate(pairwise(edges))]


def read(pieces: list[tuple[int, bytes]], output_tokens: int = 3) -> Reading:
    exchange = Exchange(0, 0, 4, output_tokens)
    exchange.pieces = [piece for piece in pieces if piece[1]]
    return read_exchange(exchange, "completions")


USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 3}}\n\n'
ANSWER = b"".join(
    chunk(part) for part in (event("für"), event(" 語"), event(" z", finish_reason="stop"), USAGE)
)
WHOLE = HEAD + ANSWER + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


@given(st.lists(st.integers(0, len(WHOLE)), max_size=12))
def test_cuts_change_nothing_but_stamps(places: list[int]) -> None:
    reading = read(cut(WHOLE, places))
    assert (reading.status, reading.tokens, len(reading.chunk_ns)) == ("ok", 3, 3)
    assert reading.chunk_ns == sorted(reading.chunk_ns)
    assert reading.finish_reason == "stop"


@given(st.integers(0, len(WHOLE) - 1))
def test_an_answer_that_is_cut_is_never_a_success_unless_it_said_done(length: int) -> None:
    reading = read([(1, WHOLE[:length])])
    assert (reading.status == "ok") == (b"[DONE]" in WHOLE[:length])


@given(
    st.lists(
        st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r\n\ufeff"), min_size=1),
        max_size=5,
    ),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.lists(st.integers(0, 10_000), max_size=8),
)
def test_events_survive_any_line_end_and_any_cut(texts: list[str], end: str, places: list[int]) -> None:
    stream = "".join(f": comment{end}data: {text}{end}{end}" for text in texts).encode()
    found = [data.decode() for _, data, _ in events(cut(stream, places))]
    assert found == texts


def test_data_of_several_lines_is_joined() -> None:
    assert [data for _, data, _ in events([(1, b"data: a\ndata: b\n\n")])] == [b"a\nb"]


@given(st.binary(max_size=200))
def test_nonsense_is_a_named_failure(data: bytes) -> None:
    assert read([(1, data)]).status in ("malformed", "stream_cut")
    assert read([(1, HEAD), (2, data)]).status in ("malformed", "stream_cut", "no_tokens")


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=6), st.lists(st.integers(0, 400), max_size=9))
def test_chunks_are_put_together_as_they_were(parts: list[bytes], places: list[int]) -> None:
    head = parse_head(HEAD)
    assert head is not None
    content = Content(head)
    for stamp, piece in cut(b"".join(map(chunk, parts)) + b"0\r\nTrailer: x\r\n\r\n", places):
        content.feed(stamp, piece)
    assert content.done
    assert b"".join(piece for _, piece in content.pieces) == b"".join(parts)


@pytest.mark.parametrize("size", [b"-1", b"+3", b"1_0", b"", b"zz", b"f" * 20])
def test_a_chunk_needs_a_size(size: bytes) -> None:
    head = parse_head(HEAD)
    assert head is not None
    with pytest.raises(MalformedError):
        Content(head).feed(1, size + b"\r\nabc\r\n")


def test_an_early_hint_is_not_the_answer() -> None:
    head, rest = split_head(b"HTTP/1.1 103 Early Hints\r\n\r\n" + HEAD + b"0\r\n")
    assert head is not None
    assert (head.status, rest) == (200, b"0\r\n")


def test_two_objects_in_one_event_are_malformed() -> None:
    assert read([(1, HEAD + chunk(b"data: {},{}\n\n") + b"0\r\n\r\n")]).status == "malformed"
