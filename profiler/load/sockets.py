"""Plain TCP without asyncio's transports: one epoll set for all connections of the process.

The loop watches a single descriptor, that of the set. A receipt then costs a system call instead of a
handle, a context switch in the loop and an allocation, which at tens of thousands of receipts per
second decides whether the client keeps up. TLS goes through asyncio's own transport.

Each receipt is stamped by the kernel when it comes in (``SO_TIMESTAMPNS``), not when this process gets
round to reading it. So nothing is lost when receipts are read in batches, which is what makes them
cheap: while they come densely, the set rests between batches, as a network card holds interrupts back.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct
from collections.abc import Callable
from time import monotonic_ns, sleep, time_ns
from typing import Final, Protocol, TypeVar

READ_BYTES = 256 * 1024
BUFFER = memoryview(bytearray(READ_BYTES))
"""Lent to every receipt: what is in it is copied out at once."""
LONGEST_REST_NS: Final = 1_000_000
REST_SHARE: Final = 0.1
"""Of the mean time between two receipts of one stream: two that come in one batch share a stamp."""
_SMOOTHED_OVER: Final = 8
_SO_TIMESTAMPNS: Final = 35
"""Of Linux, which the socket module does not name; 35 on all but SPARC and PA-RISC."""
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(16)
_TIMESPEC: Final = struct.Struct("@ll")
_WRITABLE: Final = select.EPOLLOUT
_OTHERWISE: Final = ~select.EPOLLOUT
_BELIEVED_NS: Final = 1_000_000_000
"""A stamp further away from now means that the wall clock was set: it is not used."""

_CLOSE_NS: Final = 20_000


class Receiver(Protocol):
    """Who takes what a socket brings."""

    def connection_made(self, transport: RawTransport) -> None:
        """The way out."""

    def received(self, stamp_ns: int, nbytes: int) -> None:
        """``nbytes`` that came in at ``stamp_ns`` (CLOCK_MONOTONIC) are in :data:`BUFFER`."""

    def connection_lost(self, exc: Exception | None) -> None:
        """There will be no more."""


R = TypeVar("R", bound=Receiver)


class RawTransport:
    """A connected, non-blocking socket in a :class:`SocketSet`."""

    def __init__(self, owner: SocketSet, sock: socket.socket, receiver: Receiver) -> None:
        self.receiver = receiver
        self.take = receiver.received
        self.recvmsg_into = sock.recvmsg_into
        self._owner = owner
        self._sock = sock
        self._fd = sock.fileno()
        self._unsent = b""

    def write(self, data: bytes) -> None:
        """Send now; what the kernel does not take is sent when it can."""
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._owner.lost(self, error)
            return
        if sent < len(data):
            self._unsent = data[sent:]
            self._owner.watch(self._fd, select.EPOLLIN | select.EPOLLOUT)

    def writable(self) -> None:
        """Send what is left."""
        rest, self._unsent = self._unsent, b""
        self._owner.watch(self._fd, select.EPOLLIN)
        self.write(rest)

    def abort(self) -> None:
        """Close at once; the receiver is not told, it is who closes."""
        self._owner.forget(self._fd)
        self._sock.close()


class SocketSet:
    """All plain connections of a process.

    Args:
        streams: returns how many connections are waiting for bytes.

    Attributes:
        receipts: so far.
        stamped_here: those of them without a stamp of the kernel, stamped when they were read.
    """

    def __init__(self, streams: Callable[[], int]) -> None:
        self.receipts = self.stamped_here = 0
        self._streams = streams
        self._spacing_ns = 0.0
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._transports: dict[int, RawTransport] = {}
        self._batch_ns = 0
        self._loop.add_reader(self._epoll.fileno(), self._ready)

    async def connect(self, host: str, port: int, receiver: Callable[[], R]) -> R:
        """Return a receiver whose transport is connected.

        Raises:
            OSError: of the last address that was tried.
        """
        addresses = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        failure: OSError = OSError("the name has no address")
        for family, kind, protocol, _, address in addresses:
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
                await self._loop.sock_connect(sock, address)
            except OSError as error:
                sock.close()
                failure = error
                continue
            except BaseException:
                sock.close()
                raise
            made = receiver()
            transport = RawTransport(self, sock, made)
            self._transports[sock.fileno()] = transport
            self._epoll.register(sock.fileno(), select.EPOLLIN)
            made.connection_made(transport)
            return made
        raise failure

    def watch(self, fd: int, events: int) -> None:
        """Change what a socket is watched for."""
        if fd in self._transports:
            self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Leave a socket out from now on."""
        if self._transports.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def lost(self, transport: RawTransport, error: Exception | None) -> None:
        """Close a socket that is of no use any more and tell its receiver."""
        transport.abort()
        transport.receiver.connection_lost(error)

    def close(self) -> None:
        """Close everything."""
        self._loop.remove_reader(self._epoll.fileno())
        for transport in list(self._transports.values()):
            transport.abort()
        self._epoll.close()

    def _ready(self) -> None:
        """Take what has come; rest first if the batch before this one has only just begun."""
        began = monotonic_ns()
        wanted = min(LONGEST_REST_NS, int(REST_SHARE * self._spacing_ns * self._streams()))
        rest_ns = self._batch_ns + wanted - began
        if rest_ns > 0:
            sleep(rest_ns / 1e9)
            began = monotonic_ns()
        ready = self._epoll.poll(0, 4096)
        if ready:
            elapsed = min(began - self._batch_ns, 10 * LONGEST_REST_NS)
            self._spacing_ns += (elapsed / len(ready) - self._spacing_ns) / _SMOOTHED_OVER
            self._batch_ns = began
            self._receive(ready)

    def _receive(self, ready: list[tuple[int, int]]) -> None:
        transports, buffers, size, stamp_of = self._transports, (BUFFER,), _ANCILLARY_BYTES, _TIMESPEC.unpack
        now, behind_ns = _clocks()
        second = now // 1_000_000_000
        second_ns = second * 1_000_000_000 + behind_ns
        self.receipts += len(ready)
        for fd, event in ready:
            transport = transports.get(fd)
            if transport is None:
                continue  # closed by what came before it
            if event & _WRITABLE:
                transport.writable()
            if event & _OTHERWISE:
                try:
                    received, ancillary, _, _ = transport.recvmsg_into(buffers, size)
                except BlockingIOError:
                    continue
                except OSError as error:
                    self.lost(transport, error)
                    continue
                if not received:
                    self.lost(transport, None)
                    continue
                seconds, nanoseconds = stamp_of(ancillary[0][2]) if ancillary else (0, 0)
                if seconds == second:  # no large numbers to multiply, nearly always
                    transport.take(second_ns + nanoseconds, received)
                    continue
                ago_ns = now - seconds * 1_000_000_000 - nanoseconds
                believed = -_BELIEVED_NS < ago_ns < _BELIEVED_NS
                self.stamped_here += not believed
                transport.take(now + behind_ns - ago_ns if believed else monotonic_ns(), received)


def _clocks() -> tuple[int, int]:
    """Return the wall clock, and by how much CLOCK_MONOTONIC is ahead of it, both in ns.

    Read again where the process was stopped in between, for that would shift every stamp.
    """
    narrowest = _BELIEVED_NS
    now = behind = 0
    for _ in range(5):
        before, wall, after = monotonic_ns(), time_ns(), monotonic_ns()
        if after - before < narrowest:
            narrowest, now, behind = after - before, wall, before - wall
        if narrowest < _CLOSE_NS:
            break
    return now, behind
