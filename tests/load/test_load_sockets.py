"""Receipts over plain TCP: whose stamp they carry, and that batches lose none."""

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from profiler.load import sockets


class Kept:
    """Keeps what came, with its stamps."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, bytes]] = []
        self.lost: list[Exception | None] = []

    def connection_made(self, transport: sockets.RawTransport) -> None:
        self.transport = transport

    def received(self, stamp_ns: int, nbytes: int) -> None:
        self.pieces.append((stamp_ns, sockets.BUFFER[:nbytes].tobytes()))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


Body = Callable[[sockets.SocketSet, Kept, socket.socket], Coroutine[Any, Any, None]]


def connected(body: Body) -> None:
    """Run ``body`` with a set, a receiver on it and the other end of its connection."""

    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            held = sockets.SocketSet(lambda: 1)
            kept = await held.connect("127.0.0.1", listener.getsockname()[1], Kept)
            other, _ = listener.accept()
            with other:
                await body(held, kept, other)
            held.close()

    asyncio.run(run())


async def until(known: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not known():
            await asyncio.sleep(0.001)


def test_a_receipt_carries_the_moment_it_came_in_not_the_one_it_was_read() -> None:
    async def body(held: sockets.SocketSet, kept: Kept, other: socket.socket) -> None:
        for number in range(50):  # the kernel begins to stamp a moment after it was asked to
            before = time.monotonic_ns()
            other.sendall(b"%d" % number)
            sent = time.monotonic_ns()
            time.sleep(0.02)  # nobody reads meanwhile
            late = time.monotonic_ns()
            await until(lambda: kept.pieces)
            if not held.stamped_here:
                stamp = kept.pieces[-1][0]
                # The two clocks are read one after the other, and the process may be stopped in between.
                assert before - 10_000_000 < stamp < late, (before, stamp, sent, late)
                return
            kept.pieces.clear()
            held.stamped_here = 0
        pytest.skip("this kernel does not stamp what comes in on loopback")

    connected(body)


@pytest.mark.parametrize("why", ["not supported", "clock set"])
def test_without_a_stamp_of_the_kernel_to_believe_the_moment_of_reading_counts(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why == "not supported":
        monkeypatch.setattr(sockets, "_SO_TIMESTAMPNS", 30_000)
    else:
        monkeypatch.setattr(sockets, "time_ns", lambda: time.time_ns() + 3600 * 10**9)

    async def body(held: sockets.SocketSet, kept: Kept, other: socket.socket) -> None:
        other.sendall(b"hello")
        before = time.monotonic_ns()
        await until(lambda: kept.pieces)
        assert before < kept.pieces[0][0] <= time.monotonic_ns()
        assert held.stamped_here == held.receipts == 1

    connected(body)


def test_dense_receipts_are_read_in_batches_and_none_is_lost_or_out_of_order() -> None:
    async def body(held: sockets.SocketSet, kept: Kept, other: socket.socket) -> None:
        other.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wanted = b"".join(b"%06d" % number for number in range(3000))
        for at in range(0, len(wanted), 6):
            other.sendall(wanted[at : at + 6])
            if at % 60 == 0:
                await asyncio.sleep(0)
        await until(lambda: sum(len(data) for _, data in kept.pieces) == len(wanted))
        other.shutdown(socket.SHUT_WR)
        await until(lambda: kept.lost)
        assert b"".join(data for _, data in kept.pieces) == wanted
        assert kept.lost == [None]

    connected(body)
