"""What a sensor is, what one read of it gives, and what an energy over a window says about itself.

A source (``nvml``, ``rapl``, ``command``, …) finds sensors and opens them; the sampler reads them in a
process of its own; :mod:`profiler.sensors.window` turns the reads into an energy. Nothing here raises
for missing hardware or rights: absence is an :class:`~profiler.backends.base.Unavailable`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from profiler.backends.base import Json, Unavailable

Scope = Literal["chip", "board", "module", "socket", "package", "dram", "platform", "wall"]
Kind = Literal[
    "energy_counter",
    "power_instant",
    "power_average",
    "memory",
    "clock",
    "temperature",
    "throttle",
    "ecc",
    "health",
    "power_limit",
    "link",
    "processes",
]
# What gives energy over a window, the best first.
ENERGY_KINDS: tuple[Kind, ...] = ("energy_counter", "power_instant", "power_average")
Unit = Literal["J", "W", "bytes", "Hz", "degC", "bits", "count"]
Method = Literal["counter_tick_interpolated", "power_integral", "none"]

# What can go wrong with one read, as it is kept in the ring: the place in this table, 0 for a good read.
READ_FAILURES = (
    "",
    "unknown",
    "permission",
    "not_supported_by_device",
    "lost",
    "timeout",
    "unreadable",
    "implausible",
    "reset_required",
    "driver_not_loaded",
    "no_library",
    "library_mismatch",
    "no_device",
)


@dataclass(frozen=True)
class SensorInfo:
    """One quantity of one device that a source can read, or why it cannot.

    Attributes:
        key: ``source:device/quantity``, e.g. ``nvml:GPU-6f1c…/energy``; stable, never an index.
        source: name of the source in the registry.
        device: key of the device (UUID, PCI address, ``cpu-package-0``, ``wall``).
        kind: what is read.
        scope: what it covers.
        unit: of ``raw * scale``.
        scale: SI units per raw count.
        poll_hz: how often the sampler should read it; 0: never, it is read where a phase of work ends.
        wraps_at: raw value after which a counter starts again at 0, or None where it does not wrap.
        tick_s: how often the sensor gets a new value, where its maker says so; usually measured instead.
        average_window_s: length of the trailing average that a power reading is, or None.
        max_power_w: most power that the covered part can draw, for telling faults from readings.
        resolution: smallest step of the value, in raw counts.
        nominal: raw value of a healthy device at work (the widest link, the rated clock), or None where there
            is none.
        shares_with: keys of sensors that show the same reading; only one of them may count.
        overlaps: keys of sensors that cover part of what this one covers, or more; never added to it.
        unavailable: why it cannot be read, or None when it can.
        simulated: True when no hardware stands behind it.
        note: what a reader of its values should know, or "".
    """

    key: str
    source: str
    device: str
    kind: Kind
    scope: Scope
    unit: Unit
    scale: float = 1.0
    poll_hz: float = 2.0
    wraps_at: int | None = None
    tick_s: float | None = None
    average_window_s: float | None = None
    max_power_w: float | None = None
    resolution: int = 1
    nominal: int | None = None
    shares_with: tuple[str, ...] = ()
    overlaps: tuple[str, ...] = ()
    unavailable: Unavailable | None = None
    simulated: bool = False
    note: str = ""


@dataclass(frozen=True)
class Sample:
    """One read.

    Attributes:
        key: of the sensor.
        t_before_ns: CLOCK_MONOTONIC before the call.
        t_after_ns: CLOCK_MONOTONIC after it.
        raw: the value in the sensor's own integer units, or None when the read failed.
        failure: one of :data:`READ_FAILURES`; "" for a good read.
    """

    key: str
    t_before_ns: int
    t_after_ns: int
    raw: int | None
    failure: str = ""


@dataclass(frozen=True)
class Energy:
    """Energy over a window, or why there is none; never 0 for a value that is missing.

    Attributes:
        joules: gross energy in the window, or None with a ``reason``.
        bound_j: the true energy is within ``joules ± bound_j``, as far as sampling goes; a sensor that
            is wrong by a constant factor is not in it (see ``docs/method.md``).
        method: how the value came about.
        scope: what it covers.
        t0_ns: beginning of the window that the value is for, CLOCK_MONOTONIC; earlier than asked for when
            the window was widened.
        t1_ns: its end.
        n_ticks: new values that the sensor showed within the window.
        tick_s: time between two new values, or None when it is shorter than the time between reads.
        flags: what limits the value (``docs/metrics.md``).
        reason: why there is no value, or None.
        simulated: True when no hardware stands behind it.
    """

    joules: float | None
    bound_j: float | None
    method: Method
    scope: Scope
    t0_ns: int
    t1_ns: int
    n_ticks: int = 0
    tick_s: float | None = None
    flags: tuple[str, ...] = ()
    reason: Unavailable | None = None
    simulated: bool = False

    @property
    def duration_s(self) -> float:
        """Length of the window that the value is for, in seconds."""
        return (self.t1_ns - self.t0_ns) * 1e-9

    @property
    def relative_bound(self) -> float | None:
        """``bound_j / joules``, or None where there is no value."""
        return None if self.joules is None or self.bound_j is None else self.bound_j / self.joules

    @property
    def mean_power_w(self) -> float | None:
        """Mean power over the window, or None where there is no value."""
        return None if self.joules is None else self.joules / self.duration_s


Read = Callable[[], "int | Unavailable"]


class SensorSource(Protocol):
    """Finds the sensors of one kind of library, file tree or meter. No method raises for what is missing."""

    name: str

    def options(self) -> Mapping[str, Json]:
        """Keyword arguments that construct an equal source in another process."""
        ...

    def probe(self) -> list[SensorInfo]:
        """Return every sensor found; what cannot be read is in the list with the reason."""
        ...

    def open(self, keys: Sequence[str]) -> dict[str, Read | Unavailable]:
        """Return for each key a function that reads it once (``raw`` or :class:`Unavailable`)."""
        ...


def missing(source: str, unavailable: Unavailable, *, device: str = "none", scope: Scope) -> SensorInfo:
    """Return the one entry with which a source says that it has no sensors at all."""
    return SensorInfo(f"{source}:{device}/energy", source, device, "energy_counter", scope, "J",
                      unavailable=unavailable)  # fmt: skip


NO_POWER = Unavailable(
    "implausible", "the device shows 0 W, which none that works uses", "see the device's health"
)


def never_zero(read: Read) -> Read:
    """Return ``read`` with a power of 0 turned into :data:`NO_POWER`; zeros would be integrated."""

    def refusing() -> int | Unavailable:
        value = read()
        return NO_POWER if value == 0 else value

    return refusing


def failure_number(code: str) -> int:
    """Return the place of ``code`` in :data:`READ_FAILURES`; codes that are not in it become ``unknown``."""
    return READ_FAILURES.index(code) if code in READ_FAILURES else 1
