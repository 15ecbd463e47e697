"""The worker process, seen from the conductor: start it, ask it, time it out, bury it."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from profiler.engines.contract import fault_in
from profiler.privacy import scrub

WORKER_MAIN = Path(__file__).resolve().parent.parent / "worker" / "main.py"
PROTOCOL = 1
# A trial of 16k tokens x batch 64 has a few hundred kilobytes of stamps; this is far beyond any answer.
MAX_ANSWER_BYTES = 256 * 2**20
MAX_KIND, MAX_MESSAGE = 60, 2000


class WorkerError(Exception):
    """A request that did not end in an answer, or ended in an error.

    Attributes:
        kind: the engine's kind (``out_of_memory``, ``unsupported``, …), or ``worker_died``,
            ``timeout``, ``protocol``, ``internal``.
        message: one line.
        fatal: True when the process is gone (killed here, if it had not died by itself).
    """

    def __init__(self, kind: str, message: str, *, fatal: bool) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.fatal = fatal


class WorkerProcess:
    """One worker. Use as a context manager: leaving it ends the process and its whole group.

    Args:
        python: interpreter to run under.
        log_path: file that everything the worker prints is appended to.
    """

    def __init__(self, python: str, log_path: Path) -> None:
        self.log_path = log_path
        self._next_id = 1
        self._buffer = bytearray()
        self._oom_kills = oom_kills()
        command = [python, str(WORKER_MAIN), str(os.getpid())]
        with log_path.open("ab") as log:
            self._log_start = log.tell()
            try:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
                )
            except OSError as error:
                raise WorkerError(
                    "worker_died", f"{python} cannot be started: {error.strerror}", fatal=True
                ) from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._requests, False)
        os.set_blocking(self._answers, False)

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if kind is None and self._process.poll() is None:
            try:
                self.request("bye", timeout_s=5.0)
                self._process.wait(timeout=5.0)
            except (WorkerError, subprocess.TimeoutExpired):
                pass  # it had its chance; kill() below does not ask
        self.kill()

    def kill(self) -> None:
        """End the worker and everything it started, and reap it."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # the whole group is gone already
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except OSError:
                    pass  # unsent bytes to a dead worker

    def request(
        self, op: str, timeout_s: float, *, sent: Callable[[], None] | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Send one request and return its result.

        Args:
            op: one of the ops in docs/architecture.md.
            timeout_s: after this the worker is killed.
            sent: called when the worker has been sent all of it.
            fields: the request's other fields, JSON values.

        Raises:
            WorkerError: no answer in time, the worker died, or it answered with an error.
        """
        identity, self._next_id = self._next_id, self._next_id + 1
        line = json.dumps({"id": identity, "op": op, **fields}, allow_nan=False).encode() + b"\n"
        deadline = time.monotonic() + timeout_s
        self._send(line, op, timeout_s, deadline)
        if sent is not None:
            sent()
        while True:
            answer = self._parse(self._receive_line(op, timeout_s, deadline), op)
            if answer.get("id") == identity:
                break  # anything else is an event, or an answer to a request we gave up on
        if answer.get("ok") is True and isinstance(answer.get("result"), dict):
            result: dict[str, Any] = answer["result"]
            fault = fault_in(op, result)
            if fault is not None:
                raise WorkerError("protocol", scrub(fault), fatal=False)
            return result
        error = answer.get("error")
        error = error if isinstance(error, dict) else {}
        kind, message = error.get("kind", "internal"), error.get("message", answer)
        # Both are the engine's to choose, and end up in a record.
        raise WorkerError(str(kind)[:MAX_KIND], scrub(str(message)[:MAX_MESSAGE]), fatal=False)

    def log_tail(self, lines: int = 12) -> tuple[str, ...]:
        """Return the last lines of what the worker printed, without names and home paths."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(self._log_start, os.fstat(log.fileno()).st_size - 16_384))
                text = log.read().decode("utf-8", "replace")
        except OSError:
            return ()
        return tuple(scrub(line)[:300] for line in text.splitlines()[-lines:] if line.strip())

    def _send(self, line: bytes, op: str, timeout_s: float, deadline: float) -> None:
        """Write the request without ever blocking on a worker that has stopped reading."""
        view = memoryview(line)
        with selectors.DefaultSelector() as selector:
            selector.register(self._requests, selectors.EVENT_WRITE)
            while view:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise self._timed_out(op, timeout_s)
                try:
                    view = view[os.write(self._requests, view) :]
                except BrokenPipeError:
                    raise self._died(op) from None
                except BlockingIOError:
                    continue

    def _receive_line(self, op: str, timeout_s: float, deadline: float) -> bytes:
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            searched = 0
            while (end := self._buffer.find(b"\n", searched)) < 0:
                searched = len(self._buffer)
                if searched > MAX_ANSWER_BYTES:
                    self.kill()
                    raise WorkerError("protocol", f"the worker's answer to {op} never ends", fatal=True)
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise self._timed_out(op, timeout_s)
                try:
                    received = os.read(self._answers, 1 << 20)
                except BlockingIOError:
                    continue
                if not received:
                    raise self._died(op)
                self._buffer += received
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _parse(self, line: bytes, op: str) -> dict[str, Any]:
        try:
            answer = json.loads(line, parse_constant=_no_number)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            self.kill()
            raise WorkerError(
                "protocol", f"the worker answered {op} with something that is not JSON", fatal=True
            )
        return answer

    def _timed_out(self, op: str, timeout_s: float) -> WorkerError:
        self.kill()
        return WorkerError(
            "timeout", f"no answer to {op} within {timeout_s:.0f} s; the worker was killed", fatal=True
        )

    def _died(self, op: str) -> WorkerError:
        """Say how the worker ended; a kill for lack of memory shows in the kernel's own counter."""
        try:
            code = self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            self.kill()
            return WorkerError("worker_died", f"the worker closed its output during {op}", fatal=True)
        kills = oom_kills()
        self.kill()
        if code == -signal.SIGKILL and None not in (kills, self._oom_kills) and kills != self._oom_kills:
            return WorkerError(
                "out_of_memory", f"the kernel killed the worker during {op}: out of memory", fatal=True
            )
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        return WorkerError("worker_died", f"the worker was lost during {op}: {how}", fatal=True)


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def oom_kills() -> int | None:
    """Kills by the kernel's out-of-memory killer since boot (``oom_kill`` in /proc/vmstat), or None."""
    try:
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except OSError:
        pass  # not Linux, or hidden: the cause of a SIGKILL is then not told apart
    return None
