"""A server that does nothing but send, to find out what the client can take.

``python -m profiler.load.null_server`` prints its port, answers every request on loopback with as
many events as ``max_tokens`` says, one write each at a fixed pace, and ends with its input.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from typing import Any

from profiler.load.process import run_in_loop

EVENT = (
    b'data: {"id":"cmpl-0","object":"text_completion","created":1760000000,"model":"null",'
    b'"choices":[{"index":0,"text":" the","logprobs":null,"finish_reason":null}]}\n\n'
)
CHUNK = b"%x\r\n%s\r\n" % (len(EVENT), EVENT)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
PACE_S = 0.005
_TOKENS = re.compile(rb'"max_tokens":(\d+)')


class _Stream(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:  # uvloop's is no asyncio.Transport
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        asked = _TOKENS.search(self._received)
        if asked is None or not self._received.endswith(b"}"):
            return
        self._received = b""
        self._left = int(asked[1])
        self._due = time.monotonic()
        self._transport.write(HEAD)
        self._next()

    def _next(self) -> None:
        self._left -= 1
        self._transport.write(CHUNK if self._left else CHUNK + END)
        if self._left > 0 and not self._transport.is_closing():
            self._due += PACE_S
            wait = max(0.0, self._due - time.monotonic())
            asyncio.get_running_loop().call_later(wait, self._next)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Stream, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    run_in_loop("auto", _serve())
