"""Measured ceilings in the place of datasheet numbers."""

from __future__ import annotations

from dataclasses import replace

from profiler.errors import UsageError
from profiler.hardware.catalogue import find_hardware
from profiler.hardware.part import Hardware, Source, Sourced
from profiler.results.read import Run

READ_BANDWIDTH = "read_bandwidth"
MATRIX = "matrix_flops:"


def with_measured_ceilings(hardware: Hardware, run: Run) -> Hardware:
    """Return ``hardware`` with the ceilings that ``run`` measured on such a device.

    The read bandwidth replaces the datasheet's memory bandwidth, matrix rates its FLOP/s; the best
    device counts, since a ceiling is what a part can do. What the run did not measure stays as documented.

    Raises:
        UsageError: the run is simulated, has no such device, or measured no ceiling of it.
    """
    if run.record.simulated:
        raise UsageError(f"run {run.path.name}: is simulated; no hardware stands behind its ceilings")
    parts = {hardware.name: hardware}
    keys = {device.key for device in run.record.devices if find_hardware(device.name, parts) is not None}
    if not keys:
        names = ", ".join(sorted({f"'{device.name}'" for device in run.record.devices})) or "no device"
        raise UsageError(
            f"run {run.path.name}: measured {names}, which is not {hardware.title}; "
            "name its part with --hardware, or add driver_names to a part of your own (--hardware-file)"
        )
    origin = Source(f"run {run.record.run_id[:12]}", None, "own measurement", run.record.created_utc[:10])
    best: dict[str, Sourced] = {}
    for ceiling in run.record.ceilings:
        value = ceiling.measurement.value
        if ceiling.device_key in keys and value and value > 0:
            unit = "bytes/s" if ceiling.name == READ_BANDWIDTH else "FLOP/s"
            one = Sourced(value, unit, origin, "measured", ceiling.ceiling_method)
            if ceiling.name not in best or best[ceiling.name].value < value:
                best[ceiling.name] = one
    bandwidth = best.get(READ_BANDWIDTH)
    if bandwidth is None:
        raise UsageError(f"run {run.path.name}: measured no read bandwidth of {hardware.title}")
    flops = {name.removeprefix(MATRIX): one for name, one in best.items() if name.startswith(MATRIX)}
    replaced = {"memory_bandwidth": bandwidth} | {f"flops.{dtype}": one for dtype, one in flops.items()}
    known = {"memory_bandwidth", *(["flops"] if flops else [])}
    return replace(
        hardware,
        memory_bandwidth_bytes_per_s=bandwidth,
        flops={**hardware.flops, **flops},
        unknown={name: reason for name, reason in hardware.unknown.items() if name not in known},
        measured=replaced,
    )
