"""The servers that loads are held against: what they claim to have written is what a socket receives."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator

import pytest
import truth

TTFT_MS, GAP_MS = 20, 2


@pytest.fixture(scope="module", params=["c", "python"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    if request.param == "python":
        flags = ("--ttft-ms", str(TTFT_MS), "--gap-ms", str(GAP_MS))
        with truth.serving((*truth.IN_PYTHON, *flags)) as number:
            yield number
        return
    with truth.compiled() as command:
        if command is None:
            pytest.skip("no C compiler")
        with truth.serving((*command, str(TTFT_MS), str(GAP_MS))) as number:
            yield number


TEXT = re.compile(rb'"(?:text|content)": ?"((?: [a-z]{3})+)"')


def exchange(port: int, model: str, tokens: int, *, path: str = "completions") -> tuple[int, int, int, bytes]:
    """Return when a request was sent, when its first token and its end were seen, and the answer."""
    fields = {"model": model, "max_tokens": tokens, "stream": True, "stream_options": {"include_usage": True}}
    prompt = {"prompt": [5, 6, 7]} if path == "completions" else {"messages": [{"content": "a b c"}]}
    body = json.dumps(fields | prompt).encode()
    head = f"POST /v1/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        sent_ns = time.monotonic_ns()
        connection.sendall(head)
        connection.sendall(body)  # in two pieces, as some clients do
        answer, first_ns = b"", 0
        while not answer.endswith(b"\r\n0\r\n\r\n"):
            answer += connection.recv(65536)
            if not first_ns and TEXT.search(answer):
                first_ns = time.monotonic_ns()
    return sent_ns, first_ns, time.monotonic_ns(), answer


@pytest.mark.parametrize(
    ("model", "per", "path"), [("plain", 1, "completions"), ("per4", 4, "chat/completions")]
)
def test_what_it_says_lies_within_what_was_seen(port: int, model: str, per: int, path: str) -> None:
    truth.ask(port, "/reset")
    sent_ns, first_ns, end_ns, answer = exchange(port, model, 10, path=path)
    found = truth.truth(port)
    assert b"".join(TEXT.findall(answer)).count(b" ") == 10
    assert answer.count(b'"finish_reason":"length"') + answer.count(b'"finish_reason": "length"') == 1
    assert answer.count(b"data: ") == -(-10 // per) + 2  # and the usage, and [DONE]
    assert b'"completion_tokens":10' in answer.replace(b" ", b"")
    assert b'"prompt_tokens":' in answer
    assert found.tokens == 10
    (ttft_s,), (tpot_s,) = found.ttft_s, found.tpot_s
    assert TTFT_MS / 1e3 <= ttft_s <= (end_ns - sent_ns) / 1e9
    assert tpot_s * (10 - per) <= (end_ns - sent_ns) / 1e9 - ttft_s + 1e-9
    last_chunk = (
        (10 - 1) // per * per
    )  # tokens before the last chunk: it is due that many gaps after the first
    assert found.span_s >= (TTFT_MS + last_chunk * GAP_MS) / 1e3
    assert (first_ns - sent_ns) / 1e6 >= TTFT_MS


def test_a_reset_forgets(port: int) -> None:
    exchange(port, "plain", 2)
    truth.ask(port, "/reset")
    found = truth.truth(port)
    assert (found.tokens, len(found.ttft_s)) == (0, 0)
    assert truth.ask(port, "/active") == {"active": False}


def test_without_a_compiler_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with truth.compiled() as command:
        assert command is None
    assert "no C compiler" in capsys.readouterr().err
