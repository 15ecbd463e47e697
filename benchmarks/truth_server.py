"""A server whose latencies are known: it stamps what it really writes, and misbehaves on demand.

    python benchmarks/truth_server.py --ttft-ms 50 --gap-ms 10

Token k of a stream is due at receipt + TTFT + k * gap, on an absolute schedule. The name of the model
says how the answer comes (BEHAVIOURS of truth_answers.py). ``GET /truth`` returns what was written since the
last ``GET /reset``.
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
from typing import Any

import truth_answers as answers


class TruthServer:
    """Serves in the running loop; ``port`` is known after :meth:`start`."""

    def __init__(self, ttft_ms: float = 50.0, gap_ms: float = 10.0, slots: int | None = None) -> None:
        self.slots = slots  # so many are served at once, others are refused
        self.ttft_ns, self.gap_ns = int(ttft_ms * 1e6), int(gap_ms * 1e6)
        self.streams: list[answers.Stream] = []
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
            after_first = one.tokens - answers.per_chunk(one.model)
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


class _Connection(asyncio.Protocol):
    def __init__(self, server: TruthServer) -> None:
        self._server = server
        self._received = b""
        self._answered = 0
        self.stream: answers.Stream | None = None

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
        tokens = asked // 2 if model in ("short", "ends", "ollama") else asked
        usage = bool(options.get("include_usage")) and model not in (
            "no-usage",
            "ends-early",
            "per4-no-usage",
        )
        text = prompt if isinstance(prompt, str) else " ".join(map(str, prompt))
        stream = answers.Stream(now, tokens, model, chat, usage, length, zlib.crc32(text.encode()))
        server.streams.append(stream)
        self._answered += 1
        self.stream = stream
        refused = answers.at_once(model, head, body, self._answered)
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
        per = min(answers.per_chunk(stream.model), stream.tokens - stream.sent)
        last = stream.sent + per >= stream.tokens
        if stream.sent >= stream.tokens // 2 and self._fault(stream):
            return
        if stream.model == "comments":
            self._raw(b": keep-alive\n\n")
        if stream.model == "empty":
            self._event({"choices": [answers.choice(stream, "")]})
        reason = None if stream.model == "ollama" else answers.reason(stream)
        event = {
            "choices": [answers.choice(stream, answers.text(stream, per), per, reason if last else None)]
        }
        stream.sent += per
        if stream.model == "stream-usage":
            event["usage"] = {"prompt_tokens": stream.prompt_tokens, "completion_tokens": stream.sent}  # type: ignore[assignment]
        tail = answers.tail(stream) if last else b""
        stream.written_ns.append(time.monotonic_ns())  # before, or a client could see it earlier
        self._event(event, tail)
        if last:
            self.stream = None
            if stream.model == "until-close":
                self.transport.close()
            return
        stream.due_ns += 0 if stream.known else self._server.gap_ns * per
        self._server.schedule(self, stream.due_ns)

    def _fault(self, stream: answers.Stream) -> bool:
        """Do what the model's name says in the middle of the answer; True ends it."""
        if stream.model == "stalls":
            return True
        ending = answers.broken_ending(stream.model)
        if ending is None:
            return False
        self.transport.write(ending)
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
        data = answers.event_bytes(stream, event)
        if stream.model == "utf8":
            # Two chunks and two writes, split within a character where there is one.
            at = next((at for at, byte in enumerate(data) if byte >= 0x80), 10) + 1
            self._raw(data[:at])
            data = data[at:]
        self.transport.write(answers.framed(stream.model, data) + tail)

    def _raw(self, data: bytes) -> None:
        assert self.stream is not None
        self.transport.write(answers.framed(self.stream.model, data))


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
