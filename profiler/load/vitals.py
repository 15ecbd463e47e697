"""How a load process itself did: without it nobody knows whose latency was measured."""

from __future__ import annotations

import resource
from dataclasses import dataclass


@dataclass(frozen=True)
class Vitals:
    """How one load process did.

    Attributes:
        requests: requests that ended in it.
        wall_s: from the go to the end of the last request.
        cpu_s: processor time in that span, and of reading what is left at the end.
        lag_s: how late its event loop was, one value per 10 ms (the kernel's timer adds up to 1 ms).
        loop: event loop that ran.
        gave_up: why it stopped sending before the end, or None.
        max_waiting_bytes: most raw bytes that waited to be read.
        kernel_stamped: share of the receipts over plain connections that the kernel stamped when they came
            in, None without any; the others, and all over TLS, are stamped when this process reads them.
    """

    requests: int
    wall_s: float
    cpu_s: float
    lag_s: tuple[float, ...]
    loop: str
    gave_up: str | None
    max_waiting_bytes: int
    kernel_stamped: float | None = None


def cpu_s() -> float:
    """Return the processor time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
