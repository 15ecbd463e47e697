"""Parts of a record that are about power, energy and the state of devices."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from profiler.results.fields import Count, Finite, Moment, Name, Positive, Text
from profiler.results.record_base import Frequent, Measurement, Record

Phase = Literal["idle", "trials", "prefill", "decode", "max_1s"]


class Reason(Frequent):
    """Why something cannot be read, and what to do about it.

    Attributes:
        code: one of the codes in ``docs/metrics.md``.
        text: one sentence.
        remedy: what the user can do, or empty.
    """

    code: Name
    text: Text
    remedy: Text = ""


class SensorScale(Record):
    """How the reads of a sensor become energy; with it, an energy can be made again from the reads.

    Attributes:
        scale: unit of the sensor per raw count.
        poll_hz: how often it is read.
        resolution: smallest step of the value, in raw counts.
        wraps_at: raw value after which a counter starts again at 0, or None where it does not wrap.
        average_window_s: length of the trailing average that a power reading is, or None.
        max_power_w: most power that the covered part can draw, or None.
        nominal: raw value of a healthy device at work, or None where there is none.
        shares_with: sensors that show the same reading.
        overlaps: sensors that cover part of what this one covers.
    """

    scale: Finite
    poll_hz: Finite
    resolution: Positive
    wraps_at: Positive | None = None
    average_window_s: Finite | None = None
    max_power_w: Finite | None = None
    nominal: Moment | None = None
    shares_with: tuple[Name, ...] = ()
    overlaps: tuple[Name, ...] = ()


class SensorRecord(Record):
    """A sensor as it was found before the first case, with what a few seconds of reads say about it.

    Attributes:
        key: ``source:device/quantity``.
        source: ``nvml``, ``rapl``, ``command``, …
        device: UUID, PCI address, ``cpu-package-0``, ``wall``.
        kind: what it reads, e.g. ``energy_counter``, ``power_instant``, ``temperature``.
        scope: what it covers.
        unit: of its values.
        sampled: whether this run reads it.
        reads_per_s: how often, or None when it is not sampled.
        tick_s: time between new values, or None when that is shorter than the time between reads.
        call_median_s: time that one read takes.
        call_p99_s: time that one read in a hundred exceeds.
        relative_bound_1s: bound of the energy of a window of one second while the box was idle.
        counter_to_power: energy by the counter over energy by the power sensor of the same device.
        flags: codes of the energy flags that the check raised.
        note: what a reader of its values should know, or empty.
        simulated: True when no hardware stands behind it.
        unavailable: why it cannot be read, or None.
        reading: how its reads become energy, or None when it is not sampled.
    """

    key: Name
    source: Name
    device: Name
    kind: Name
    scope: Name
    unit: Name
    sampled: bool
    reads_per_s: Finite | None = None
    tick_s: Finite | None = None
    call_median_s: Finite | None = None
    call_p99_s: Finite | None = None
    relative_bound_1s: Finite | None = None
    counter_to_power: Finite | None = None
    flags: tuple[Name, ...] = ()
    note: Text = ""
    simulated: bool = False
    unavailable: Reason | None = None
    reading: SensorScale | None = None


class BaselineRecord(Record):
    """Power of a part of the box before anything was loaded.

    Attributes:
        device_key: the device whose sensors these are, or None for the box (CPU, memory, the wall).
        covers: ``device``, ``cpu``, ``cpu-package-0``, ``dram``, ``platform`` or ``wall``.
        sensors: keys of the sensors that were added up.
        power_w: mean power.
    """

    device_key: Name | None
    covers: Name
    sensors: tuple[Name, ...]
    power_w: Measurement


class PhaseRecord(Record):
    """When something was done in a case, in seconds since the origin of the case's sensor samples.

    Attributes:
        start: index of the start.
        phase: ``load``, ``idle``, ``warm-up``, ``trials``, ``prefill`` (repeated for its energy).
        begin_s: beginning.
        end_s: end.
    """

    start: Count
    phase: Name
    begin_s: Finite
    end_s: Finite


class InterruptionRecord(Record):
    """A time over which the reads of the sensors are not to be trusted.

    Attributes:
        code: ``suspended`` or ``sampler_died``.
        begin_ns: beginning, on the time axis of ``sensor_samples``.
        end_ns: end.
        text: what happened.
    """

    code: Literal["suspended", "sampler_died"]
    begin_ns: Moment
    end_ns: Moment
    text: Text


Span = tuple[Moment, Moment | None, Moment]
"""Beginning, first token (None where nothing tells it apart) and end of a batch of requests."""


class EnergySpans(Record):
    """When the work was done whose energy one start records, in ns on the time axis of ``sensor_samples``.

    Attributes:
        start: index of the start.
        until_ns: reads after this moment had not been made when the energies were worked out.
        idle: when the loaded model rested, or None.
        trials: the measured trials, or the one load on a server.
        requests: whole requests, repeated for their energy.
        prefills: prefills, repeated for their energy.
        ticks_s: time between new values of each counter, as its first second of reads showed it.
        interruptions: times without reads that can be trusted.
    """

    start: Count
    until_ns: Moment
    idle: tuple[Moment, Moment] | None = None
    trials: tuple[Span, ...] = ()
    requests: tuple[Span, ...] = ()
    prefills: tuple[Span, ...] = ()
    ticks_s: dict[Name, Finite] = Field(default_factory=dict)
    interruptions: tuple[InterruptionRecord, ...] = ()


class EnergyRecord(Frequent):
    """Energy of one phase of one start, as one meter saw it.

    Attributes:
        start: index of the start.
        phase: ``idle`` (the model is loaded, nothing runs), ``trials`` (the measured ones), ``prefill``
            (repeated), ``decode``, or ``max_1s``: the second of the trials with the highest mean power.
        covers: as in :class:`BaselineRecord`.
        scope: what the sensors cover.
        sensors: keys of the sensors that were added up.
        joules: energy in ``active_s``, idle power included, or None with a ``reason``.
        bound_j: the true energy is within ``joules ± bound_j`` as far as sampling goes.
        net_j: ``joules`` less idle power with the model loaded, or None.
        net_bound_j: bound of ``net_j``.
        window_s: length of the window that was looked at.
        active_s: time within it in which requests were worked on.
        tokens: output tokens (``trials``, ``decode``) or prompt tokens (``prefill``) of that time, or None.
        method: how the value came about.
        n_ticks: new values that the sensor showed in the window.
        tick_s: time between new values, or None.
        flags: codes of energy flags.
        reason: why there is no value, or None.
        simulated: True when no hardware stands behind it.
    """

    start: Count
    phase: Phase
    covers: Name
    scope: Name
    sensors: tuple[Name, ...]
    joules: Finite | None
    bound_j: Finite | None
    net_j: Finite | None = None
    net_bound_j: Finite | None = None
    window_s: Finite
    active_s: Finite
    tokens: Count | None = None
    method: Name
    n_ticks: Count = 0
    tick_s: Finite | None = None
    flags: tuple[Name, ...] = ()
    reason: Reason | None = None
    simulated: bool = False

    @model_validator(mode="after")
    def _value_or_reason(self) -> Self:
        if (self.joules is None) == (self.reason is None):
            raise ValueError("exactly one of joules and reason must be null")
        if (self.joules is None) != (self.bound_j is None):
            raise ValueError("joules and bound_j go together")
        if self.joules is not None and not self.joules > 0:
            raise ValueError("joules must be positive; what was not measured is null")
        return self
