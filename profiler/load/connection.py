"""A connection to a server: stamps what arrives and looks no further than needed to know the end."""

from __future__ import annotations

import asyncio
from time import monotonic_ns
from typing import Any, Protocol

from profiler.load.exchange import Exchange
from profiler.load.http import Content, Head, MalformedError, split_head
from profiler.load.job import Limits
from profiler.load.sockets import BUFFER

HELD_OPEN_S = 0.5
"""A stream that said [DONE] and does not end its framing is taken as over after this."""
_LAST_CHUNK = b"\r\n0\r\n\r\n"
_LAST_CHUNK_ALONE = b"0\r\n\r\n"


class Owner(Protocol):
    """Who is told that an exchange is over."""

    max_response_bytes: int

    @property
    def streams(self) -> int:
        """Exchanges on connections that wait for bytes."""
        ...

    def finished(self, connection: Connection, exchange: Exchange) -> None:
        """An exchange has ended, well or not."""


class _Transport(Protocol):
    """What of asyncio's transports is needed; plain TCP has one of its own."""

    def write(self, data: bytes) -> None:
        """Send."""

    def abort(self) -> None:
        """Close at once."""


class Connection(asyncio.BufferedProtocol):
    """One keep-alive connection with at most one exchange on it.

    The last chunk is recognised by its bytes, so that the next request can leave before anything is
    parsed. That the framing really ends there is checked when the exchange is read.

    Attributes:
        endpoint: index of the URL.
        open: whether it can take a request.
        used: exchanges so far.
        request: body of the request that was sent last, in case it has to be sent again.
    """

    def __init__(self, owner: Owner, endpoint: int) -> None:
        self.endpoint = endpoint
        self.open = False
        self.used = 0
        self.request = b""
        self.exchange: Exchange | None = None
        self._owner = owner
        self._limit = 0
        self._head: Head | None = None
        self._plain: Content | None = None
        self._in_chunks = False
        """The head is known, chunks follow, and their ends are seen without taking the framing off."""
        self._transport: _Transport | None = None

    def connection_made(self, transport: Any) -> None:
        """Remember the way out."""
        self._transport = transport
        self.open = True

    def send(self, exchange: Exchange, request: bytes) -> None:
        """Start an exchange."""
        self.exchange = exchange
        self._head = self._plain = None
        self._in_chunks = False
        self._limit = min(self._owner.max_response_bytes, exchange.most_bytes)
        self.used += 1
        exchange.endpoint = self.endpoint
        assert self._transport is not None
        exchange.sent_ns = monotonic_ns()
        self._transport.write(request)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend asyncio's TLS transport the buffer that all connections share."""
        return BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Take what asyncio's TLS transport has read just now."""
        self.received(monotonic_ns(), nbytes)

    def received(self, stamp_ns: int, nbytes: int) -> None:
        """Keep what came in at ``stamp_ns``, and see whether this is the end."""
        data = BUFFER[:nbytes].tobytes()
        exchange = self.exchange
        if exchange is None:
            self.close()  # nothing was asked
            return
        exchange.pieces.append((stamp_ns, data))
        exchange.received += nbytes
        if self._in_chunks and exchange.received <= self._limit:
            if nbytes > 8 and data.endswith(b"\n\n\r\n"):
                return  # an event that ends with its chunk: nearly every receipt, and never the last one
            if data.endswith(_LAST_CHUNK) or (
                data == _LAST_CHUNK_ALONE and exchange.pieces[-2][1].endswith(b"\r\n")
            ):
                self._end(exchange, stamp_ns)
            elif nbytes < 8 or data.endswith(b"\r\n\r\n"):
                self._feed_all(exchange)  # odd pieces, CRLF events or trailers: take the framing off
        elif self._head is None:
            self._first(exchange, stamp_ns)
        elif exchange.received > self._limit:
            self.fail("too_large", f"the answer is longer than {self._limit} bytes")
        else:
            self._feed_all(exchange)

    def _first(self, exchange: Exchange, now: int) -> None:
        if not exchange.first_byte_ns:
            exchange.first_byte_ns = now
        try:
            head, rest = split_head(_joined(exchange))
        except MalformedError as error:
            self.fail("malformed", str(error))
            return
        self._head = head
        self._in_chunks = head is not None and head.chunked
        if head is not None and (rest or not head.chunked):
            self._feed_all(exchange)

    def _feed_all(self, exchange: Exchange) -> None:
        """Take the framing off from where it was left, to know for sure whether the answer is complete."""
        assert self._head is not None
        self._in_chunks = False
        try:
            if self._plain is None:
                self._plain = Content(self._head)
                done = self._plain.done or self._plain.feed(0, split_head(_joined(exchange))[1])
            else:
                done = self._plain.feed(0, exchange.pieces[-1][1])
        except MalformedError as error:
            self.fail("malformed", str(error))
            return
        self._plain.pieces.clear()
        if exchange.received > self._limit:
            self.fail("too_large", f"the answer is longer than {self._limit} bytes")
        elif done:
            if self._plain.excess:
                self.open = False
            self._end(exchange, exchange.last_byte_ns)

    def _end(self, exchange: Exchange, now: int) -> None:
        self.exchange = None
        exchange.end_ns = now
        if self._head is None or not self._head.keep_alive or not self.open:
            self.close()
        self._owner.finished(self, exchange)

    def fail(self, failure: str, message: str) -> None:
        """End the exchange as a failure and close."""
        exchange = self.exchange
        if exchange is None:
            return
        exchange.failure, exchange.message = failure, message
        self.open = False
        self._end(exchange, monotonic_ns())

    def end_if_overdue(self, now_ns: int, limits: Limits) -> None:
        """End the exchange if it takes too long, or if only the connection is held open behind it."""
        exchange = self.exchange
        if exchange is None:
            return
        silent = (now_ns - max(exchange.sent_ns, exchange.last_byte_ns)) / 1e9
        if now_ns - exchange.sent_ns > limits.total_s * 1e9:
            self.fail("timeout", f"not complete after {limits.total_s:g} s")
        elif silent > limits.idle_s:
            self.fail("idle_timeout", f"no byte for {limits.idle_s:g} s")
        elif silent > HELD_OPEN_S and exchange.pieces and b"data: [DONE]" in exchange.pieces[-1][1]:
            self.open = False
            self._end(exchange, exchange.last_byte_ns)

    def close(self) -> None:
        """Close for good, without waiting."""
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The other side, or an error, ended the connection."""
        self.open = False
        exchange = self.exchange
        if exchange is None:
            return
        self.exchange = None
        exchange.end_ns = monotonic_ns()
        until_close = self._head is not None and not self._head.chunked and self._head.length is None
        if not until_close or exc is not None:
            exchange.failure = "stream_cut"
            seen = "in the middle of the answer" if exchange.received else "before an answer"
            exchange.message = f"the connection closed {seen}" + (f" ({type(exc).__name__})" if exc else "")
        self._owner.finished(self, exchange)


def _joined(exchange: Exchange) -> bytes:
    return b"".join(piece for _, piece in exchange.pieces)
