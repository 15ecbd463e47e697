"""How many requests a point of a load sends, and when each is due."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from profiler.errors import UsageError
from profiler.load.plan import open_schedule, ramp
from profiler.load.request import LoadRequest, Point
from profiler.load.search import requests_wanted
from profiler.workload.arrivals import Process

Due = NDArray[np.float64] | None


def requests_at_most(request: LoadRequest, point: Point) -> int | None:
    """Return how many requests are asked for, or a search needs; None where only time ends them."""
    if request.search is None or request.requests is not None:
        return request.requests
    level = point.concurrency or point.rate_per_s or 1.0
    return requests_wanted(request.slos, level, request.search.over)


def due_s(request: LoadRequest, point: Point) -> Due:
    """Return when requests are due after the go, or None for a closed loop; shape (n,).

    Raises:
        UsageError: too many requests, or arrivals that cannot be.
    """
    wanted = requests_at_most(request, point)
    if point.concurrency is not None:
        return None
    if request.trace is not None:
        due = request.trace.at_s
        due = due if request.seconds is None else due[due < request.seconds]
        return due[:wanted] if wanted is not None else due
    assert point.rate_per_s is not None
    assert point.process is not None
    if point.rate_end_per_s is not None:
        assert request.seconds is not None
        return ramp(point.rate_per_s, point.rate_end_per_s, request.seconds)
    return open_schedule(
        request.shape.name, _stationary(point.process), point.rate_per_s, point.cv or 0.0,
        count=wanted, seconds=request.seconds, seed=request.seed,
    )  # fmt: skip


def mean_rate(due: NDArray[np.float64]) -> float | None:
    """Return the arrivals per second of a schedule, None where all are due at once."""
    return float((len(due) - 1) / due[-1]) if len(due) > 1 and due[-1] > 0 else None


def peak_rate(due: NDArray[np.float64]) -> float:
    """Return the highest rate of a schedule over ten seconds, or over all of it when it is shorter."""
    if len(due) < 2:
        return 0.0
    span = min(10.0, float(due[-1]))
    if span <= 0:
        return float(len(due))  # all at once: as if within a second
    inside = np.searchsorted(due, due + span, side="left") - np.arange(len(due))
    return float(inside.max() / span)


def _stationary(process: str) -> Process:
    if process not in ("constant", "poisson", "gamma"):
        raise UsageError(f"arrivals are constant, poisson or gamma, not {process}")
    return cast(Process, process)
