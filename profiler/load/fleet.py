"""The load processes from the conductor's side: start, go, progress, results, and no child left behind."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from profiler.errors import MeasurementError
from profiler.load.job import Job
from profiler.load.process import load
from profiler.load.table import Requests, merge
from profiler.load.vitals import Vitals

PACKAGE_PARENT = Path(__file__).resolve().parents[2]
GO_DELAY_S = 0.2
"""All processes must have read the go before it is time."""
PATIENCE_S = 15.0


@dataclass(frozen=True)
class Progress:
    """How far a load is, over all processes."""

    ended: int
    failed: int
    in_flight: int
    elapsed_s: float


Listener = Callable[[Progress], None]


def split(job: Job, processes: int) -> list[Job]:
    """Share a job out: every process takes each n-th request and its part of the streams and the warm-up.

    A closed loop gets no more processes than it has streams.
    """
    if job.due_s is None:
        processes = min(processes, job.concurrency)
    shares = []
    for number in range(processes):
        streams = len(range(number, job.concurrency, processes))
        warm_up = len(range(number, job.warm_up, processes))
        shares.append(
            replace(job, concurrency=max(1, streams), warm_up=warm_up, first=number, step=processes)
        )
    return shares


class Fleet:
    """Runs a job in processes of its own. Use :meth:`run` once.

    Args:
        job: the whole job.
        processes: how many processes share it.
    """

    def __init__(self, job: Job, processes: int = 1) -> None:
        self._jobs = split(job, processes)
        self._children: list[subprocess.Popen[str]] = []
        self._edge: Callable[[], None] | None = None
        self._news: queue.Queue[tuple[int, dict[str, Any]]] = queue.Queue()

    def run(
        self, listener: Listener | None = None, edge: Callable[[], None] | None = None
    ) -> tuple[Requests, tuple[Vitals, ...], int]:
        """Return the requests of all processes, how each did, and the go (CLOCK_MONOTONIC ns).

        An interrupt ends the load early: what has ended is returned with the rest as ``cancelled``, and
        the interrupt is raised again by the caller's choice (:attr:`interrupted`).

        ``edge`` is called at the go, from another thread, and when each process has had its last answer.

        Raises:
            MeasurementError: a process died or said why it cannot run.
        """
        self.interrupted = False
        with contextlib.ExitStack() as stack:
            # Files without names: nothing stays of them, not even if this process is killed.
            results = [stack.enter_context(tempfile.TemporaryFile()) for _ in self._jobs]
            try:
                for number, job in enumerate(self._jobs):
                    self._start(number, job, results[number].fileno())
                self._wait_for("ready", None, None, PATIENCE_S + self._jobs[0].limits.total_s)
                t0 = time.monotonic_ns() + int(GO_DELAY_S * 1e9)
                self._tell(f"go {t0}")
                self._edge = edge
                if edge is not None:
                    going = threading.Timer((t0 - time.monotonic_ns()) * 1e-9, edge)
                    going.daemon = True
                    going.start()
                try:
                    self._wait_for("done", listener, t0, None)
                except KeyboardInterrupt:
                    self.interrupted = True
                    self._tell("stop")
                    self._wait_for("done", listener, t0, PATIENCE_S)
                parts = [load(result) for result in results]
            finally:
                self._end()
        return merge([requests for requests, _ in parts]), tuple(vitals for _, vitals in parts), t0

    def _start(self, number: int, job: Job, result_fd: int) -> None:
        python_path = os.pathsep.join(filter(None, [str(PACKAGE_PARENT), os.environ.get("PYTHONPATH")]))
        with tempfile.TemporaryFile() as job_file:
            job_file.write(json.dumps(job.to_json()).encode())
            job_file.seek(0)  # the child reads on where this process stands
            child = subprocess.Popen(
                [
                    sys.executable, "-m", "profiler.load.process", str(job_file.fileno()), str(result_fd),
                    str(number), str(os.getpid()),
                ],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                env=os.environ | {"PYTHONPATH": python_path}, pass_fds=(job_file.fileno(), result_fd),
                start_new_session=True,  # an interrupt at the keyboard reaches the conductor only
            )  # fmt: skip
        self._children.append(child)
        threading.Thread(target=self._listen, args=(number, child), daemon=True).start()

    def _listen(self, number: int, child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        for line in child.stdout:
            with contextlib.suppress(ValueError):
                self._news.put((number, json.loads(line)))
        self._news.put((number, {"event": "end"}))

    def _tell(self, order: str) -> None:
        for child in self._children:
            assert child.stdin is not None
            with contextlib.suppress(OSError):
                child.stdin.write(f"{order}\n")
                child.stdin.flush()

    def _wait_for(
        self, event: str, listener: Listener | None, t0: int | None, patience_s: float | None
    ) -> None:
        """Wait until every process has said ``event``."""
        missing = set(range(len(self._children)))
        state: dict[int, dict[str, Any]] = {}
        deadline = None if patience_s is None else time.monotonic() + patience_s
        while missing:
            try:
                number, news = self._news.get(timeout=1.0)
            except queue.Empty:
                if deadline is not None and time.monotonic() > deadline:
                    raise MeasurementError(f"a load process did not answer within {patience_s:g} s") from None
                continue
            said = news.get("event")
            if said == "error":
                raise MeasurementError(f"load process {number}: {news.get('message')}")
            if said == "end" and number in missing:
                code = self._children[number].wait()
                raise MeasurementError(f"load process {number} ended by itself ({_ended(code)})")
            if said == event:
                missing.discard(number)
            elif said == "over" and self._edge is not None:
                self._edge()
            elif said == "progress":
                state[number] = news
                if listener is not None and t0 is not None:
                    listener(_progress(state.values(), t0))

    def _end(self) -> None:
        for child in self._children:
            child.kill()
        for child in self._children:
            child.wait()
            for pipe in (child.stdin, child.stdout):
                with contextlib.suppress(OSError):
                    pipe and pipe.close()


def _progress(states: Iterable[Mapping[str, Any]], t0: int) -> Progress:
    known = list(states)

    def total(name: str) -> int:
        return sum(int(state[name]) for state in known)

    return Progress(
        total("ended"), total("failed"), total("in_flight"), max(0.0, (time.monotonic_ns() - t0) / 1e9)
    )


def _ended(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"


def run_job(
    job: Job, *, processes: int = 1, listener: Listener | None = None
) -> tuple[Requests, tuple[Vitals, ...], int]:
    """Run a job to its end; see :meth:`Fleet.run`.

    Raises:
        KeyboardInterrupt: it was interrupted; nothing is kept.
        MeasurementError: a process died.
    """
    fleet = Fleet(job, processes)
    found = fleet.run(listener)
    if fleet.interrupted:
        raise KeyboardInterrupt
    return found
