"""A server whose latencies are known: it stamps what it really writes, and misbehaves on demand.

    python benchmarks/truth_server.py --ttft-ms 50 --gap-ms 10

Token k of a stream is due at receipt + TTFT + k * gap, on an absolute schedule. The name of the model
says how the answer comes (BEHAVIOURS). ``GET /truth`` returns what was written since the last ``GET /reset``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import heapq
import json
import ssl
import time
import zlib
from dataclasses import dataclass, field
from typing import Any

BEHAVIOURS = {
    "plain": "one token per chunk, usage at the end",
    "per4": "four tokens per chunk",
    "role": "chat: a role-only chunk at once, the first token after the TTFT",
    "empty": "empty chunks between the others",
    "comments": "keep-alive comments between the chunks",
    "utf8": "three-byte characters, every write split within one",
    "crlf": "events that end with CRLF",
    "no-done": "no [DONE] at the end",
    "held-open": "[DONE], and the answer is never ended",
    "no-usage": "no usage",
    "ids": "token ids with every chunk",
    "stream-usage": "usage with every chunk; every third token without text",
    "reasoning": "chat: the first half is reasoning, the rest a tool call",
    "until-close": "no framing: the answer ends with the connection",
    "close-first": "the connection is closed before the second request on it is read",
    "short": "half of the tokens asked for",
    "canned": "the same answer to every prompt",
    "other-model": "another model answers, and says so",
    "remembers": "an answer that was given before comes at once",
    "ends": "half of the tokens asked for, then the end of sequence",
    "cut": "the connection is closed in the middle",
    "ends-early": "the answer ends properly in the middle, without finish_reason, usage and [DONE]",
    "silent": "no answer at all",
    "stalls": "half an answer, then nothing",
    "http-400": "a refusal that quotes the key",
    "http-500": "a failure",
    "redirect": "a redirection",
    "error-event": "an error within the stream",
    "huge": "an answer without end",
    "bad-json": "an event that is not JSON",
    "bad-chunk": "a chunk without a size",
    "not-http": "something that is not HTTP",
    "no-tokens": "a complete answer without a token",
    "strict": "refuses what OpenAI's API does not have",
}


@dataclass(eq=False)
class Stream:
    """One request and what was written for it."""

    received_ns: int
    tokens: int
    model: str
    chat: bool
    usage: bool
    prompt_tokens: int
    prompt: int = 0
    known: bool = False
    written_ns: list[int] = field(default_factory=list)
    sent: int = 0
    due_ns: int = 0


class TruthServer:
    """Serves in the running loop; ``port`` is known after :meth:`start`."""

    def __init__(self, ttft_ms: float = 50.0, gap_ms: float = 10.0, slots: int | None = None) -> None:
        self.slots = slots  # so many are served at once, others are refused
        self.ttft_ns, self.gap_ns = int(ttft_ms * 1e6), int(gap_ms * 1e6)
        self.streams: list[Stream] = []
        self.bodies: list[dict[str, Any]] = []
        self.heads: list[str] = []
        self.seen: set[int] = set()
        self.connections: set[_Connection] = set()
        self._due: list[tuple[int, int, _Connection]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._count = 0

    async def start(self, port: int = 0, tls: ssl.SSLContext | None = None) -> int:
        """Listen on loopback and return the port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), "127.0.0.1", port, backlog=4096, ssl=tls
        )
        self.port: int = self._server.sockets[0].getsockname()[1]
        return int(self.port)

    async def stop(self) -> None:
        """Close everything."""
        self._server.close()
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self.connections):
            connection.transport.abort()
        await asyncio.sleep(0)

    def schedule(self, connection: _Connection, due_ns: int) -> None:
        """Have ``connection.next`` called when it is due."""
        self._count += 1
        heapq.heappush(self._due, (due_ns, self._count, connection))
        if self._due[0][2] is connection:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        wait = max(0, self._due[0][0] - time.monotonic_ns()) / 1e9
        self._timer = asyncio.get_running_loop().call_later(wait, self._write_due)

    def _write_due(self) -> None:
        self._timer = None
        while self._due and self._due[0][0] <= time.monotonic_ns():
            heapq.heappop(self._due)[2].next()
        if self._due:
            self._arm()

    @property
    def active(self) -> int:
        """Streams that are being answered."""
        return sum(one.stream is not None for one in self.connections)

    def truth(self) -> dict[str, Any]:
        """Return what was written: per request the TTFT and the mean time per token after the first chunk."""
        done = [one for one in self.streams if one.written_ns]
        ttft = [(one.written_ns[0] - one.received_ns) / 1e9 for one in done]
        tpot = []
        for one in done:
            after_first = one.tokens - _per_chunk(one.model)
            if after_first > 0 and len(one.written_ns) > 1:
                tpot.append((one.written_ns[-1] - one.written_ns[0]) / 1e9 / after_first)
        first = min((one.received_ns for one in self.streams), default=0)
        last = max((one.written_ns[-1] for one in done), default=0)
        tokens = sum(one.sent for one in self.streams)
        return {
            "requests": len(self.streams),
            "ttft_s": ttft,
            "tpot_s": tpot,
            "tokens": tokens,
            "span_s": (last - first) / 1e9,
        }


def _per_chunk(model: str) -> int:
    return 4 if model == "per4" else 1


class _Connection(asyncio.Protocol):
    def __init__(self, server: TruthServer) -> None:
        self._server = server
        self._received = b""
        self._answered = 0
        self.stream: Stream | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.stream = None
        self._server.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = 0
        for line in head.split(b"\r\n")[1:]:
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        if len(body) < length:
            return
        self._received = body[length:]
        self._request(now, head.decode("latin-1"), body[:length])

    def _request(self, now: int, head: str, body: bytes) -> None:
        path = head.split(" ")[1]
        server = self._server
        if path == "/truth":
            self._json(200, server.truth())
        elif path == "/active":
            self._json(200, {"active": bool(server.active)})
        elif path == "/reset":
            server.streams.clear()
            self._json(200, {})
        elif path.endswith("/models"):
            self._json(200, {"object": "list", "data": [{"id": "plain", "object": "model"}]})
        elif path.endswith("/completions"):
            self._answer(now, head, json.loads(body))
        else:
            self._json(404, {"error": "not found"})

    def _json(self, status: int, content: Any, more: str = "") -> None:
        text = json.dumps(content).encode()
        self.transport.write(
            f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{more}"
            f"Content-Length: {len(text)}\r\n\r\n".encode()
            + text
        )

    def _answer(self, now: int, head: str, body: dict[str, Any]) -> None:
        server, model = self._server, body.get("model", "plain")
        server.bodies.append(body)
        server.heads.append(head)
        chat = "/chat/" in head.split(" ")[1]
        prompt = body.get("prompt") or body["messages"][0]["content"]
        length = len(prompt.split()) + 3 if isinstance(prompt, str) else len(prompt)
        asked = int(body.get("max_tokens") or body.get("max_completion_tokens") or 16)
        options = body.get("stream_options") or {}
        tokens = asked // 2 if model in ("short", "ends") else asked
        usage = bool(options.get("include_usage")) and model not in (
            "no-usage",
            "ends-early",
            "per4-no-usage",
        )
        text = prompt if isinstance(prompt, str) else " ".join(map(str, prompt))
        stream = Stream(now, tokens, model, chat, usage, length, zlib.crc32(text.encode()))
        server.streams.append(stream)
        self._answered += 1
        self.stream = stream
        refused = _at_once(model, head, body, self._answered)
        if server.slots is not None and server.active > server.slots:
            refused = 503, {"error": {"message": f"more than {server.slots} at once"}}
        if refused is not None:
            self.stream = None
            status, content = refused
            if status == 0:
                self.transport.write(content) if content else None
                if model != "silent":
                    self.transport.close()
            else:
                self._json(status, content, "Location: http://127.0.0.1:1/\r\n" if status == 307 else "")
            return
        framing = "Connection: close" if model == "until-close" else "Transfer-Encoding: chunked"
        self.transport.write(
            f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n{framing}\r\n\r\n".encode()
        )
        if chat and model == "role":
            self._event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        stream.known = model == "remembers" and stream.prompt in server.seen
        server.seen.add(stream.prompt)
        stream.due_ns = now + (0 if stream.known else server.ttft_ns)
        server.schedule(self, stream.due_ns)

    def next(self) -> None:
        """Write the next chunk of the stream."""
        stream = self.stream
        if stream is None or self.transport.is_closing():
            return
        if stream.model == "huge":
            self._huge()
            return
        per = min(_per_chunk(stream.model), stream.tokens - stream.sent)
        last = stream.sent + per >= stream.tokens
        if stream.sent >= stream.tokens // 2 and self._fault(stream):
            return
        if stream.model == "comments":
            self._raw(b": keep-alive\n\n")
        if stream.model == "empty":
            self._event({"choices": [_choice(stream, "")]})
        event = {"choices": [_choice(stream, _text(stream, per), per, _reason(stream) if last else None)]}
        stream.sent += per
        if stream.model == "stream-usage":
            event["usage"] = {"prompt_tokens": stream.prompt_tokens, "completion_tokens": stream.sent}  # type: ignore[assignment]
        tail = self._tail(stream) if last else b""
        stream.written_ns.append(time.monotonic_ns())  # before, or a client could see it earlier
        self._event(event, tail)
        if last:
            self.stream = None
            if stream.model == "until-close":
                self.transport.close()
            return
        stream.due_ns += 0 if stream.known else self._server.gap_ns * per
        self._server.schedule(self, stream.due_ns)

    def _tail(self, stream: Stream) -> bytes:
        parts = b""
        if stream.usage and stream.model != "stream-usage":
            counts = {"prompt_tokens": stream.prompt_tokens, "completion_tokens": stream.sent}
            parts += self._framed(b"data: " + json.dumps({"choices": [], "usage": counts}).encode() + b"\n\n")
        if stream.model not in ("no-done", "ends-early"):
            parts += self._framed(b"data: [DONE]\n\n")
        if stream.model not in ("held-open", "until-close"):
            parts += b"0\r\n\r\n"
        return parts

    def _fault(self, stream: Stream) -> bool:
        """Do what the model's name says in the middle of the answer; True ends it."""
        endings = {
            "cut": b"",
            "bad-json": self._framed(b"data: {nonsense\n\n") + b"0\r\n\r\n",
            "bad-chunk": b"zz\r\nwhat\r\n",
            "error-event": self._framed(
                b'data: {"error": {"message": "out of memory"}}\n\ndata: [DONE]\n\n'
            )
            + b"0\r\n\r\n",
            "ends-early": b"0\r\n\r\n",
        }  # fmt: skip
        if stream.model == "stalls":
            return True
        if stream.model not in endings:
            return False
        self.transport.write(endings[stream.model])
        if stream.model == "cut":
            self.transport.close()
        return True

    def _huge(self) -> None:
        if self.transport.get_write_buffer_size() < 2**20:
            self._raw(
                b"data: " + json.dumps({"choices": [{"index": 0, "text": "x" * 60_000}]}).encode() + b"\n\n"
            )
        self._server.schedule(self, time.monotonic_ns() + 100_000)

    def _event(self, event: dict[str, Any], tail: bytes = b"") -> None:
        stream = self.stream
        assert stream is not None
        kind = "chat.completion.chunk" if stream.chat else "text_completion"
        whole = {"id": "cmpl-1", "object": kind, "created": 1760000000, "model": _name(stream)} | event
        text = json.dumps(whole, ensure_ascii=False).encode()
        data = b"data: " + text + (b"\r\n\r\n" if stream.model == "crlf" else b"\n\n")
        if stream.model == "utf8":
            # Two chunks and two writes, split within a character where there is one.
            at = next((at for at, byte in enumerate(data) if byte >= 0x80), 10) + 1
            self._raw(data[:at])
            data = data[at:]
        self.transport.write(self._framed(data) + tail)

    def _raw(self, data: bytes) -> None:
        self.transport.write(self._framed(data))

    def _framed(self, data: bytes) -> bytes:
        if self.stream is not None and self.stream.model == "until-close":
            return data
        return b"%x\r\n%s\r\n" % (len(data), data)


# Of equal length, so that chunks of equal numbers of tokens are; which ones come depends on the prompt.
_WORDS = [f" {word}" for word in "the and for was his not you had but all one out day man who".split()]  # noqa: SIM905


def _numbers(stream: Stream, tokens: int) -> range:
    """Places of the next tokens in their answer."""
    return range(stream.sent, stream.sent + tokens)


def _text(stream: Stream, tokens: int) -> str:
    if stream.model == "stream-usage" and stream.sent % 3 == 2:
        return ""
    if stream.model == "utf8":
        return "語" * tokens
    if stream.model == "canned":
        return " the" * tokens
    return "".join(
        _WORDS[(stream.prompt * (2 * at + 1) >> 5) % len(_WORDS)]
        for at in range(stream.sent, stream.sent + tokens)
    )


def _name(stream: Stream) -> str:
    return "smaller" if stream.model == "other-model" else stream.model


def _reason(stream: Stream) -> str:
    return "stop" if stream.model == "ends" else "length"


def _choice(stream: Stream, text: str, tokens: int = 0, reason: str | None = None) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "finish_reason": reason}
    if stream.model == "reasoning":
        call = {"tool_calls": [{"index": 0, "function": {"name": None, "arguments": text}}]}
        choice["delta"] = {"reasoning_content": text} if stream.sent < stream.tokens // 2 else call
    elif stream.chat:
        choice["delta"] = {"content": text}
    else:
        choice["text"] = text
    if stream.model == "ids":
        choice["text"] = ""
        choice["token_ids"] = [
            (stream.prompt * (2 * at + 1) >> 5) % 251 for at in range(stream.sent, stream.sent + tokens)
        ]
    return choice


def _at_once(model: str, head: str, body: dict[str, Any], answered: int) -> tuple[int, Any] | None:
    """Return status and content of an answer that is no stream; status 0 stands for raw bytes."""
    if model == "http-400":
        key = next((line.split()[-1] for line in head.split("\r\n") if line.startswith("Authorization")), "")
        return 400, {"error": {"message": f"wrong key {key} for Bearer {key}"}}
    if model == "close-first" and answered == 2:
        return 0, b""
    if model == "strict":
        unknown = {"ignore_eos", "return_token_ids"} & set(body)
        if (
            unknown
            or "continuous_usage_stats" in (body.get("stream_options") or {})
            or isinstance(body.get("prompt"), list)
        ):
            return 400, {"error": {"message": f"unknown fields {sorted(unknown)}"}}
    empty = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 14\r\n\r\ndata: [DONE]\n\n"
    )
    return {
        "http-500": (500, {"detail": "it broke"}),
        "redirect": (307, {}),
        "silent": (0, b""),
        "not-http": (0, b"SSH-2.0-nothing\r\n"),
        "no-tokens": (0, empty),
    }.get(model)


async def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ttft-ms", type=float, default=50.0)
    parser.add_argument("--gap-ms", type=float, default=10.0)
    parser.add_argument("--slots", type=int, help="refuse more streams than this at once")
    given = parser.parse_args()
    server = TruthServer(given.ttft_ms, given.gap_ms, given.slots)
    print(await server.start(given.port), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        try:
            import uvloop

            uvloop.run(_main())
        except ImportError:
            asyncio.run(_main())
