"""What is made of answers that no server should give."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from profiler.load.asking import Said, said_in
from profiler.load.exchange import Exchange
from profiler.load.reading import read_exchange
from profiler.measure.server_answers import look_at_answers

JOB: Any = SimpleNamespace(model="m", features=SimpleNamespace(ignore_eos=True))


def answer(**fields: Any) -> Said:
    body = json.dumps(fields).encode()
    exchange = Exchange(0, 1, 4, 2)
    exchange.sent_ns, exchange.first_byte_ns, exchange.end_ns = 1, 2, 3
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    exchange.pieces = [(2, head % len(body) + body)]
    return said_in(exchange, read_exchange(exchange, "completions"))


@pytest.mark.parametrize("half", ["\ud800", "a\udfff"])
def test_half_a_character_in_a_name_or_text_is_no_crash(half: str) -> None:
    usage = {"prompt_tokens": 4, "completion_tokens": 2}
    said = answer(model=half, choices=[{"text": half, "finish_reason": "length"}], usage=usage)
    assert said.status == "ok"
    _, checks = look_at_answers(JOB, [said, said])
    name = next(check for check in checks if check.name == "served_model")
    assert name.passed is False
    json.dumps([check.model_dump() for check in checks], ensure_ascii=False).encode()
