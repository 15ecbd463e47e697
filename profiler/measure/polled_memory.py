"""The most memory in use on a device, as the sampler's reads show it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from profiler.results.schema import Measurement
from profiler.sensors.base import SensorInfo
from profiler.sensors.ticks import Series


class Polled(NamedTuple):
    """What the sampler saw of a device's memory.

    Attributes:
        most_bytes: most in use (total minus free) in any read.
        reads: how many reads there were.
        sensor: key of the sensor.
    """

    most_bytes: int
    reads: int
    sensor: str


def most_in_use(reads: Iterable[tuple[SensorInfo, Series]]) -> Polled | None:
    """Return the most that was in use, by the first sensor that was read at all, or None.

    Args:
        reads: sensors of a device's memory with their reads over the time that counts.
    """
    for info, series in reads:
        good = series.good()
        if info.kind == "memory" and len(good):
            most = round(int(good.raw.max()) * info.scale)
            return Polled(most, len(good), info.key) if most >= 0 else None
    return None


def sampled_figures(polled: Polled | None) -> dict[str, Measurement]:
    """Return the figure of a load's memory; none without reads."""
    if polled is None:
        return {}
    method = f"total minus free, largest of {polled.reads} reads by the sampler ({polled.sensor})"
    found = Measurement(
        value=float(polled.most_bytes), unit="bytes", n=polled.reads, method=method, scope="device"
    )
    return {"max_sampled_device_bytes": found}
