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
from profiler.privacy import served_name

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


def test_a_path_that_serves_as_a_name_is_not_told() -> None:
    """llama-server calls a model by the path of its file unless told otherwise."""
    job: Any = SimpleNamespace(
        model="/home/somebody/models/m.gguf", features=SimpleNamespace(ignore_eos=True)
    )
    usage = {"prompt_tokens": 4, "completion_tokens": 2}
    for name, passed in (("/home/somebody/models/m.gguf", True), ("/home/somebody/models/other.gguf", False)):
        said = answer(model=name, choices=[{"text": "ab", "finish_reason": "length"}], usage=usage)
        _, checks = look_at_answers(job, [said, said])
        check = next(check for check in checks if check.name == "served_model")
        assert check.passed is passed
        assert "somebody" not in check.text
        assert "m.gguf" in check.text


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("/models/a.gguf", "a.gguf"), ("~/a.gguf", "a.gguf"), ("./dir/a/", "a"), ("C:\\m\\a.gguf", "a.gguf"),
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B"), ("llama3.2:1b", "llama3.2:1b"), ("", ""),
    ],
)  # fmt: skip
def test_names_that_are_no_paths_stay(name: str, kept: str) -> None:
    assert served_name(name) == kept
