"""What the client can drive on this machine, measured before it is asked to drive anything."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from profiler.errors import MeasurementError, UsageError
from profiler.load.endpoint import parse_endpoint
from profiler.load.fleet import PACKAGE_PARENT, run_job
from profiler.load.job import Job, Limits, LoopKind
from profiler.load.prompts import Features, PromptSpec
from profiler.results.schema import ClientCeiling

STREAMS = 64
LONG_TOKENS, LONG_REQUESTS = 100, 2 * STREAMS
SHORT_REQUESTS = 16 * STREAMS
METHOD = "processor time per request and per chunk against a paced server on loopback; one core per process"


@dataclass(frozen=True)
class ClientCost:
    """Processor time of the client.

    Attributes:
        per_request_s: of a request without its chunks.
        per_chunk_s: of each chunk.
    """

    per_request_s: float
    per_chunk_s: float

    def requests_per_s(self, chunks: float, processes: int) -> float:
        """Return the rate of requests with so many chunks each that keeps every process busy all the time."""
        return processes / (self.per_request_s + chunks * self.per_chunk_s)

    def ceiling(self, chunks: float, processes: int, rate_per_s: float | None) -> ClientCeiling:
        """Return the ceiling for requests of so many chunks, and the share of it that a rate is."""
        most = self.requests_per_s(chunks, processes)
        return ClientCeiling(
            cpu_per_request_s=self.per_request_s,
            cpu_per_chunk_s=self.per_chunk_s,
            requests_per_s=most,
            share=None if rate_per_s is None else rate_per_s / most,
            method=METHOD,
        )


def measure_client(prompt_tokens: int, loop: LoopKind = "auto") -> ClientCost:
    """Measure the client's cost with two loads on a server of our own; takes about two seconds.

    Args:
        prompt_tokens: prompt length, as long prompts take time to make and to send.
        loop: event loop of the load processes.

    Raises:
        MeasurementError: the server or the load process did not start.
    """
    with _null_server() as port:
        short = _cpu_s(port, SHORT_REQUESTS, 1, prompt_tokens, loop) / SHORT_REQUESTS
        long = _cpu_s(port, LONG_REQUESTS, LONG_TOKENS, prompt_tokens, loop) / LONG_REQUESTS
    per_chunk = max((long - short) / (LONG_TOKENS - 1), 1e-7)
    return ClientCost(max(short - per_chunk, 1e-6), per_chunk)


def refuse_above(ceiling: ClientCeiling, rate_per_s: float) -> None:
    """Refuse a rate that this machine cannot drive.

    Raises:
        UsageError: with what it can drive.
    """
    if rate_per_s > ceiling.requests_per_s:
        raise UsageError(
            f"{rate_per_s:g} requests/s are more than the client can drive here "
            f"({ceiling.requests_per_s:.3g} with answers of this length); "
            "more --processes on more cores, or a lower --rate"
        )


def _cpu_s(port: int, count: int, tokens: int, prompt_tokens: int, loop: LoopKind) -> float:
    job = Job(
        endpoints=(parse_endpoint(f"http://127.0.0.1:{port}"),),
        api="completions",
        model="null",
        prompts=PromptSpec("client-ceiling", 0),
        features=Features(),
        prompt_tokens=np.array([prompt_tokens]),
        output_tokens=np.array([tokens]),
        concurrency=STREAMS,
        count=count,
        warm_up=STREAMS,
        limits=Limits(total_s=60, idle_s=20),
        loop=loop,
    )
    requests, vitals, _ = run_job(job)
    if not requests.ok.all():
        raise MeasurementError(f"the client's own test failed: {requests.messages}")
    return sum(one.cpu_s for one in vitals)


@contextlib.contextmanager
def _null_server() -> Iterator[int]:
    python_path = os.pathsep.join(filter(None, [str(PACKAGE_PARENT), os.environ.get("PYTHONPATH")]))
    with subprocess.Popen(
        [sys.executable, "-m", "profiler.load.null_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": python_path},
        start_new_session=True,
    ) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            if not line.strip().isdigit():
                raise MeasurementError("the loopback server for the client's own test did not start")
            yield int(line)
        finally:
            server.kill()
