"""When requests arrive: absolute schedules, fixed before the load starts.

A schedule never depends on how fast the server answers (open loop): a server that falls behind
must not slow down the users who judge it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from profiler.workload.stream import numpy_generator

Process = Literal["constant", "poisson", "gamma"]


@dataclass(frozen=True)
class Arrivals:
    """How a service's requests arrive.

    Attributes:
        process: ``constant`` (equal gaps), ``poisson`` (exponential gaps) or ``gamma`` (gamma gaps).
        cv: coefficient of variation of the gaps: 0 for constant, 1 for poisson, any above 0 for gamma.
        measured_cv: what the trace has, or None when it cannot be told.
        rate_per_s: mean requests per second in the trace, or None when it has no arrival times.
        source: how ``cv`` follows from the trace, or why it is assumed.
    """

    process: Process
    cv: float
    measured_cv: float | None
    rate_per_s: float | None
    source: str

    def __post_init__(self) -> None:
        check_cv(self.process, self.cv)


def check_cv(process: Process, cv: float) -> None:
    """Refuse a coefficient of variation that the process cannot have.

    Raises:
        ValueError: with what it must be.
    """
    if not math.isfinite(cv) or cv < 0:
        raise ValueError(f"cv must be a number from 0 on, not {cv}")
    fixed = {"constant": 0.0, "poisson": 1.0}.get(process)
    if fixed is not None and cv != fixed:
        raise ValueError(f"cv of {process} arrivals is {fixed:g}, not {cv:g}")
    if process == "gamma" and cv == 0:
        raise ValueError("cv of gamma arrivals must be above 0; for equal gaps use constant")


def schedule(
    process: Process, *, rate_per_s: float, cv: float, count: int, scenario: str, seed: int
) -> NDArray[np.float64]:
    """Return when each of ``count`` requests is due, in seconds after the first one.

    Gaps are drawn independently with mean ``1 / rate_per_s`` from a gamma distribution of shape
    ``1 / cv**2`` (shape 1 is the exponential distribution, so poisson is one of these), by
    :func:`profiler.workload.stream.numpy_generator` of the purpose ``"arrivals"`` and the
    coordinates ``scenario, seed``. Schedules of different rates are the same one stretched, and a
    longer schedule begins with the shorter one. The rate of one schedule scatters around
    ``rate_per_s`` with a relative standard error of ``cv / sqrt(count - 1)``: that is what bursty
    means, and it is not corrected.

    Args:
        process: kind of arrivals.
        rate_per_s: mean requests per second, above 0.
        cv: coefficient of variation of the gaps.
        count: requests.
        scenario: name of the scenario.
        seed: the user's seed.

    Raises:
        ValueError: the rate or the count is out of range, or ``cv`` does not fit the process.
    """
    check_cv(process, cv)
    if not (math.isfinite(rate_per_s) and rate_per_s > 0):
        raise ValueError(f"rate_per_s must be above 0, not {rate_per_s}")
    if count < 1:
        raise ValueError(f"a schedule needs at least 1 request, not {count}")
    if cv == 0:
        gaps = np.ones(count - 1)
    else:
        shape = cv**-2
        gaps = numpy_generator("arrivals", scenario, seed).standard_gamma(shape, count - 1) / shape
    return np.concatenate(([0.0], np.cumsum(gaps))) / rate_per_s
