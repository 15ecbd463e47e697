"""Arithmetic of energies with bounds: pauses taken out, phases told apart. Pure functions.

What they promise, and why they are done this way, is in ``docs/method.md``, "Energy of phases".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from profiler.backends.base import Unavailable
from profiler.sensors.base import Energy

# Beyond this share of pauses the figure would be about the pauses.
_MOST_PAUSES = 0.5


@dataclass(frozen=True)
class Amount:
    """Energy of some seconds of work.

    Attributes:
        joules: energy.
        bound_j: the true energy is within ``joules ± bound_j``.
        seconds: time of the work.
    """

    joules: float
    bound_j: float
    seconds: float

    @property
    def relative_bound(self) -> float:
        """Bound over value."""
        return self.bound_j / self.joules


def active(energy: Energy, active_s: float, idle_w: float | None) -> Amount | Unavailable:
    """Return the energy of the time in which requests were worked on, without the pauses between them.

    How long the pauses were is known, how much power they took is not: at least that of idling, at most
    the mean of the window. The middle is taken, and half of the range is added to the bound.

    Args:
        energy: of a window.
        active_s: time of work within the window.
        idle_w: power with the model loaded and nothing to do, or None when it is not known.
    """
    if energy.joules is None or energy.bound_j is None:
        return energy.reason or Unavailable("no_samples", "the sensor was never read")
    pause_s = max(0.0, energy.duration_s - active_s)
    if pause_s > _MOST_PAUSES * energy.duration_s:
        share = active_s / energy.duration_s
        text = f"requests ran in only {share:.0%} of the window, the rest were pauses between them"
        return Unavailable("mostly_pauses", text, "longer requests, or a larger batch")
    mean_w = energy.joules / energy.duration_s
    low_w = min(idle_w or 0.0, mean_w)
    pauses_j = pause_s * (low_w + mean_w) / 2
    unsure_j = pause_s * (mean_w - low_w) / 2
    return Amount(energy.joules - pauses_j, energy.bound_j + unsure_j, energy.duration_s - pause_s)


def difference(whole: Amount, part: Amount, times: float, seconds: float) -> Amount | None:
    """Return what is left of ``whole`` without ``times`` times ``part``; None when nothing is.

    Args:
        whole: energy of complete requests.
        part: energy of one of their phases, repeated by itself.
        times: how often the phase is in ``whole``, over how often it is in ``part``.
        seconds: time of what is left, as it was measured.
    """
    joules = whole.joules - times * part.joules
    return Amount(joules, whole.bound_j + times * part.bound_j, seconds) if joules > 0 else None


def added(energies: Sequence[Energy]) -> Amount | None:
    """Return the sum over windows; bounds are added, since both ends may err the same way every time."""
    joules = bound_j = seconds = 0.0
    for energy in energies:
        if energy.joules is None or energy.bound_j is None:
            return None
        joules += energy.joules
        bound_j += energy.bound_j
        seconds += energy.duration_s
    return Amount(joules, bound_j, seconds) if energies else None


def more_certain(amounts: Sequence[Amount | None]) -> Amount | None:
    """Return the amount with the smallest relative bound."""
    known = [amount for amount in amounts if amount is not None]
    return min(known, key=lambda amount: amount.relative_bound, default=None)


def window_for(energy: Energy, aim: float) -> float | None:
    """Return how long a window must be for the relative bound ``aim``, or None when that is not known.

    The bound hardly depends on the length of the window, so it follows from any window of the same work.
    """
    if energy.joules is None or energy.bound_j is None:
        return None
    return energy.bound_j / (aim * energy.joules / energy.duration_s)
