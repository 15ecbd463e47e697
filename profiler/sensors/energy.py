"""The energy of one sensor over a window, whatever kind of sensor it is. A pure function of its reads."""

from __future__ import annotations

from profiler.sensors.base import Energy, SensorInfo
from profiler.sensors.power import power_energy
from profiler.sensors.ticks import Series
from profiler.sensors.window import counter_energy

# Around a window: enough for trailing averages, and to see how much the power moves.
_AROUND_S = 5.0


def energy_of(
    reads: Series,
    info: SensorInfo,
    t0_ns: int,
    t1_ns: int,
    *,
    widen: bool = True,
    max_relative_bound: float | None = None,
    step_period_s: float | None = None,
) -> Energy:
    """Return the energy of one sensor over a window from its reads in and around it.

    Args:
        reads: of the sensor, as many as there are.
        info: of the sensor.
        t0_ns: beginning, on the clock of the reads.
        t1_ns: end.
        widen: see :func:`profiler.sensors.window.counter_energy`.
        max_relative_bound: refuse a value that is less certain.
        step_period_s: see :func:`profiler.sensors.power.power_energy`.
    """
    around_ns = round((_AROUND_S + (info.average_window_s or 0.0)) * 1e9)
    near = reads.between(t0_ns - around_ns, t1_ns + around_ns)
    if info.kind == "energy_counter":
        return counter_energy(near, info, t0_ns, t1_ns, widen=widen, max_relative_bound=max_relative_bound)
    return power_energy(
        near, info, t0_ns, t1_ns, max_relative_bound=max_relative_bound, step_period_s=step_period_s
    )
