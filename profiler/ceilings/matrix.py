"""The matrix rate of a device: one ceiling for each number format that products are done in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from profiler.ceilings.probe import ask_or_say_why
from profiler.engines.process import WorkerProcess
from profiler.results.schema import Ceiling

REPEATS: Final = 5


def matrix_ceiling_name(compute_dtype: str) -> str:
    """Return the name of the ceiling that work in ``compute_dtype`` is held against."""
    return f"matrix_flops:{compute_dtype}"


def matrix_ceilings(
    worker: WorkerProcess,
    device: str,
    compute_dtypes: Iterable[str],
    timeout_s: float,
    *,
    device_key: str,
    engine: str,
) -> list[Ceiling]:
    """Measure the matrix rate in each format; what the engine cannot measure has the reason instead.

    Args:
        worker: a process that has said hello.
        device: what the engine calls the device.
        compute_dtypes: number formats of the products.
        timeout_s: after this the worker counts as hung.
        device_key: of the device.
        engine: name of the engine.

    Raises:
        WorkerError: the process is gone.
    """
    return [
        ask_or_say_why(
            worker,
            "matrix_flops",
            device,
            timeout_s,
            device_key=device_key,
            name=matrix_ceiling_name(dtype),
            unit="FLOP/s",
            engine=engine,
            format=dtype,
            repeats=REPEATS,
        )
        for dtype in dict.fromkeys(compute_dtypes)
    ]
