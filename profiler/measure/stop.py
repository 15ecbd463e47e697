"""When to stop making trials: at a few fixed looks, once the interval is narrow enough, or when time is up.

Looking more than once makes a plain 95% interval wrong more often than 5% of the time, because a series
is stopped just when it happens to look quiet. The critical values of :mod:`profiler.measure.stats` are
calibrated for exactly the looks used here (docs/method.md, "Looking").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from numpy.typing import ArrayLike

from profiler.measure.stats import LOOKS, SERIAL_MIN_TRIALS, Estimate, checked, mean_interval
from profiler.results.schema import TrialRecord

FIRST_LOOK_SHARE = 0.25
"""At the first look the interval must be this much narrower than the target.

Five trials cannot tell independent noise from autocorrelated noise, so they only settle cases whose
noise is far below what was asked for.
"""

LEAST_MEASURED_S = 8.0
"""Seconds that measured trials span together, whatever the interval says, as long as there is time.

Twenty trials of 0.1 s last two seconds, over which a warm-up of several seconds looks constant.
"""

MOST_TRIALS_PER_CASE = 150_000
"""The record of a case holds every trial, about 400 bytes each, and readers accept 64 MiB of it."""

StopReason = Literal["target_reached", "last_look", "out_of_time", "between_looks", "too_wide"]

STOPPING = ("target_reached", "last_look", "out_of_time")


def judged_times(trials: Sequence[TrialRecord]) -> list[list[float]]:
    """Return the times by which trials are judged: of both phases, or of the whole where they are not apart.

    Args:
        trials: measured ones.
    """
    if any(trial.prefill_s is None for trial in trials):
        return [[trial.e2e_s for trial in trials]]
    prefill = [trial.prefill_s for trial in trials if trial.prefill_s is not None]
    decode = [trial.decode_s for trial in trials if trial.decode_s is not None]
    return [times for times in (prefill, decode) if times]


@dataclass(frozen=True)
class Decision:
    """Whether to stop making trials, and what is known so far.

    Attributes:
        stop: True when no further trial should be made.
        reason: to stop: ``target_reached``, ``last_look`` or ``out_of_time``; to go on: ``between_looks``
            (the number of trials is not one at which the series is judged) or ``too_wide``.
        estimate: mean trial time with its interval; valid as a result only when ``stop`` is True.
        target_met: whether the interval is within the target now, whatever the reason.
        flags: ``few_trials`` when fewer than 5 trials were made in the end.
    """

    stop: bool
    reason: StopReason
    estimate: Estimate
    target_met: bool
    flags: tuple[str, ...] = ()


def share_of_target(n: int) -> float:
    """The part of the target that the relative half-width must be within at the look at ``n`` trials."""
    return FIRST_LOOK_SHARE if n == LOOKS[0] else 1.0


def least_measured_s(start_s: float, share: float) -> float:
    """Return how long the trials of a start are measured at least: not longer than warm-up may take.

    Args:
        start_s: time of the start.
        share: part of it that warm-up may take.
    """
    return min(LEAST_MEASURED_S, share * start_s)


def too_many_trials(soak_s: float, trial_s: float, most: int) -> str | None:
    """Return why a soak would make more trials than can be recorded, or None: better known before than after.

    Args:
        soak_s: how long the trials are to be held.
        trial_s: what one takes.
        most: how many can be recorded.
    """
    if soak_s <= most * trial_s:
        return None
    return (
        f"a trial takes {1e3 * trial_s:.2g} ms: a soak of {soak_s:.0f} s would make "
        f"{soak_s / trial_s:,.0f} of them, {most:,} can be recorded; take a longer workload (--scenario, a "
        "higher --concurrency)"
    )


def _settled(times: ArrayLike, target: float) -> bool:
    """Whether the interval was within the target at a look; what comes after it is measured anyway."""
    array = checked(times, "trial times")
    for look in LOOKS[: sum(look <= array.size for look in LOOKS)]:
        width = mean_interval(array[:look]).relative_half_width
        if width is not None and width <= target * share_of_target(look):
            return True
    return False


def _reason(n: int, within: bool, time_is_up: bool) -> StopReason:
    if within:
        return "target_reached"
    if n >= LOOKS[-1]:
        return "last_look"
    if time_is_up:
        return "out_of_time"
    return "too_wide" if n in LOOKS else "between_looks"


def decide(
    times: ArrayLike,
    target_relative_half_width: float,
    time_left_s: float | None = None,
    next_trial_s: float | None = None,
) -> Decision:
    """Judge the trials made so far; call it after every trial. What was settled at a look stays settled.

    Args:
        times: seconds per trial after warm-up, in the order in which the trials ran.
        target_relative_half_width: half-width of the 95% interval divided by the mean, e.g. 0.01.
        time_left_s: wall time left for trials of this start, or None for no limit.
        next_trial_s: how long another trial would take; the mean of ``times`` when None.

    Raises:
        ValueError: there is no trial, a time is not a positive finite number, or the target or the
            time left is not a number that can be used.
    """
    if not (math.isfinite(target_relative_half_width) and target_relative_half_width > 0):
        raise ValueError(f"target half-width must be positive and finite, got {target_relative_half_width}")
    if time_left_s is not None and math.isnan(time_left_s):
        raise ValueError("time left is NaN; give seconds, or None for no limit")
    array = checked(times, "trial times")
    n, estimate = array.size, mean_interval(array)
    width = estimate.relative_half_width
    met = width is not None and width <= target_relative_half_width
    within = _settled(array, target_relative_half_width)
    needed_s = estimate.mean if next_trial_s is None else next_trial_s
    reason = _reason(n, within, time_left_s is not None and time_left_s < needed_s)
    stop = reason in STOPPING
    flags = ("few_trials",) if stop and n < SERIAL_MIN_TRIALS else ()
    return Decision(stop, reason, estimate, met, flags)
