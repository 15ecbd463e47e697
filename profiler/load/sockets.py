"""Plain TCP without asyncio's transports: one epoll set for all connections of the process.

The loop watches a single descriptor, that of the set. A receipt then costs a system call and a stamp
instead of a handle, a context switch in the loop and an allocation, which at tens of thousands of
receipts per second decides whether stamps are right. TLS goes through asyncio's own transport.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable
from time import monotonic_ns
from typing import Protocol, TypeVar

READ_BYTES = 256 * 1024
BUFFER = memoryview(bytearray(READ_BYTES))
"""Lent to every receipt: what is in it is copied out at once."""
READ_ON_NS = 1_000_000
"""After this the loop goes round once, for what else is due."""


class Receiver(Protocol):
    """Who takes what a socket brings."""

    def connection_made(self, transport: RawTransport) -> None:
        """The way out."""

    def buffer_updated(self, nbytes: int) -> None:
        """``nbytes`` are in :data:`BUFFER`."""

    def connection_lost(self, exc: Exception | None) -> None:
        """There will be no more."""


R = TypeVar("R", bound=Receiver)


class RawTransport:
    """A connected, non-blocking socket in a :class:`SocketSet`."""

    def __init__(self, owner: SocketSet, sock: socket.socket, receiver: Receiver) -> None:
        self.receiver = receiver
        self.take = receiver.buffer_updated
        self.recv_into = sock.recv_into
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
    """All plain connections of a process."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._transports: dict[int, RawTransport] = {}
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
        """Take what has come, and what came meanwhile, before the loop goes round again."""
        until = monotonic_ns() + READ_ON_NS
        while ready := self._epoll.poll(0, 4096):
            self._receive(ready)
            if monotonic_ns() > until or self._epoll.closed:
                return

    def _receive(self, ready: list[tuple[int, int]]) -> None:
        transports, buffer = self._transports, BUFFER
        for fd, event in ready:
            transport = transports.get(fd)
            if transport is None:
                continue  # closed by what came before it
            if event & select.EPOLLOUT:
                transport.writable()
            if event & ~select.EPOLLOUT:
                try:
                    received = transport.recv_into(buffer)
                except BlockingIOError:
                    continue
                except OSError as error:
                    self.lost(transport, error)
                    continue
                if received:
                    transport.take(received)
                else:
                    self.lost(transport, None)
