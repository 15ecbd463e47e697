"""The sensors during one case: what they raise against it, and their reads for the record."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from profiler.backends.base import Device
from profiler.measure.conditions import Watched, condition_flags, foreign_flag
from profiler.measure.context import StartOutcome
from profiler.measure.sensing import Sensing
from profiler.results.schema import Flag
from profiler.sensors.base import READ_FAILURES, SensorInfo
from profiler.sensors.box import is_box_wide, names_of

SensorColumns = dict[str, Any]

_CODES = np.asarray((None, *READ_FAILURES[1:]), dtype=object)
_BEFORE_NS = 2_000_000_000
# What is counted over the whole start rather than the trials: it says nothing about their speed.
_LONG_KINDS = ("ecc", "power_limit", "health")


class CaseWatch:
    """Looks on from before the first start to after the last.

    Args:
        sensing: the sweep's sensors.
        device: under test.
    """

    def __init__(self, sensing: Sensing, device: Device) -> None:
        self._sensing = sensing
        self._device = device
        self._deaths = len(sensing.deaths)
        self.origin_ns = time.monotonic_ns()
        sensing.keep_up()
        sensing.forget(self.origin_ns - _BEFORE_NS)

    def flags(self, outcomes: Sequence[StartOutcome]) -> list[Flag]:
        """Return what the states of the device say against the starts that count."""
        watched: list[Watched] = []
        foreign: list[Flag] = []
        for outcome in outcomes:
            power = outcome.power
            flag = foreign_flag(power.processes_before, power.processes_loaded, power.processes_after)
            foreign += [] if flag is None else [flag]
            if power.working_ns is None:
                continue
            for info in self._sensing.states(self._device):
                begin_ns, end_ns = power.whole_ns if info.kind in _LONG_KINDS else power.working_ns
                watched.append(Watched(info, self._sensing.series(info, begin_ns, end_ns).good()))
        return [*condition_flags(watched), *foreign[:1], *self._restarts()]

    def _restarts(self) -> list[Flag]:
        deaths = self._sensing.deaths[self._deaths :]
        if not deaths:
            return []
        text = f"{deaths[0]} while this case ran; it was started again"
        hint = "energies over that moment have a wider bound or none; see what killed it"
        return [Flag(code="sampler_restarted", text=text, hint=hint)]

    def columns(self) -> SensorColumns:
        """Return the reads since the case began, ordered by sensor and time, as columns."""
        end_ns = time.monotonic_ns()
        parts: dict[str, list[Any]] = {"sensor": [], "t_ns": [], "call_ns": [], "value": [], "failure": []}
        for info in self._sensing.sampled:
            if not self._belongs(info):
                continue
            reads = self._sensing.series(info, self.origin_ns, end_ns)
            failed = reads.failure != 0
            parts["sensor"].append(np.full(len(reads), info.key, dtype=object))
            parts["t_ns"].append(reads.t_before_ns - self.origin_ns)
            parts["call_ns"].append(reads.t_after_ns - reads.t_before_ns)
            parts["value"].append(np.where(failed, np.nan, reads.raw * info.scale))
            parts["failure"].append(_CODES[reads.failure])
        return {name: np.concatenate(column) if column else [] for name, column in parts.items()}

    def _belongs(self, info: SensorInfo) -> bool:
        return info.device in names_of(self._device) or is_box_wide(info)
