"""What the sensors of a box are worth: read them for a while and judge what came.

The time of a survey is short, so power sensors are read faster than in a sweep; what a sweep does with a
counter does not depend on them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from profiler.backends.base import Device, Unavailable
from profiler.sensors.base import ENERGY_KINDS, SensorInfo
from profiler.sensors.box import BoxSensors, names_of
from profiler.sensors.sampler import Sampler
from profiler.sensors.self_check import SelfCheck, power_beside, self_check
from profiler.sensors.ticks import Series

QUICK_S = 1.5
"""Long enough for the bound of a one-second window of a counter with a 100 ms tick."""
THOROUGH_S = 12.0
"""Long enough for readings that are averages over a second, and for ticks of a second."""

_OF_A_DEVICE = ("chip", "board", "module", "socket")
_POWER_HZ = 25.0
_SOUGHT_BOUND = 0.01


@dataclass(frozen=True)
class Surveyed:
    """One sensor, and what reading it for a while has shown.

    Attributes:
        info: what it is; with the reason where it cannot be read.
        latest: its last value in ``info.unit``, or None.
        call_s: median time of one read, or None when it was not read.
        check: of energy counters and power sensors, else None.
    """

    info: SensorInfo
    latest: float | None
    call_s: float | None
    check: SelfCheck | None

    @property
    def now(self) -> float | None:
        """The last value, and for an energy counter the mean power of the look; None where there is none."""
        if self.info.kind == "energy_counter":
            return None if self.check is None else self.check.power_mean_w
        return self.latest

    @property
    def unavailable(self) -> Unavailable | None:
        """Why it cannot be read, or None; windows that are too short do not make a sensor unavailable."""
        return self.info.unavailable

    def accuracy(self) -> str | None:
        """Return in words what energies of it are worth, or None for sensors that give none."""
        if self.check is None:
            return None
        if self.check.unavailable is not None:
            return self._why_no_energy(self.check.unavailable)
        bound = self.check.relative_bound_1s
        if bound is None:
            if self.info.average_window_s:
                return self._averages(self.info.average_window_s)
            return "how accurate it is takes a longer look: --check"
        size = f"±{bound:.1%}" if bound >= 0.0005 else "under ±0.1%"
        words = f"energy of a 1 s phase: {size}"
        if bound > _SOUGHT_BOUND and self.info.kind == "energy_counter":
            # The bound of a window is what its ends leave open, so it falls with the window's length.
            words += f", ±1% from {bound / _SOUGHT_BOUND:.2g} s on"
        return words

    def _why_no_energy(self, reason: Unavailable) -> str:
        if reason.code == "window_too_short" and self.info.average_window_s:
            return self._averages(self.info.average_window_s)
        if reason.code == "not_in_order":  # between the first reading that counts and the last lies no time
            return "how accurate it is takes a longer look: --check"
        if reason.code in ("window_not_covered", "no_samples") and self.latest is not None:
            return "no new value during this look: it stands still, or is slow (--check looks longer)"
        return reason.text + (f" ({reason.remedy})" if reason.remedy else "")

    @staticmethod
    def _averages(seconds: float) -> str:
        return f"averages over {seconds:.2g} s: good for phases of {5 * seconds:.2g} s and more"


def survey(box: BoxSensors, seconds: float = QUICK_S) -> list[Surveyed]:
    """Read all sensors that can be read, and judge them.

    Args:
        box: the sensors.
        seconds: how long to read; nothing is waited for where no sensor can be read.
    """
    wanted = [faster(info) for info in box.infos]
    if not any(info.unavailable is None and info.poll_hz > 0 for info in wanted):
        return [Surveyed(info, None, None, None) for info in box.infos]
    with Sampler(wanted, box.options) as sampler:
        time.sleep(seconds)
        sampler.drain()
        infos = sampler.infos
        reads = {info.key: sampler.series(info.key) for info in wanted}
    return judge([replace(infos[info.key], poll_hz=info.poll_hz) for info in wanted], reads)


def judge(infos: Sequence[SensorInfo], reads: dict[str, Series]) -> list[Surveyed]:
    """Return what the reads say about each sensor; counters are held against power of the same device."""
    return [_judged(info, infos, reads) for info in infos]


def sensors_of(device: Device, surveyed: Sequence[Surveyed]) -> list[Surveyed]:
    """Return the sensors of one device; those of CPU packages belong to the CPU."""
    names = names_of(device)
    if device.backend == "cpu":
        return [one for one in surveyed if one.info.source in ("rapl", "cpu")]
    return [one for one in surveyed if one.info.device in names]


def faster(info: SensorInfo) -> SensorInfo:
    """Return a device's power sensor as read often enough for a short look; others keep their pace."""
    if info.unit == "W" and info.scope in _OF_A_DEVICE and 2 <= info.poll_hz < _POWER_HZ:
        return replace(info, poll_hz=_POWER_HZ)
    return info


def _judged(info: SensorInfo, infos: Sequence[SensorInfo], reads: dict[str, Series]) -> Surveyed:
    if info.unavailable is not None:
        return Surveyed(info, None, None, None)
    own = reads[info.key]
    good = own.good()
    latest = float(good.raw[-1]) * info.scale if len(good) else None
    check = None
    if info.kind in ENERGY_KINDS:
        beside = power_beside(info, (other for other in infos if len(reads.get(other.key, ()))))
        check = self_check(info, own, None if beside is None else (beside, reads[beside.key]))
        call_s = check.call_median_s
    else:
        times = sorted((own.t_after_ns - own.t_before_ns).tolist())
        call_s = times[len(times) // 2] * 1e-9 if times else None
    return Surveyed(info, latest, call_s, check)
