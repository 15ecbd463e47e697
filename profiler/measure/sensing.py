"""The sensors of a sweep: one sampler process from before the first load to after the last case."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from profiler import registry
from profiler.backends.base import Device, Unavailable
from profiler.measure.kept_reads import (
    LIMIT,
    KeptReads,
    SensorColumns,
    columns_of,
    interruption_records,
    kept,
    no_energy,
)
from profiler.measure.polled_memory import Polled, most_in_use
from profiler.measure.sensor_records import sensor_record
from profiler.results.schema import BaselineRecord, EnergySpans, Measurement, SensorRecord
from profiler.sensors.base import Energy, Read, SensorInfo
from profiler.sensors.box import BoxSensors, find_sensors, is_made_up
from profiler.sensors.meters import DEVICE, Meter, meters_for, meters_of_several, state_sensors
from profiler.sensors.sampler import Sampler
from profiler.sensors.self_check import SelfCheck, power_beside, self_check
from profiler.sensors.ticks import Series
from profiler.sensors.totals import total
from profiler.sensors.window import refuse_if_too_wide

MAX_RESTARTS = 3

_BEFORE_NS = 2_000_000_000  # reads that are kept from before a case: the power then is known, too
# Reads of one case are kept, however long it is; a week is longer than any.
_HISTORY_S = 7 * 86_400.0
_FOREVER_NS = 2**62
_SETTLE_S = 0.2  # after the sampler's start, which is work too


class Sensing:
    """Finds the sensors, samples those that matter, and says what they showed. Enter it before use.

    Sensors of devices that the sweep does not use are listed and not sampled. For devices that only the
    fake engine has, nothing is looked for.

    Args:
        devices: what the sweep measures.
        box: the sensors; by default all that every source finds now.
    """

    def __init__(self, devices: Sequence[Device], box: BoxSensors | None = None) -> None:
        self._devices = tuple(device for device in devices if not is_made_up(device))
        if box is None:
            box = find_sensors() if self._devices else BoxSensors((), {})
        self.box = box
        wanted = box.of(self._devices) if self._devices else []
        self._sampler = Sampler(wanted, box.options, history_s=_HISTORY_S)
        self._counted = self._at_boundaries(wanted)
        self._idle: tuple[int, int] | None = None
        self.origin_ns = 0
        self.deaths: list[str] = []

    def __enter__(self) -> Self:
        self._sampler.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sampler.stop()

    @property
    def simulated(self) -> bool:
        """Whether a sensor that is sampled stands for another machine, or for none."""
        return any(info.simulated for info in self.sampled)

    @property
    def sampled(self) -> list[SensorInfo]:
        """The sensors that are sampled."""
        infos = self._sampler.infos.values()
        return [info for info in infos if info.unavailable is None and info.poll_hz > 0]

    @property
    def reads_energy(self) -> bool:
        """Whether any energy or power is sampled."""
        return any(info.unit in ("J", "W") and info.kind != "power_limit" for info in self.sampled)

    def meters(self, *devices: Device) -> tuple[Meter, ...]:
        """Return what speaks for the energy of the devices (the first) and of the box; see ``meters_for``.

        For several devices the first is their sum, and the meter of each follows.
        """
        infos = list(({info.key: info for info in self.box.infos} | self._sampler.infos).values())
        return meters_for(devices[0], infos) if len(devices) == 1 else meters_of_several(devices, infos)

    def states(self, *devices: Device) -> list[SensorInfo]:
        """Return the sensors of the devices' clocks, temperature, throttling and the like."""
        return [info for device in devices for info in state_sensors(device, self.sampled)]

    def keep_up(self) -> None:
        """Take over what was read (at least every 20 minutes), and start the sampler again if it died."""
        died = self._sampler.died
        if died is None:
            self._sampler.drain()
        elif len(self.deaths) < MAX_RESTARTS:
            self.deaths.append(died)
            self._sampler.restart()

    def edge(self) -> None:
        """Say that a window whose energy is wanted begins or ends about now; see ``Sampler.mark``."""
        self._sampler.mark()

    def series(self, info: SensorInfo, t0_ns: int, t1_ns: int) -> Series:
        """Return the reads of a sensor between two moments."""
        return self._sampler.series(info.key, t0_ns, t1_ns)

    def energy(self, meter: Meter, t0_ns: int, t1_ns: int, *, step_s: float | None = None) -> Energy:
        """Return the energy of a meter over a window; uncertain by at most a quarter, or with a reason.

        Args:
            meter: of this object.
            t0_ns: beginning, CLOCK_MONOTONIC.
            t1_ns: end; waits for the first new values after it.
            step_s: time of one step of the work, to warn of readings that fall in step with it.
        """
        if meter.unavailable is not None:
            return self.no_energy(meter, t0_ns, t1_ns, meter.unavailable)
        # Never widened: the tokens are those of this window, and a pause in the reads makes the bound wider.
        parts = [
            (info, self._sampler.energy(info.key, t0_ns, t1_ns, widen=False, step_period_s=step_s))
            for info in meter.sensors
        ]
        return refuse_if_too_wide(total(parts), LIMIT)

    def no_energy(self, meter: Meter, t0_ns: int, t1_ns: int, reason: Unavailable) -> Energy:
        """Return that a meter has no energy of a window, and why."""
        return no_energy(meter, t0_ns, t1_ns, reason)

    def begin_case(self) -> int:
        """Make now the origin of the next case, drop the reads of earlier ones, and return the moment."""
        self.origin_ns = time.monotonic_ns()
        self.keep_up()
        self._sampler.forget(self.origin_ns - _BEFORE_NS)
        return self.origin_ns

    def columns(self, infos: Sequence[SensorInfo]) -> SensorColumns:
        """Return the reads of sensors since a little before the case began, as a run keeps them."""
        now_ns = time.monotonic_ns()
        reads = {info.key: self.series(info, self.origin_ns - _BEFORE_NS, now_ns) for info in infos}
        return columns_of(reads, {info.key: info for info in infos}, self.origin_ns)

    def spans(self, start: int, **windows: Any) -> EnergySpans:
        """Return the spans of a start's work with what has to be known of the reads up to now.

        Args:
            start: index of the start.
            windows: ``idle``, ``trials``, ``requests`` and ``prefills``, CLOCK_MONOTONIC.
        """
        origin_ns = self.origin_ns
        moved = {name: None if given is None else _moved(given, origin_ns) for name, given in windows.items()}
        return EnergySpans(
            start=start,
            until_ns=time.monotonic_ns() - origin_ns,
            ticks_s={info.key: info.tick_s for info in self.sampled if info.tick_s is not None},
            interruptions=interruption_records(self._sampler.interruptions, origin_ns),
            **moved,
        )

    def kept(self, meters: Sequence[Meter], spans: EnergySpans) -> KeptReads:
        """Return what the energies of a start are worked out from, exactly as the run keeps it."""
        infos = {info.key: info for meter in meters for info in meter.sensors}
        return kept(self.columns(list(infos.values())), infos, spans)

    def processes(self, device: Device) -> int | None:
        """Return how many processes compute on a device right now, or None where that cannot be known."""
        read = self._counted.get(device.key)
        found = None if read is None else read()
        return found if isinstance(found, int) else None

    def memory_in_use(self, device: Device, begin_ns: int, end_ns: int | None = None) -> Polled | None:
        """Return the most memory in use on a device in any read of a time, or None without reads.

        Args:
            device: whose memory.
            begin_ns: beginning, CLOCK_MONOTONIC.
            end_ns: end, or None for now.
        """
        until_ns = time.monotonic_ns() if end_ns is None else end_ns
        return most_in_use(
            (info, self.series(info, begin_ns, until_ns))
            for info in self.states(device)
            if info.kind == "memory"
        )

    def _at_boundaries(self, infos: Sequence[SensorInfo]) -> dict[str, Read]:
        """Return a reader of the process count of each device; it is too slow a call for the sampler."""
        readers: dict[str, Read] = {}
        for device in self._devices:
            for info in state_sensors(device, infos):
                if info.kind == "processes":
                    source = registry.load("sensors", info.source, **self.box.options[info.source])
                    read = source.open([info.key])[info.key]
                    if not isinstance(read, Unavailable):
                        readers[device.key] = read
        return readers

    def watch_idle(self, seconds: float) -> None:
        """Let the box rest and remember the time; only where there is something to read."""
        if not self.reads_energy:
            return
        time.sleep(_SETTLE_S)
        self._idle = self.rest(seconds)

    def rest(self, seconds: float) -> tuple[int, int]:
        """Do nothing for a while and return when that was, both ends marked."""
        begin_ns = time.monotonic_ns()
        self.edge()
        time.sleep(seconds)
        end_ns = time.monotonic_ns()
        self.edge()
        return begin_ns, end_ns

    def baselines(self) -> tuple[BaselineRecord, ...]:
        """Return the power of each device and of the box while it rested."""
        if self._idle is None:
            return ()
        found: dict[tuple[str | None, str, tuple[str, ...]], BaselineRecord] = {}
        for device in self._devices:
            for meter in self.meters(device):
                key = device.key if meter.covers == DEVICE else None
                names = tuple(info.key for info in meter.sensors)
                power = power_of(self.energy(meter, *self._idle))
                record = BaselineRecord(device_key=key, covers=meter.covers, sensors=names, power_w=power)
                found.setdefault((key, meter.covers, names), record)
        return tuple(found.values())

    def records(self) -> tuple[SensorRecord, ...]:
        """Return every sensor with what the reads so far say about it."""
        self._sampler.find_ticks()
        infos = {info.key: info for info in self.box.infos} | self._sampler.infos
        sampled = {info.key for info in self.sampled}
        read = {key for key in sampled if len(self._sampler.series(key))}
        return tuple(
            sensor_record(info, self._check(info) if key in read else None, sampled=key in sampled)
            for key, info in infos.items()
        )

    def check(self, device: Device, t0_ns: int, t1_ns: int) -> list[tuple[SensorInfo, SelfCheck]]:
        """Return the sensors of a device's own meter with what they showed between two moments."""
        meter, *_ = self.meters(device)
        return [(info, self._check(info, t0_ns, t1_ns)) for info in meter.sensors]

    def _check(self, info: SensorInfo, t0_ns: int = 0, t1_ns: int = _FOREVER_NS) -> SelfCheck:
        beside = power_beside(info, self.sampled)
        other = None if beside is None else (beside, self.series(beside, t0_ns, t1_ns))
        return self_check(info, self.series(info, t0_ns, t1_ns), other)


def _moved(moments: Any, origin_ns: int) -> Any:
    """Return moments, in whatever tuples they stand, since the origin."""
    if isinstance(moments, int):
        return moments - origin_ns
    return None if moments is None else tuple(_moved(one, origin_ns) for one in moments)


VIRTUAL_TIME = Unavailable(
    "virtual_time",
    "the engine's time is made up, no sensor can follow it",
    "let it take real time: --engine-option real_time=true",
)


def power_of(energy: Energy) -> Measurement:
    """Return the mean power over a window with its bound."""
    if energy.joules is None or energy.bound_j is None:
        return Measurement.missing("W", str(energy.reason))
    watts, bound = energy.joules / energy.duration_s, energy.bound_j / energy.duration_s
    return Measurement(
        value=watts,
        unit="W",
        ci95=(max(0.0, watts - bound), watts + bound),
        n=1,
        method=f"{energy.method} over {energy.duration_s:.1f} s, ± bound of sampling",
        scope=energy.scope,
    )
