"""The sensors during one case: what they raise against it, and their reads for the record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from profiler.backends.base import Device
from profiler.measure.conditions import Watched, condition_flags, foreign_flag
from profiler.measure.context import StartOutcome
from profiler.measure.kept_reads import SensorColumns
from profiler.measure.sensing import Sensing
from profiler.measure.sensor_records import meter_flags
from profiler.results.schema import Flag
from profiler.sensors.base import SensorInfo
from profiler.sensors.box import is_box_wide, names_of
from profiler.sensors.self_check import SelfCheck

# What is counted over the whole start rather than the trials: it says nothing about their speed.
LONG_KINDS = ("ecc", "power_limit", "health")


@dataclass(frozen=True)
class Stretch:
    """When a start, or a load, worked on the device, and who was there.

    Attributes:
        working_ns: the work itself, CLOCK_MONOTONIC; None where its time is made up.
        whole_ns: from loading, or from rest, to the end.
        processes_before: on the device before the engine was there, or None where that was not seen.
        processes_loaded: with the engine there and at rest, or None.
        processes_after: at the end, or None.
    """

    working_ns: tuple[int, int] | None
    whole_ns: tuple[int, int]
    processes_before: int | None
    processes_loaded: int | None
    processes_after: int | None

    @classmethod
    def of(cls, outcome: StartOutcome) -> Self:
        """Return that of a start."""
        power = outcome.power
        return cls(
            power.working_ns,
            power.whole_ns,
            power.processes_before,
            power.processes_loaded,
            power.processes_after,
        )


class CaseWatch:
    """Looks on from before the first start (or the load) to after the last.

    Args:
        sensing: the sweep's sensors.
        devices: under test.
    """

    def __init__(self, sensing: Sensing, *devices: Device) -> None:
        self._sensing = sensing
        self._devices = devices
        self._deaths = len(sensing.deaths)
        self.origin_ns = sensing.begin_case()

    def flags(self, stretches: Sequence[Stretch]) -> list[Flag]:
        """Return what device and sensors showed that speaks against the stretches of work that count."""
        watched: list[Watched] = []
        foreign: list[Flag] = []
        checked: list[tuple[SensorInfo, SelfCheck]] = []
        for one in stretches:
            flag = foreign_flag(one.processes_before, one.processes_loaded, one.processes_after)
            foreign += [] if flag is None else [flag]
            if one.working_ns is None:
                continue
            for info in self._sensing.states(*self._devices):
                begin_ns, end_ns = one.whole_ns if info.kind in LONG_KINDS else one.working_ns
                watched.append(Watched(info, self._sensing.series(info, begin_ns, end_ns).good()))
            for device in self._devices:
                checked += self._sensing.check(device, *one.working_ns)
        return [*condition_flags(watched), *meter_flags(checked), *foreign[:1], *self._restarts()]

    def _restarts(self) -> list[Flag]:
        deaths = self._sensing.deaths[self._deaths :]
        if not deaths:
            return []
        text = f"{deaths[0]} while this case ran; it was started again"
        hint = "energies over that moment have a wider bound or none; see what killed it"
        return [Flag(code="sampler_restarted", text=text, hint=hint)]

    def columns(self) -> SensorColumns:
        """Return the reads since a little before the case, ordered by sensor and time, as columns."""
        return self._sensing.columns([info for info in self._sensing.sampled if self._belongs(info)])

    def _belongs(self, info: SensorInfo) -> bool:
        return is_box_wide(info) or any(info.device in names_of(device) for device in self._devices)
