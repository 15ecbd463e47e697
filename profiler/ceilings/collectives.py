"""What several devices exchange with each other: one worker per device, all asked at once."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from profiler.ceilings.probe import Probe, ask, missing
from profiler.engines.process import WorkerError, WorkerProcess
from profiler.results.schema import Ceiling

KINDS: Final = ("all_reduce", "all_to_all")
BYTES: Final = 64 * 2**20
REPEATS: Final = 5
CONNECT_S: Final = 30.0
"""Ranks that have not found each other by then never will."""


def collective_ceilings(
    devices: Sequence[tuple[str, str]],
    *,
    engine: str,
    options: dict[str, Any],
    python: str,
    log_path: Path,
    hello_s: float,
) -> list[Ceiling]:
    """Measure each kind of exchange over all devices together.

    Args:
        devices: (key, what the engine calls it) of each rank, at least two. One device named several
            times gets several ranks.
        engine: name of the engine.
        options: its options.
        python: interpreter of the workers.
        log_path: where the workers' output goes.
        hello_s: after this a worker that has not said hello counts as hung.

    Returns:
        A ceiling per kind under the key of the first device; without a value and with the reason where
        the devices could not be connected.
    """
    found: list[Ceiling] = []
    for kind in KINDS:
        key = devices[0][0]
        try:
            probe = _exchange(kind, devices, engine, options, python, log_path, hello_s)
        except WorkerError as error:
            found.append(missing(key, kind, "bytes/s", error.message, engine))
        else:
            found.append(probe.ceiling(key, kind, engine))
    return found


def _exchange(
    kind: str,
    devices: Sequence[tuple[str, str]],
    engine: str,
    options: dict[str, Any],
    python: str,
    log_path: Path,
    hello_s: float,
) -> Probe:
    """Return the rates of the slowest rank; fresh workers, since a failed exchange leaves ranks waiting."""
    with ExitStack() as stack:
        store = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aiprof-"))) / "store"
        workers = [stack.enter_context(WorkerProcess(python, log_path)) for _ in devices]
        threads = stack.enter_context(ThreadPoolExecutor(len(workers)))

        def rank(number: int) -> Probe:
            worker = workers[number]
            worker.request("hello", hello_s, engine=engine, options=options)
            return ask(
                worker,
                kind,
                devices[number][1],
                3 * CONNECT_S,
                rank=number,
                world_size=len(workers),
                store=str(store),
                bytes=BYTES,
                repeats=REPEATS,
                connect_s=CONNECT_S,
            )

        probes = list(threads.map(rank, range(len(workers))))
    rates = tuple(min(at_once) for at_once in zip(*(probe.rates for probe in probes), strict=True))
    return Probe(rates, probes[0].unit, probes[0].method)
