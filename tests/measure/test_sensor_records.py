"""What a case is told of the sensors that its energies come from."""

from __future__ import annotations

from dataclasses import replace

from profiler.backends.base import Unavailable
from profiler.measure.sensor_records import meter_flags, sensor_record
from profiler.sensors.base import SensorInfo
from profiler.sensors.self_check import SelfCheck, power_beside

COUNTER = SensorInfo("nvml:GPU-1/energy", "nvml", "GPU-1", "energy_counter", "board", "J", poll_hz=100.0)
AVERAGE = replace(COUNTER, key="nvml:GPU-1/average", kind="power_average", unit="W")
INSTANT = replace(COUNTER, key="nvml:GPU-1/instant", kind="power_instant", unit="W")
HEALTHY = SelfCheck(COUNTER.key, 0.1, 1e-5, 2e-5, 0.0, 0.1, 300.0, 0.02, 1.01, (), None)


def test_a_healthy_sensor_raises_nothing() -> None:
    assert meter_flags([(COUNTER, HEALTHY)]) == []


def test_counter_and_power_that_differ_are_named_once() -> None:
    wrong = replace(HEALTHY, counter_to_power=0.5, flags=("sensor_disagrees",))
    (flag,) = meter_flags([(COUNTER, wrong), (COUNTER, wrong)])
    assert flag.code == "sensor_disagrees"
    assert "0.50 times" in flag.text


def test_what_limits_a_sensor_is_said_where_it_gave_an_energy() -> None:
    noted = replace(COUNTER, note="sampled with gaps")
    (flag,) = meter_flags([(noted, HEALTHY)])
    assert (flag.code, "sampled with gaps" in flag.text) == ("sensor_caveat", True)
    lost = replace(HEALTHY, unavailable=Unavailable("lost_at", "it is gone"))
    assert meter_flags([(noted, lost)]) == []


def test_a_counter_is_held_against_power_of_the_same_part_of_the_box() -> None:
    assert power_beside(COUNTER, [AVERAGE, INSTANT]) == INSTANT
    assert power_beside(COUNTER, [AVERAGE]) == AVERAGE
    other = replace(INSTANT, device="GPU-2")
    module = replace(INSTANT, scope="module")
    closed = replace(INSTANT, unavailable=Unavailable("permission", "no"))
    assert power_beside(COUNTER, [other, module, closed]) is None
    assert power_beside(INSTANT, [AVERAGE]) is None


def test_a_sensor_that_is_not_sampled_is_recorded_without_figures() -> None:
    record = sensor_record(COUNTER, None, sampled=False)
    assert (record.reads_per_s, record.tick_s, record.reading) == (None, None, None)
    sampled = sensor_record(COUNTER, HEALTHY, sampled=True)
    assert (sampled.reads_per_s, sampled.tick_s, sampled.counter_to_power) == (100.0, 0.1, 1.01)
