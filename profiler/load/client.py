"""One load process from the inside: sends on schedule, keeps stamps, and has answers read meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from profiler.load.backlog import Backlog
from profiler.load.bodies import Bodies
from profiler.load.connect import FAILURES, Connector
from profiler.load.connection import Connection
from profiler.load.exchange import Exchange
from profiler.load.job import Job
from profiler.load.prompts import WARM_UP, RequestBuilder, token_counter
from profiler.load.redact import api_key
from profiler.load.table import Requests
from profiler.load.ticks import LAG_EVERY_S, Ticks
from profiler.load.vitals import Vitals, cpu_s

READ_EVERY_S = 0.001
READ_FOR_S = 0.0003
"""Answers are read for at most this long at a time, so that no receipt waits longer for its stamp."""
SWEEP_EVERY_S = 0.1
AFTER_FAILURE_S = 0.1
"""A stream waits this long after a failure, or a server that refuses would be hammered."""


class Client:
    """Drives one job. Call :meth:`prepare`, then :meth:`run`; :meth:`stop` ends it early.

    Args:
        job: what to do.
        process: number of the process, for the results.
        when_over: called when the last answer of a run has ended, before its results are put together.
    """

    def __init__(self, job: Job, process: int = 0, when_over: Callable[[], None] = lambda: None) -> None:
        self.job = job
        self.max_response_bytes = job.limits.max_response_bytes
        self.ended = self.failed = 0
        key = api_key(job.key_variable)
        count = token_counter(job.tokenizer) if job.tokenizer else None
        self._requests = RequestBuilder(job.endpoints, job.api, job.model, job.prompts, job.features, key)
        self._backlog = Backlog(job.api, process, key, count, job.limits.max_waiting_bytes)
        self._connector = Connector(self, job.endpoints, job.ca_file, job.limits.connect_s)
        self._next_index = job.first
        self._bodies = Bodies(job, self._requests)
        self._idle: list[Connection] = []
        self._active: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticks = Ticks()
        self._stopping = self._warm = False
        self._warm_left = 0
        self._gave_up: str | None = None
        self._refused_in_a_row = 0
        self._in_flight = 0
        self._t0 = 0
        self._over = asyncio.Event()
        self._when_over = when_over

    @property
    def closed_loop(self) -> bool:
        """Whether a stream sends its next request when the answer is complete."""
        return self.job.due_s is None

    @property
    def in_flight(self) -> int:
        """Requests on their way."""
        return self._in_flight

    @property
    def streams(self) -> int:
        """Requests whose answers are awaited on a connection."""
        return len(self._active)

    async def prepare(self) -> None:
        """Open connections, send the warm-up requests, and make the first bodies."""
        job = self.job
        wanted = min(job.concurrency, 4096)
        for number in range(wanted):
            connection = await self._connector.open(number % len(job.endpoints))
            if isinstance(connection, Connection):
                self._idle.append(connection)
            elif not self._idle:
                break  # the server is not there: the requests will say so
        if job.warm_up and self._idle:
            self._warm, self._warm_left, self._t0 = True, job.warm_up, time.monotonic_ns()
            self._over.clear()
            self._ticks.after("sweep", SWEEP_EVERY_S, self._sweep)
            for _ in range(min(job.concurrency, job.warm_up)):
                self._start_stream()
            await self._over.wait()
            self._warm, self._next_index = False, job.first
            self._refused_in_a_row, self._gave_up = 0, None
        self._bodies.fill(max(2 * job.concurrency, 64))

    async def run(self, t0_ns: int) -> tuple[Requests, Vitals]:
        """Send the load from ``t0_ns`` (CLOCK_MONOTONIC) on and return the results when all has ended."""
        self._t0 = t0_ns
        self.ended = self.failed = 0
        self._over.clear()
        await asyncio.sleep(max(0.0, (t0_ns - time.monotonic_ns()) / 1e9))
        before, began = cpu_s(), time.monotonic()
        self._ticks.after("sweep", SWEEP_EVERY_S, self._sweep)
        self._ticks.after("lag", LAG_EVERY_S, self._ticks.watch_lag)
        self._ticks.after("read", READ_EVERY_S, self._read_some)
        if self.closed_loop:
            for number in range(self.job.concurrency):
                delay = self.job.ramp_s * number / self.job.concurrency
                self._in_flight += 1
                if delay:
                    self._later(delay, self._start_ramped)
                else:
                    self._start_ramped()
        else:
            self._in_flight += 1  # the dispatcher counts as one until the schedule is over
            self._dispatch()
        await self._over.wait()
        self._when_over()
        wall = time.monotonic() - began
        self._ticks.cancel()
        for task in self._tasks:
            task.cancel()
        for connection in (*self._idle, *self._active):
            connection.close()
        self._connector.close()
        requests = self._backlog.finish()
        vitals = Vitals(
            requests=self.ended,
            wall_s=wall,
            cpu_s=cpu_s() - before,
            lag_s=self._ticks.lag_s,
            loop=type(asyncio.get_running_loop()).__module__.partition(".")[0],
            gave_up=self._gave_up,
            max_waiting_bytes=self._backlog.max_waiting_bytes,
            kernel_stamped=self._connector.kernel_stamped,
        )
        return requests, vitals

    def stop(self, why: str = "interrupted") -> None:
        """Send nothing more and end what is on its way as ``cancelled``."""
        self._stopping, self._gave_up = True, self._gave_up or why
        for connection in list(self._active):
            connection.fail("cancelled", why)
        for task in self._tasks:
            task.cancel()
        if not self._in_flight or self._warm:
            self._over.set()

    # Sending ------------------------------------------------------------------------------------

    def _may_send(self) -> bool:
        job = self.job
        if self._warm:
            return self._warm_left > 0 and not self._stopping
        elapsed = (time.monotonic_ns() - self._t0) / 1e9
        return (
            not self._stopping
            and self._next_index < job.count
            and (job.seconds is None or elapsed < job.seconds)
        )

    def _start_ramped(self) -> None:
        self._in_flight -= 1
        self._start_stream()
        self._end_if_idle()

    def _start_stream(self, connection: Connection | None = None, scheduled_ns: int = 0) -> None:
        """Send the next request of a closed-loop stream, or end the stream."""
        if not self._may_send():
            if connection is not None:
                self._idle.append(connection)
            self._end_if_idle()
            return
        self._launch(connection, scheduled_ns or time.monotonic_ns())

    def _launch(self, connection: Connection | None, scheduled_ns: int) -> None:
        job, index = self.job, self._next_index
        self._next_index += job.step
        prompt, output = job.lengths(index)
        exchange = Exchange(index, scheduled_ns, prompt, output)
        if self._warm:
            self._warm_left -= 1
            body = self._requests.body(index, prompt, output, WARM_UP)
        else:
            body = self._bodies.take(index, prompt, output)
        self._in_flight += 1
        while connection is None and self._idle:
            connection = self._idle.pop()
            if not connection.open:
                connection = None
        if connection is not None and connection.open:
            self._send(connection, exchange, body)
        else:
            self._run(self._connect_and_send(index // job.step % len(job.endpoints), exchange, body))

    def _send(self, connection: Connection, exchange: Exchange, body: bytes) -> None:
        self._active.add(connection)
        connection.request = body
        connection.send(exchange, self._requests.with_head(connection.endpoint, body))

    async def _connect_and_send(self, endpoint: int, exchange: Exchange, body: bytes) -> None:
        exchange.endpoint = endpoint
        connection = await self._open(endpoint)
        if isinstance(connection, Connection) and not self._stopping:
            self._send(connection, exchange, body)
            return
        failure = ("cancelled", "interrupted") if isinstance(connection, Connection) else connection
        exchange.failure, exchange.message = failure
        exchange.end_ns = time.monotonic_ns()
        self._ended(None, exchange)

    async def _open(self, endpoint: int) -> Connection | tuple[str, str]:
        try:
            return await self._connector.open(endpoint)
        except asyncio.CancelledError:
            return "cancelled", "interrupted"

    def _dispatch(self) -> None:
        """Send everything that is due and wait for the next (open loop)."""
        due = self.job.due_s
        assert due is not None
        while self._next_index < min(self.job.count, len(due)) and not self._stopping:
            at = self._t0 + int(due[self._next_index] * 1e9)
            wait = at - time.monotonic_ns()
            if wait > 0:
                self._ticks.after("dispatch", wait / 1e9, self._dispatch)
                return
            self._launch(None, at)
        self._in_flight -= 1
        self._end_if_idle()

    # Ends ---------------------------------------------------------------------------------------

    def finished(self, connection: Connection, exchange: Exchange) -> None:
        """Take an exchange that has ended from its connection."""
        self._active.discard(connection)
        stale = exchange.failure == "stream_cut" and not exchange.received and connection.used > 1
        if stale and not exchange.retries and not self._stopping:
            # The server closed a connection that was idle while the request was leaving.
            exchange.retries, exchange.failure, exchange.message = 1, None, ""
            self._run(self._connect_and_send(connection.endpoint, exchange, connection.request))
            return
        self._ended(connection, exchange)

    def _ended(self, connection: Connection | None, exchange: Exchange) -> None:
        self._in_flight -= 1
        if not self._warm:
            self.ended += 1
            self.failed += exchange.failure is not None
            self._backlog.add(exchange)
        self._watch_for_a_dead_server(exchange)
        usable = connection if connection is not None and connection.open else None
        if not self.closed_loop and not self._warm:
            if usable is not None:
                self._idle.append(usable)
            self._end_if_idle()
        elif exchange.failure is None:
            self._start_stream(usable, exchange.end_ns)
        else:
            self._in_flight += 1
            self._later(AFTER_FAILURE_S, self._start_ramped)

    def _watch_for_a_dead_server(self, exchange: Exchange) -> None:
        if exchange.failure not in FAILURES:
            self._refused_in_a_row = 0
            return
        self._refused_in_a_row += 1
        if self._refused_in_a_row >= 3 * self.job.concurrency + 10 and not self._stopping:
            self._stopping = True
            self._gave_up = f"{self._refused_in_a_row} connections in a row failed: {exchange.message}"

    def _end_if_idle(self) -> None:
        if self._in_flight == 0:
            self._over.set()

    # Ticks --------------------------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _later(self, delay: float, call: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(delay, call)

    def _sweep(self) -> None:
        """End what takes too long."""
        now, limits = time.monotonic_ns(), self.job.limits
        for connection in list(self._active):
            connection.end_if_overdue(now, limits)
        self._ticks.after("sweep", SWEEP_EVERY_S, self._sweep)

    def _read_some(self) -> None:
        self._backlog.read_for(READ_FOR_S)
        # As many as streams that may all be answered at once, or the last ones would wait for theirs.
        if not self._backlog:
            self._bodies.make_one(max(self.job.concurrency, 64))
        self._ticks.after("read", READ_EVERY_S, self._read_some)
