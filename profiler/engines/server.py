"""A server that an engine starts by itself: on loopback, waited for, watched, and gone afterwards.

Use it where an engine serves its cases over HTTP (``vllm serve``, ``llama-server``)::

    def command(port: int) -> list[str]:
        return [python, "-m", "vllm.entrypoints.cli.main", "serve", model,
                "--host", "127.0.0.1", "--port", str(port)]

    with ServerProcess(command, log_path, ready_path="/health") as server:
        server.wait_ready(timeout_s=600)          # ServerError: died, timed out, out of memory
        drive(parse_endpoint(server.url))         # profiler.load
        server.check()                            # ServerError when it died meanwhile
        tail = server.log_tail()

Leaving the ``with`` block, in whatever way, ends the server and everything it has started; so does the end of
this process, even by SIGKILL, because a guard (``server_guard.py``) stands between. The command's output goes
to ``log_path`` only, so nothing that it prints reaches the terminal or a record unasked.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from profiler.engines.process import oom_kills
from profiler.privacy import scrub

GUARD = Path(__file__).with_name("server_guard.py")
LOOPBACK = "127.0.0.1"
LONGEST_POLL_S = 1.0
PORT_ATTEMPTS = 3
# What the guard itself may need after the server's time to end is over.
GUARD_PATIENCE_S = 10.0

CommandFor = Callable[[int], Sequence[str]]


class ServerError(Exception):
    """The server did not start, or ended by itself.

    Attributes:
        kind: ``server_died``, ``timeout`` or ``out_of_memory``; as in ``Failure``.
        message: one line.
        log_tail: last lines of what it printed.
    """

    def __init__(self, kind: str, message: str, log_tail: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.log_tail = log_tail


class ServerProcess:
    """One server. Use as a context manager; entering starts it.

    Args:
        command: returns the command line for a port; it must listen on 127.0.0.1.
        log_path: file that everything it prints is appended to.
        name: what it is called in messages.
        environment: its whole environment, or None for this process's own.
        ready_path: path that answers 200 once it can serve.
        grace_s: how long it may take to end before it is killed.
        noise: lines of its output that say nothing about why it ended, e.g. what it prints at every end.
    """

    def __init__(
        self,
        command: CommandFor,
        log_path: Path,
        *,
        name: str = "the server",
        environment: Mapping[str, str] | None = None,
        ready_path: str = "/health",
        grace_s: float = 15.0,
        noise: re.Pattern[str] | None = None,
    ) -> None:
        self._command = command
        self._log_path = log_path
        self._name = name
        self._environment = environment
        self._ready_path = ready_path
        self._grace_s = grace_s
        self._noise = noise
        self._guard: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._oom_kills: int | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Where it serves: ``http://127.0.0.1:PORT``."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._guard is not None and self._guard.poll() is None

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self) -> None:
        self.port = free_port()
        self._oom_kills = oom_kills()
        guarded = [sys.executable, "-I", "-S", str(GUARD), str(self._grace_s), *self._command(self.port)]
        with self._log_path.open("ab") as log:
            self._log_start = log.tell()
            self._guard = subprocess.Popen(
                guarded, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
                env=self._environment, start_new_session=True,
            )  # fmt: skip

    def wait_ready(self, timeout_s: float, waiting: Callable[[float], None] | None = None) -> None:
        """Wait until the server answers on its ready path.

        Another program may have taken the port between its choice and the server's start; the server is
        then started again on another one.

        Args:
            timeout_s: after this it is given up.
            waiting: told now and then for how many seconds it has been waited.

        Raises:
            ServerError: it ended, or was not ready in time.
        """
        began = time.monotonic()
        pause_s, attempts = 0.05, 1
        while True:
            answers = self._answers()
            if answers and self._listens():
                return
            if answers and attempts < PORT_ATTEMPTS:
                self.stop()
                self._start()
                attempts += 1
                continue
            self.check("while it was starting")
            waited = time.monotonic() - began
            if waited > timeout_s:
                message = f"{self._name} was not ready within {timeout_s:.0f} s"
                raise ServerError("timeout", message, self.log_tail())
            if waiting is not None:
                waiting(waited)
            time.sleep(pause_s)
            pause_s = min(LONGEST_POLL_S, 1.5 * pause_s)

    def check(self, when: str = "while it was serving") -> None:
        """Do nothing while the server runs.

        Raises:
            ServerError: it has ended, with how and its last lines.
        """
        assert self._guard is not None
        code = self._guard.poll()
        if code is None:
            return
        kills = oom_kills()
        known = None not in (kills, self._oom_kills)
        if code == 128 + signal.SIGKILL and known and kills != self._oom_kills:
            message = f"the kernel killed {self._name} {when}: out of memory"
            raise ServerError("out_of_memory", message, self.log_tail())
        raise ServerError("server_died", f"{self._name} ended {when}: {_ended(code)}", self.log_tail())

    def processes(self) -> list[psutil.Process]:
        """Return the server's processes, those it has started included; empty when it has ended."""
        if self._guard is None:
            return []
        try:
            return psutil.Process(self._guard.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def log_tail(self, lines: int = 12) -> tuple[str, ...]:
        """Return the last lines of what it printed, without names and home paths."""
        try:
            with self._log_path.open("rb") as log:
                log.seek(max(self._log_start, os.fstat(log.fileno()).st_size - 65_536))
                text = log.read().decode("utf-8", "replace")
        except OSError:
            return ()
        told = [line for line in text.splitlines() if line.strip()]
        if self._noise is not None:
            told = [line for line in told if not self._noise.search(line)]
        return tuple(scrub(line)[:300] for line in told[-lines:])

    def stop(self) -> None:
        """End the server and everything it has started. Does nothing when it has ended before."""
        guard = self._guard
        if guard is None:
            return
        assert guard.stdin is not None
        guard.stdin.close()  # the guard ends the server now, whatever happens to this process
        try:
            guard.wait(self._grace_s + GUARD_PATIENCE_S)
        except subprocess.TimeoutExpired:
            guard.kill()  # the server has the guard's death as its own
            guard.wait()

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=2.0)
        try:
            connection.request("GET", self._ready_path)
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _listens(self) -> bool:
        """Whether it is this server that has the port, and not another program."""
        for process in self.processes():
            try:
                if any(
                    one.status == psutil.CONN_LISTEN and one.laddr.port == self.port
                    for one in process.net_connections("tcp")
                ):
                    return True
            except psutil.Error:
                continue
        return False


def free_port() -> int:
    """Return a loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _ended(code: int) -> str:
    if code > 128 and code - 128 in set(signal.Signals):
        return f"killed by {signal.Signals(code - 128).name}"
    if code < 0:
        return f"its guard was killed by {signal.Signals(-code).name}"
    return f"exit code {code}"
