"""The roofline: how fast a phase could be on a device, and what stops it.

A phase moves bytes and computes, and at best does both at once: it takes at least
``max(bytes / bandwidth, operations / matrix rate)`` (Williams, Waterman and Patterson, CACM 52, 2009).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from profiler.ceilings.matrix import matrix_ceiling_name
from profiler.results.schema import Ceiling


@dataclass(frozen=True)
class Bound:
    """The least time that a phase can take.

    Attributes:
        seconds: that time.
        ceiling: name of the ceiling that sets it.
    """

    seconds: float
    ceiling: str


def bound(
    flops: float, moved_bytes: float, *, bytes_per_s: float, flops_per_s: float, compute_dtype: str
) -> Bound:
    """Return the least time of a phase and which ceiling binds it."""
    moving, computing = moved_bytes / bytes_per_s, flops / flops_per_s
    if moving >= computing:
        return Bound(moving, "read_bandwidth")
    return Bound(computing, matrix_ceiling_name(compute_dtype))


def find_ceiling(
    ceilings: Iterable[Ceiling], device_key: str, name: str, engine: str | None = None
) -> Ceiling | None:
    """Return a measured ceiling of a device, that of ``engine`` if it measured one; else any."""
    found = [
        ceiling
        for ceiling in ceilings
        if (ceiling.device_key, ceiling.name) == (device_key, name) and ceiling.measurement.value
    ]
    return next((ceiling for ceiling in found if ceiling.engine == engine), found[0] if found else None)
