"""Energies from the reads that a run keeps: the one way, for measuring and for checking a record.

All moments are nanoseconds since the origin of the case, so that the same reads give the same figures
to the last bit wherever they are looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from profiler.backends.base import Unavailable
from profiler.results.schema import EnergySpans, InterruptionRecord, SensorRecord, SensorScale
from profiler.sensors.base import READ_FAILURES, Energy, SensorInfo, failure_number
from profiler.sensors.energy import energy_of
from profiler.sensors.interruptions import Interruption, trusted
from profiler.sensors.meters import Meter
from profiler.sensors.ticks import Series, series
from profiler.sensors.totals import total
from profiler.sensors.window import refuse_if_too_wide

LIMIT = 0.25
"""A value that is uncertain by more than this part of itself is not given."""

SensorColumns = dict[str, Any]

_CODES = np.asarray((None, *READ_FAILURES[1:]), dtype=object)
_NONE = series([])


class EnergySource(Protocol):
    """What can say how much energy a meter saw in a window."""

    def energy(self, meter: Meter, t0_ns: int, t1_ns: int, *, step_s: float | None = None) -> Energy:
        """Return it; uncertain by at most a quarter, or with a reason."""
        ...

    def no_energy(self, meter: Meter, t0_ns: int, t1_ns: int, reason: Unavailable) -> Energy:
        """Return that there is none, and why."""
        ...

    def series(self, info: SensorInfo, t0_ns: int, t1_ns: int) -> Series:
        """Return the reads of a sensor between two moments."""
        ...


@dataclass(frozen=True)
class KeptReads:
    """Reads of a case up to a moment.

    Attributes:
        reads: of each sensor by its key.
        ticks_s: time between new values of each counter, where it is known.
        interruptions: times over which they are not to be trusted.
    """

    reads: Mapping[str, Series]
    ticks_s: Mapping[str, float]
    interruptions: Sequence[Interruption] = ()

    def series(self, info: SensorInfo, t0_ns: int, t1_ns: int) -> Series:
        """Return the reads of a sensor between two moments."""
        return self.reads.get(info.key, _NONE).between(t0_ns, t1_ns)

    def energy(self, meter: Meter, t0_ns: int, t1_ns: int, *, step_s: float | None = None) -> Energy:
        """Return the energy of a meter over a window; uncertain by at most a quarter, or with a reason.

        Args:
            meter: whose energy.
            t0_ns: beginning.
            t1_ns: end.
            step_s: time of one step of the work, to warn of readings that fall in step with it.
        """
        if meter.unavailable is not None:
            return self.no_energy(meter, t0_ns, t1_ns, meter.unavailable)
        # Never widened: the tokens are those of this window, and a pause in the reads makes the bound wider.
        parts = [(info, self._one(info, t0_ns, t1_ns, step_s)) for info in meter.sensors]
        return refuse_if_too_wide(total(parts), LIMIT)

    def no_energy(self, meter: Meter, t0_ns: int, t1_ns: int, reason: Unavailable) -> Energy:
        """Return that a meter has no energy of a window, and why."""
        return no_energy(meter, t0_ns, t1_ns, reason)

    def _one(self, info: SensorInfo, t0_ns: int, t1_ns: int, step_s: float | None) -> Energy:
        ticking = replace(info, tick_s=self.ticks_s.get(info.key, info.tick_s))
        reads = self.reads.get(info.key, _NONE)
        found = energy_of(reads, ticking, t0_ns, t1_ns, widen=False, step_period_s=step_s)
        return trusted(found, self.interruptions)


def no_energy(meter: Meter, t0_ns: int, t1_ns: int, reason: Unavailable) -> Energy:
    """Return that a meter has no energy of a window, and why."""
    simulated = any(info.simulated for info in meter.sensors)
    return Energy(None, None, "none", meter.scope, t0_ns, t1_ns, reason=reason, simulated=simulated)


def columns_of(reads: Mapping[str, Series], infos: Mapping[str, SensorInfo], origin_ns: int) -> SensorColumns:
    """Return reads as a run keeps them: ordered by sensor and time, in the sensors' units.

    Args:
        reads: by key of the sensor, CLOCK_MONOTONIC.
        infos: of the sensors.
        origin_ns: the case's zero.
    """
    parts: dict[str, list[Any]] = {"sensor": [], "t_ns": [], "call_ns": [], "value": [], "failure": []}
    for key, one in reads.items():
        failed = one.failure != 0
        parts["sensor"].append(np.full(len(one), key, dtype=object))
        parts["t_ns"].append(one.t_before_ns - origin_ns)
        parts["call_ns"].append(one.t_after_ns - one.t_before_ns)
        parts["value"].append(np.where(failed, np.nan, one.raw * infos[key].scale))
        parts["failure"].append(_CODES[one.failure])
    return {name: np.concatenate(column) if column else [] for name, column in parts.items()}


def reads_of(columns: Mapping[str, Any], infos: Mapping[str, SensorInfo], until_ns: int) -> dict[str, Series]:
    """Return the reads that kept columns stand for, as far as they had been made at a moment.

    Args:
        columns: as :func:`columns_of` returns them.
        infos: of the sensors; what others read is left out.
        until_ns: reads that ended later are left out.

    Raises:
        ValueError: the columns are of different lengths, or hold what no sensor shows.
    """
    names = np.asarray(columns["sensor"], dtype=object)
    before = np.asarray(columns["t_ns"], dtype=np.int64)
    after = before + np.asarray(columns["call_ns"], dtype=np.int64)
    values = np.asarray(columns["value"], dtype=np.float64)
    codes = np.asarray(columns["failure"], dtype=object)
    if len({len(column) for column in (names, before, after, values, codes)}) != 1:
        raise ValueError("the columns of the reads are of different lengths")
    found: dict[str, Series] = {}
    for key, info in infos.items():
        own = np.flatnonzero((names == key) & (after <= until_ns))
        failure = np.zeros(len(own), dtype=np.int64)
        for at in np.flatnonzero(codes[own] != None):  # noqa: E711 - element by element
            failure[at] = failure_number(codes[own[at]])
        raw = np.rint(np.where(failure != 0, 0.0, values[own]) / info.scale)
        if not np.all(np.abs(raw) < 2.0**63):
            raise ValueError(f"the reads of {key} hold what is no number of a sensor")
        if np.any(np.diff(before[own]) < 0) or np.any(after[own] < before[own]):
            raise ValueError(f"the reads of {key} are not in order")
        found[key] = Series(before[own], after[own], raw.astype(np.int64), failure)
    return found


def scale_record(info: SensorInfo) -> SensorScale:
    """Return what has to be recorded of a sensor for its reads to become energy again."""
    return SensorScale(
        scale=info.scale,
        poll_hz=info.poll_hz,
        resolution=info.resolution,
        wraps_at=info.wraps_at,
        average_window_s=info.average_window_s,
        max_power_w=info.max_power_w,
        nominal=info.nominal,
        shares_with=info.shares_with,
        overlaps=info.overlaps,
    )


def info_from(record: SensorRecord) -> SensorInfo | None:
    """Return the sensor that a record describes, or None where it was not sampled."""
    if record.reading is None or record.reading.scale <= 0 or record.reading.poll_hz <= 0:
        return None
    fields: dict[str, Any] = record.reading.model_dump() | {
        name: getattr(record, name)
        for name in ("key", "source", "device", "kind", "scope", "unit", "simulated", "note")
    }
    return SensorInfo(**fields)


def interruption_records(
    interruptions: Sequence[Interruption], origin_ns: int
) -> tuple[InterruptionRecord, ...]:
    """Return interruptions on the axis of the case."""
    return tuple(
        InterruptionRecord(
            code=one.code, begin_ns=one.begin_ns - origin_ns, end_ns=one.end_ns - origin_ns, text=one.text
        )
        for one in interruptions
    )


def kept(columns: Mapping[str, Any], infos: Mapping[str, SensorInfo], spans: EnergySpans) -> KeptReads:
    """Return what the energies of a start are worked out from.

    Args:
        columns: the reads of its case.
        infos: of the sensors.
        spans: of the start.

    Raises:
        ValueError: see :func:`reads_of`.
    """
    interruptions = [
        Interruption(one.code, one.begin_ns, one.end_ns, one.text) for one in spans.interruptions
    ]
    return KeptReads(reads_of(columns, infos, spans.until_ns), spans.ticks_s, interruptions)
