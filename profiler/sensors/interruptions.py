"""Times over which reads are not to be trusted: the machine slept, or the sampler was gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from profiler.backends.base import Unavailable
from profiler.sensors.base import Energy


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
