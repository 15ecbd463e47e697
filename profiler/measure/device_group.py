"""Which devices a case takes that is spread over several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from profiler.backends.base import BackendReport, Device
from profiler.errors import UsageError
from profiler.models.parallel import Parallel


def device_group(
    parallel: Parallel,
    chosen: Sequence[Device],
    reports: Sequence[BackendReport],
    backend: Any,
) -> tuple[Device, ...]:
    """Return the devices of every case.

    One device that was chosen is the first, and those after it with the same name are the others; several
    must be as many as are needed. A CPU is one device, whose cores the ranks share.

    Args:
        parallel: how models are spread.
        chosen: what ``--device`` names, or the box's default.
        reports: of all backends.
        backend: of the chosen devices; one that makes devices up may have ``more(device, count)``.

    Raises:
        UsageError: there are not so many devices, or they are not of one kind.
    """
    first, needed = chosen[0], parallel.devices
    if first.backend == "cpu" and len(chosen) == 1:
        return (first,)
    if len({device.backend for device in chosen}) > 1:
        raise UsageError(f"{parallel}: a case takes devices of one kind, --device names several kinds")
    if len(chosen) == needed:
        return tuple(chosen)
    if len(chosen) > 1:
        raise UsageError(
            f"{parallel} takes {needed} devices, --device names {len(chosen)}: name all of them, or the first"
        )
    if hasattr(backend, "more"):
        return (first, *backend.more(first, needed - 1))
    report = next(report for report in reports if report.backend == first.backend)
    same = [device for device in report.devices if device.name == first.name]
    group = same[same.index(first) :][:needed]
    if len(group) < needed:
        raise UsageError(
            f"{parallel} takes {needed} devices; from {first.key} on there are {len(group)} of {first.name} "
            "here"
        )
    return tuple(group)
