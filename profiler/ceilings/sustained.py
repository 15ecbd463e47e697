"""What a device keeps up: the matrix rate over half a minute and more, with its clocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from profiler.backends.base import Device
from profiler.ceilings.probe import Probe, ask
from profiler.engines.process import WorkerProcess
from profiler.measure.stats import mean_interval
from profiler.results.schema import Ceiling, Measurement
from profiler.sensors.base import SensorInfo
from profiler.sensors.box import BoxSensors
from profiler.sensors.sampler import Sampler

SUSTAINED: Final = "matrix_flops_sustained"
SUSTAINED_S: Final = 30.0
# Boost clocks and cool metal last for seconds; what comes after them is what stays.
_SETTLING_SHARE: Final = 1 / 3
NO_CLOCK: Final = "this device shows no clock"


@dataclass(frozen=True)
class Clock:
    """A clock of a device during a sustained load.

    Attributes:
        sensor: key of the sensor.
        first_hz: mean over the first third of the load.
        last_hz: mean over the last third.
        reads: readings behind both.
    """

    sensor: str
    first_hz: float
    last_hz: float
    reads: int


@dataclass(frozen=True)
class Sustained:
    """A sustained load.

    Attributes:
        ceiling: the rate that stays, ``matrix_flops_sustained:DTYPE``.
        rates: of each window of about a second, FLOP/s.
        clocks: of the device while it ran.
        no_clock: why there is none, or None.
    """

    ceiling: Ceiling
    rates: tuple[float, ...]
    clocks: tuple[Clock, ...]
    no_clock: str | None


def sustained(
    worker: WorkerProcess,
    name: str,
    device: Device,
    compute_dtype: str,
    seconds: float,
    *,
    engine: str,
    sensors: BoxSensors,
) -> Sustained:
    """Multiply matrices without a pause and watch the clocks.

    Args:
        worker: a process that has said hello.
        name: what the engine calls the device.
        device: as its backend found it.
        compute_dtype: number format of the products.
        seconds: for how long.
        engine: name of the engine.
        sensors: of the box.

    Raises:
        WorkerError: as for any request.
    """
    infos = [info for info in sensors.of([device]) if info.kind == "clock"]
    usable = [info for info in infos if info.unavailable is None and _belongs(info, device)]
    with Sampler(usable, sensors.options) as sampler:
        probe = ask(
            worker, "sustained_matrix_flops", name, seconds + 60.0, format=compute_dtype, seconds=seconds
        )
        began, ended = int(probe.details["started_ns"]), int(probe.details["ended_ns"])
        clocks = [clock for info in usable if (clock := _clock(sampler, info, began, ended)) is not None]
    reasons = [str(info.unavailable) for info in infos if info.unavailable and _belongs(info, device)]
    return Sustained(
        ceiling=sustained_ceiling(probe, device.key, compute_dtype, engine),
        rates=probe.rates,
        clocks=tuple(clocks),
        no_clock=None if clocks else next(iter(reasons), NO_CLOCK),
    )


def sustained_ceiling(probe: Probe, device_key: str, compute_dtype: str, engine: str) -> Ceiling:
    """Return the mean rate after the first third, with its interval."""
    rates = probe.rates[round(len(probe.rates) * _SETTLING_SHARE) :]
    estimate = mean_interval(rates)
    ends = estimate.interval
    return Ceiling(
        device_key=device_key,
        name=f"{SUSTAINED}:{compute_dtype}",
        ceiling_method=probe.method,
        measurement=Measurement(
            value=estimate.mean,
            unit=probe.unit,
            ci95=None if ends is None else (max(ends.low, 0.0), ends.high),
            n=len(rates),
            method=f"mean of windows after the first third, {estimate.method}",
            scope="device",
        ),
        engine=engine,
        readings=probe.rates,
    )


def _belongs(info: SensorInfo, device: Device) -> bool:
    # CPU packages are of the box, not of one accelerator.
    return (info.source == "cpu") == (device.backend == "cpu")


def _clock(sampler: Sampler, info: SensorInfo, began_ns: int, ended_ns: int) -> Clock | None:
    samples = [read for read in sampler.samples(info.key, began_ns, ended_ns) if read.raw is not None]
    third = (ended_ns - began_ns) / 3
    first = [read.raw for read in samples if read.raw is not None and read.t_after_ns <= began_ns + third]
    last = [read.raw for read in samples if read.raw is not None and read.t_before_ns >= ended_ns - third]
    if not first or not last:
        return None
    return Clock(info.key, _mean_hz(first, info), _mean_hz(last, info), len(samples))


def _mean_hz(raw: Sequence[int], info: SensorInfo) -> float:
    return fmean(raw) * info.scale
