"""The second with the highest mean power, which is what a power supply and a rack must stand."""

from __future__ import annotations

import numpy as np

from profiler.backends.base import Unavailable
from profiler.measure.kept_reads import EnergySource
from profiler.sensors.base import Energy, SensorInfo
from profiler.sensors.meters import Meter
from profiler.sensors.ticks import Floats, Series, find_ticks

_SECOND_NS = 10**9
_STEPS_PER_S = 20


def highest_second(source: EnergySource, meter: Meter, t0_ns: int, t1_ns: int) -> Energy:
    """Return the energy of that second within a window; with a reason where there is none.

    The second is looked for in steps of 50 ms on the interpolated energy of all sensors of the meter, and
    its energy then taken with its bound like that of any window.
    """
    if t1_ns - t0_ns < _SECOND_NS:
        text = f"the trials took {(t1_ns - t0_ns) * 1e-9:.2g} s, less than the second that is asked for"
        reason = Unavailable("window_too_short", text, "give a larger --budget")
        return source.no_energy(meter, t0_ns, t1_ns, reason)
    grid = np.arange(t0_ns, t1_ns - _SECOND_NS + 1, _SECOND_NS // _STEPS_PER_S, dtype=np.int64)
    gained = np.zeros(len(grid))
    for info in meter.sensors:
        moments_s, joules = _cumulative(
            source.series(info, t0_ns - _SECOND_NS, t1_ns + _SECOND_NS), info, t0_ns
        )
        if len(moments_s) < 2:
            return source.energy(meter, t0_ns, t0_ns + _SECOND_NS)
        begin_s = (grid - t0_ns) * 1e-9
        gained += np.interp(begin_s + 1.0, moments_s, joules) - np.interp(begin_s, moments_s, joules)
    begin_ns = int(grid[int(np.argmax(gained))])
    return source.energy(meter, begin_ns, begin_ns + _SECOND_NS)


def _cumulative(reads: Series, info: SensorInfo, origin_ns: int) -> tuple[Floats, Floats]:
    """Return moments (s after ``origin_ns``) and the energy used until each of them."""
    if info.kind == "energy_counter":
        ticks = find_ticks(reads, info)
        return ((ticks.lo_ns + ticks.hi_ns) / 2 - origin_ns) * 1e-9, ticks.joules
    good = reads.good()
    moments_s = ((good.t_before_ns + good.t_after_ns) / 2 - origin_ns) * 1e-9
    watts = good.raw * info.scale
    steps = np.diff(moments_s) * (watts[1:] + watts[:-1]) / 2
    return moments_s - (info.average_window_s or 0.0) / 2, np.concatenate([[0.0], np.cumsum(steps)])
