"""Events that are not parsed mean what they would mean if they were."""

from __future__ import annotations

import json
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.load import tally
from profiler.load.endpoint import Api
from profiler.load.exchange import Exchange
from profiler.load.outcome import Reading
from profiler.load.reading import read_exchange
from profiler.load.template import template

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def read(events: list[bytes], api: Api) -> Reading:
    exchange = Exchange(0, 0, 4, len(events))
    framed = [b"data: " + event + b"\n\n" for event in [*events, b"[DONE]"]]
    chunks = [b"%x\r\n%s\r\n" % (len(one), one) for one in framed]
    exchange.pieces = list(enumerate([HEAD, *chunks, b"0\r\n\r\n"], start=1))
    return read_exchange(exchange, api)


def text_of(event: Any) -> str | None:
    return tally._only_text(event, "completions")


TEXTS = st.one_of(
    st.sampled_from([" the", "", "語", 'a"b', "\\", "\x00", "}", '","text":"']), st.text(max_size=4)
)
STRAY = st.sampled_from(
    [
        b'{"choices":[{"text":"a\tb"}]}',
        b'{"choices":[{"text":"\xff"}]}',
        b'{"choices":[{"text":"a",}]}',
        b"{}",
    ]
)


@st.composite
def an_event(draw: st.DrawFn) -> bytes:
    text = draw(TEXTS)
    kind = draw(
        st.sampled_from(["plain", "plain", "plain", "reason", "ids", "usage", "two", "doubled", "thought"])
    )
    choice: dict[str, Any] = {"index": 0, "text": text, "delta": {"content": text}, "finish_reason": None}
    event: dict[str, Any] = {"id": "x", "choices": [choice], "usage": None}
    if kind == "reason":
        choice["finish_reason"] = "stop"
    elif kind == "ids":
        choice["token_ids"] = [3, 4]
    elif kind == "usage":
        event["usage"] = {"completion_tokens": draw(st.integers(0, 9)), "prompt_tokens": 4}
    elif kind == "two":
        event["choices"] = [choice, choice]
    elif kind == "thought":
        choice["delta"] = {"reasoning_content": text}
    made = json.dumps(event, ensure_ascii=draw(st.booleans()), separators=(",", ":"))
    if kind == "doubled":
        made = made.replace('"index":0', '"text":"other","index":0')
    return made.encode()


@given(
    st.lists(st.one_of(an_event(), an_event(), an_event(), STRAY), max_size=12),
    st.sampled_from(["completions", "chat"]),
)
def test_reading_by_a_template_gives_what_parsing_gives(events: list[bytes], api: Api) -> None:
    with mock.patch.object(tally, "template", return_value=None):
        parsed = read(events, api)
    found = read(events, api)
    if parsed.status == "malformed":
        assert found.status == "malformed"
    else:
        assert found == parsed


def test_what_surrounds_the_text_is_proved() -> None:
    event = b'{"choices":[{"index":0,"text":" the","finish_reason":null}]}'
    found = template(event, text_of)
    assert found is not None
    assert found.text(event.replace(b" the", "語".encode())) == "語".encode()
    for other in (b"", b'a"b', b"\\n", b"a\nb"):
        assert found.text(event.replace(b" the", other)) is None
    assert found.text(event.replace(b"null", b'"stop"')) is None
    assert found.text(event[:25]) is None


@pytest.mark.parametrize(
    "event",
    [
        b'{"choices":[{"text":"a","finish_reason":"stop"}]}',
        b'{"choices":[{"text":"a","text":"b"}]}',  # the last one counts
        b'{"choices":[{"text":"a","token_ids":[1]}]}',
        b'{"choices":[{"text":""}]}',
        b'{"text":"a","choices":[{"index":0}]}',
        b'{"choices":[{"text":"a"}],"usage":{"completion_tokens":1}}',
        b'{"error":{"message":"no"},"choices":[{"text":"a"}]}',
        b'{"choices":[{"text":"a"}]',
    ],
)
def test_an_event_that_says_more_than_its_text_is_no_template(event: bytes) -> None:
    assert template(event, text_of) is None
