"""Answers that wait to be read, and are read a little at a time between receipts."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator

from profiler.load.endpoint import Api
from profiler.load.exchange import Exchange
from profiler.load.outcome import CountTokens, Reading
from profiler.load.reading import reading_steps
from profiler.load.table import Builder, Requests


class Backlog:
    """Takes exchanges that have ended and turns them into rows when there is time.

    Args:
        api: how to read events.
        process: number of the process, for the rows.
        key: the API key, kept out of messages.
        count: counts tokens for servers that do not.
        max_bytes: raw bytes that may wait; beyond it answers are read at once.

    Attributes:
        max_waiting_bytes: most raw bytes that have waited.
    """

    def __init__(
        self, api: Api, process: int, key: str | None, count: CountTokens | None, max_bytes: int
    ) -> None:
        self.max_waiting_bytes = 0
        self._api: Api = api
        self._key = key
        self._count = count
        self._max_bytes = max_bytes
        self._builder = Builder(process)
        self._waiting: deque[Exchange] = deque()
        self._waiting_bytes = 0
        self._reading: tuple[Exchange, Generator[None, None, Reading]] | None = None

    def __bool__(self) -> bool:
        return bool(self._waiting) or self._reading is not None

    def add(self, exchange: Exchange) -> None:
        """Take an exchange that has ended."""
        self._waiting.append(exchange)
        self._waiting_bytes += exchange.received
        self.max_waiting_bytes = max(self.max_waiting_bytes, self._waiting_bytes)
        while self._waiting_bytes > self._max_bytes:
            self._step()

    def read_for(self, seconds: float) -> None:
        """Read until the time is over or nothing is left."""
        until = time.monotonic() + seconds
        while self and time.monotonic() < until:
            self._step()

    def finish(self) -> Requests:
        """Read everything that is left and return all rows."""
        while self:
            self._step()
        return self._builder.build()

    def _step(self) -> None:
        if self._reading is None:
            exchange = self._waiting.popleft()
            self._reading = exchange, reading_steps(exchange, self._api, key=self._key, count=self._count)
        exchange, steps = self._reading
        try:
            next(steps)
        except StopIteration as end:
            self._reading = None
            self._waiting_bytes -= exchange.received
            self._builder.add(exchange, end.value)
