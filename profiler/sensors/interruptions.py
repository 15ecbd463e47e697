"""Times over which reads are not to be trusted: the machine slept, or the sampler was gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from profiler.backends.base import Unavailable
from profiler.sensors.base import Energy

# CLOCK_MONOTONIC stops while the machine is suspended, CLOCK_BOOTTIME does not.
_SUSPENDED_NS = 100_000_000


@dataclass(frozen=True)
class Interruption:
    """Such a time.

    Attributes:
        code: ``suspended`` or ``sampler_died``.
        begin_ns: last moment at which all was well, CLOCK_MONOTONIC.
        end_ns: first such moment after it.
        text: what happened.
    """

    code: Literal["suspended", "sampler_died"]
    begin_ns: int
    end_ns: int
    text: str


def clocks() -> tuple[int, int]:
    """CLOCK_MONOTONIC and CLOCK_BOOTTIME in ns; the same clock twice where the second does not exist."""
    now_ns = time.monotonic_ns()
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return now_ns, now_ns if boot is None else time.clock_gettime_ns(boot)


class Suspends:
    """Notices that the machine was suspended, from how far its two clocks have come apart.

    Args:
        read: returns both; see :func:`clocks`.
    """

    def __init__(self, read: Callable[[], tuple[int, int]] | None = None) -> None:
        self._read = read or clocks
        self._last = self._read()
        self._found: list[tuple[int, int]] = []

    def notice(self) -> None:
        """Look at the clocks; what happened since the last look is remembered."""
        before, now = self._last, self._read()
        self._last = now
        if now[1] - now[0] - (before[1] - before[0]) > _SUSPENDED_NS:
            self._found.append((before[0], now[0]))

    @property
    def interruptions(self) -> list[Interruption]:
        """The times in which the machine slept."""
        asleep = "the machine was suspended meanwhile"
        return [Interruption("suspended", begin, end, asleep) for begin, end in self._found]


def trusted(energy: Energy, interruptions: Sequence[Interruption]) -> Energy:
    """Refuse what a suspended machine makes worthless; say of missing reads that the sampler was gone."""
    met = [one for one in interruptions if one.begin_ns < energy.t1_ns and energy.t0_ns < one.end_ns]
    for one in met:
        if one.code == "suspended":
            reason = Unavailable("suspended", one.text, "repeat the measurement")
            return replace(energy, joules=None, bound_j=None, method="none", reason=reason)
    if not met or energy.reason is None or energy.reason.code not in ("window_not_covered", "no_samples"):
        return energy
    died = Unavailable("sampler_died", met[-1].text, "repeat the measurement")
    return replace(energy, reason=died, flags=(*energy.flags, "gap"))
