"""What a record says of a sensor, and what a sensor's own reads say against the energies made of them."""

from __future__ import annotations

from collections.abc import Iterable

from profiler.backends.base import Unavailable
from profiler.measure.kept_reads import scale_record
from profiler.results.schema import Flag, Reason, SensorRecord
from profiler.sensors.base import ENERGY_KINDS, SensorInfo
from profiler.sensors.self_check import SelfCheck


def reason_record(why: Unavailable) -> Reason:
    """Return a refusal as it goes into the record."""
    return Reason(code=why.code, text=why.text, remedy=why.remedy)


def sensor_record(info: SensorInfo, check: SelfCheck | None, *, sampled: bool) -> SensorRecord:
    """Return what a run keeps of a sensor.

    Args:
        info: the sensor.
        check: what its reads so far say, or None without any.
        sampled: whether the run reads it.
    """
    why = info.unavailable
    record = SensorRecord(
        key=info.key, source=info.source, device=info.device, kind=info.kind, scope=info.scope,
        unit=info.unit, sampled=sampled, note=info.note, simulated=info.simulated,
        unavailable=None if why is None else reason_record(why),
        reading=scale_record(info) if sampled else None,
    )  # fmt: skip
    if check is None:
        return record
    is_energy = info.kind in ENERGY_KINDS
    return record.model_copy(
        update={
            "reads_per_s": info.poll_hz,
            "tick_s": check.tick_s if is_energy else None,
            "call_median_s": check.call_median_s,
            "call_p99_s": check.call_p99_s,
            "relative_bound_1s": check.relative_bound_1s if is_energy else None,
            "counter_to_power": check.counter_to_power,
            "flags": check.flags if is_energy else (),
        }
    )


def meter_flags(checked: Iterable[tuple[SensorInfo, SelfCheck]]) -> list[Flag]:
    """Return what has to be known of the sensors that a case's energies come from, each code once.

    Args:
        checked: the sensors of the device's own meter, each with what it showed while the case worked.
    """
    found: dict[str, Flag] = {}
    for info, check in checked:
        ratio = check.counter_to_power
        if "sensor_disagrees" in check.flags and ratio is not None:
            text = f"{info.key} showed {ratio:.2f} times the energy of the device's power sensor at work"
            hint = "compare with the vendor's own tool: one of the two is wrong, and nothing here says which"
            found.setdefault("sensor_disagrees", Flag(code="sensor_disagrees", text=text, hint=hint))
        if info.note and check.unavailable is None:
            text = f"{info.key}: {info.note}"
            hint = "compare these energies only with those of the same kind of sensor"
            found.setdefault("sensor_caveat", Flag(code="sensor_caveat", text=text, hint=hint))
    return list(found.values())
