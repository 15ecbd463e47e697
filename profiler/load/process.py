"""A load process: ``python -m profiler.load.process JOB_FD RESULT_FD NUMBER PARENT``.

It reads its job from a descriptor, says ``ready`` on stdout, waits for ``go T0_NS`` on stdin, reports its
progress in JSON lines and leaves the results in the file behind another descriptor. Neither file has a
name, so that nothing stays of them however the processes end. The API key comes with the environment.
``stop``, or the end of its input, ends it early; it dies with its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import resource
import sys
from dataclasses import asdict
from typing import IO, Any

import numpy as np

from profiler.errors import AiprofError
from profiler.load.client import Client
from profiler.load.job import Job, LoopKind
from profiler.load.table import Requests, from_arrays, to_arrays
from profiler.load.vitals import Vitals
from profiler.worker.isolation import die_with_parent

PROGRESS_EVERY_S = 0.25


def main(job_fd: str, result_fd: str, number: str, parent: str) -> int:
    """Run one job and return the exit code."""
    die_with_parent(int(parent))
    raise_open_files()
    try:
        with os.fdopen(int(job_fd), "rb") as file:
            job = Job.from_json(json.load(file))
        requests, vitals = run_in_loop(job.loop, _serve(job, int(number)))
    except AiprofError as error:
        _say("error", message=str(error))
        return 2
    with os.fdopen(int(result_fd), "wb") as file:
        save(file, requests, vitals)
    _say("done")
    return 0


def run_in_loop(kind: LoopKind, work: Any) -> Any:
    """Run a coroutine under the event loop that was asked for; ``auto`` takes uvloop where it is.

    Raises:
        AiprofError: uvloop was asked for and is not installed.
    """
    factory = None
    if kind != "asyncio":
        try:
            import uvloop

            factory = uvloop.new_event_loop
        except ImportError:
            if kind == "uvloop":
                work.close()
                raise AiprofError("uvloop is not installed: pip install aiprof[uvloop]") from None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)


def raise_open_files() -> None:
    """Allow as many open connections as the system lets this user have."""
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(job: Job, number: int) -> tuple[Requests, Vitals]:
    client = Client(job, number, when_over=lambda: _say("over"))
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    preparing = asyncio.ensure_future(client.prepare())
    order = asyncio.ensure_future(lines.readline())
    await asyncio.wait((preparing, order), return_when=asyncio.FIRST_COMPLETED)
    if order.done():  # told to stop before there was anything to go for
        preparing.cancel()
        client.stop()
    else:
        await preparing
        _say("ready")
    text = (await order).decode().split()
    go = text[:1] == ["go"]
    if not go:
        client.stop()
    # What is alive now stays alive: a collection in the middle would be a pause for all streams.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    reporter = asyncio.ensure_future(_report(client))
    listener = asyncio.ensure_future(_stop_when_told(client, lines))
    try:
        return await client.run(int(text[1]) if go else 0)
    finally:
        reporter.cancel()
        listener.cancel()


async def _report(client: Client) -> None:
    while True:
        await asyncio.sleep(PROGRESS_EVERY_S)
        _say("progress", ended=client.ended, failed=client.failed, in_flight=client.in_flight)


async def _stop_when_told(client: Client, lines: asyncio.StreamReader) -> None:
    await lines.readline()  # "stop", or nothing: the conductor is gone
    client.stop()


def _say(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


def save(file: IO[bytes], requests: Requests, vitals: Vitals) -> None:
    """Write results for :func:`load`."""
    about = np.array(json.dumps({"vitals": asdict(vitals), "messages": requests.messages}))
    np.savez(file, **{"about": about, **to_arrays(requests)})  # type: ignore[arg-type]


def load(file: IO[bytes]) -> tuple[Requests, Vitals]:
    """Read what :func:`save` wrote."""
    file.seek(0)
    with np.load(file) as arrays:
        about = json.loads(str(arrays["about"]))
        requests = from_arrays(
            {name: arrays[name] for name in arrays.files if name != "about"}, about["messages"]
        )
    fields = about["vitals"]
    return requests, Vitals(**fields | {"lag_s": tuple(fields["lag_s"])})


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
