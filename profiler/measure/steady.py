"""When warm-up is over, and whether the measured trials really were steady.

A trial is one complete prefill and decode at the same context positions every time, so that trials
can be compared with each other while single decode steps, whose cost grows with the context, cannot.
The evidence that this works is in docs/method.md, "Warm-up".
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from profiler.measure.distributions import student_t_quantile

TOLERANCE = 0.02
"""Relative change over the window below which a drift does not matter."""

MIN_BLOCK_S = 1.0
MIN_BLOCKS, MIN_WINDOW_BLOCK_LENGTHS = 3, 5
"""The trend is judged over at least 3 blocks and at least 5 block lengths of time.

Short trials fill a block in just over its length, so that five of them are cheap; long trials take
longer than a block each, and three of them already span enough time.
"""

MIN_TRIALS_FOR_DRIFT = 5
LEAK_TIME_CONSTANTS = (0.125, 0.25, 0.5, 1.0, 2.0, 3.0)
"""Time constants tried for the rest of a warm-up, in lengths of the warm-up."""

LEAK_MIN_T, LEAK_SHARE = 2.5, 0.1
"""Chosen on simulations (their seeds are not those of the tables) for the fewest unflagged wrong intervals
at the same share of false alarms; docs/method.md says what others, Geweke's and MSER among them, would do."""

LARGEST_RHO = 0.8
CONFIDENCE = 0.95

Status = Literal["warming", "steady", "out_of_time"]


@dataclass(frozen=True)
class Trend:
    """A straight line through equally spaced values.

    Attributes:
        n: number of values.
        slope: relative change from one value to the next.
        change: relative change from the first value to the last, on the line.
        margin: half-width of the 95% interval of ``change``, widened for the residuals' autocorrelation.
    """

    n: int
    slope: float
    change: float
    margin: float

    @property
    def significant(self) -> bool:
        """Whether the slope can be told from 0."""
        return abs(self.change) > self.margin


def trend(values: Sequence[float]) -> Trend:
    """Least-squares trend of at least 3 positive values, relative to their mean.

    Raises:
        ValueError: there are fewer than 3, or one is not a positive finite number.
    """
    n = len(values)
    if n < 3:
        raise ValueError(f"a trend needs at least 3 values, got {n}")
    for i, value in enumerate(values):
        _check(value, f"value [{i}]")
    mean = math.fsum(values) / n
    centre = (n - 1) / 2
    spread = n * (n * n - 1) / 12
    slope = math.fsum((i - centre) * v for i, v in enumerate(values)) / spread
    residuals = [v - mean - slope * (i - centre) for i, v in enumerate(values)]
    squares = math.fsum(r * r for r in residuals)
    if squares <= n * (1e-14 * mean) ** 2:  # rounding dust around an exact line
        squares, inflation = 0.0, 1.0
        slope = 0.0 if abs(slope) < 1e-14 * mean else slope
    else:
        products = math.fsum(a * b for a, b in pairwise(residuals))
        # Taking a line away biases the autocorrelation of the residuals by about -2/n.
        rho = min(0.9, max(0.0, products / squares + 2 / n))
        inflation = math.sqrt((1 + rho) / (1 - rho))
    error = math.sqrt(squares / (n - 2) / spread) * inflation
    margin = student_t_quantile((1 + CONFIDENCE) / 2, n - 2) * error
    return Trend(n, slope / mean, slope * (n - 1) / mean, margin * (n - 1) / mean)


@dataclass(frozen=True)
class Leak:
    """What an exponential warm-up, if there was one, still adds to the mean of the measured trials.

    Attributes:
        relative: estimated share of the mean that is left-over warm-up.
        time_constant_trials: time constant of the best fit.
        t: amplitude of the fit over its standard error, widened for the residuals' autocorrelation.
    """

    relative: float
    time_constant_trials: float
    t: float

    def matters(self, relative_half_width: float) -> bool:
        """Whether the warm-up is real and its rest is over a tenth of the interval's half-width."""
        return abs(self.t) > LEAK_MIN_T and abs(self.relative) > LEAK_SHARE * relative_half_width


def leak(warm_up_times: Sequence[float], measured_times: Sequence[float]) -> Leak | None:
    """Fit one exponential approach to a constant through warm-up and measured trials together.

    A slow approach is flat enough to pass for steady over a few trials, but not over all of them.
    The very first trial is left out: it pays one-time costs that say nothing about the approach.

    Returns:
        The fit, or None with fewer than two warm-up trials or five trials in all after the first.

    Raises:
        ValueError: a time is not a positive finite number.
    """
    kept = [*warm_up_times[1:], *measured_times]
    for i, value in enumerate(kept):
        _check(value, f"trial [{i + 1}]")
    n, warm = len(kept), len(warm_up_times) - 1
    if warm < 1 or n - warm < 1 or n < MIN_TRIALS_FOR_DRIFT:
        return None
    values = np.array(kept)
    mean = float(values.mean())
    centred = values - mean
    total = float(centred @ centred)
    if total <= n * (1e-14 * mean) ** 2:
        return Leak(0.0, float(warm), 0.0)
    best: tuple[float, Leak] | None = None
    for share in LEAK_TIME_CONSTANTS:
        constant = share * len(warm_up_times)
        shape = np.exp(-np.arange(n) / constant)
        offset = shape - shape.mean()
        weight = float(offset @ offset)
        amplitude = float(offset @ centred) / weight
        rest = max(total - amplitude**2 * weight, 1e-24 * total)
        t = amplitude / math.sqrt(rest / (n - 3) / weight)
        t /= _inflation(centred - amplitude * offset)
        if best is None or rest < best[0]:
            best = rest, Leak(amplitude * float(shape[warm:].mean()) / mean, constant, t)
    return None if best is None else best[1]


def _inflation(residuals: NDArray[np.float64]) -> float:
    """Return how much autocorrelation widens a standard error: sqrt((1 + rho) / (1 - rho)), at least 1.

    Taking a fit away biases the autocorrelation of the residuals by about -2/n.
    """
    squares = float(residuals @ residuals)
    rho = float(residuals[1:] @ residuals[:-1]) / squares if squares > 0 else 0.0
    rho = min(LARGEST_RHO, max(0.0, rho + 2 / len(residuals)))
    return math.sqrt((1 + rho) / (1 - rho))


def flags_after(
    warm_up: WarmUp, measured_times: Sequence[float], relative_half_width: float | None
) -> list[str]:
    """Flags of one start, once its trials are made.

    Args:
        warm_up: what decided that measuring could begin.
        measured_times: seconds per trial after it.
        relative_half_width: of the interval of their mean, or None when there is none.

    Returns:
        ``not_steady`` when warm-up ran out of time, or when all trials together show that a rest of it
        is in the mean; ``drift`` when the measured trials have a trend.

    Raises:
        ValueError: a time is not a positive finite number.
    """
    rest = leak(warm_up.times, measured_times)
    leaked = rest is not None and relative_half_width is not None and rest.matters(relative_half_width)
    flags = ["not_steady"] if leaked or warm_up.status != "steady" else []
    return flags + (["drift"] if drift(measured_times) else [])


def drift(times: Sequence[float]) -> Trend | None:
    """The trend over the measured trials if it is significant and over 2%, else None: flag ``drift``.

    Fewer than 5 trials are never judged.

    Raises:
        ValueError: a time is not a positive finite number.
    """
    if len(times) < MIN_TRIALS_FOR_DRIFT:
        for i, value in enumerate(times):
            _check(value, f"trial [{i}]")
        return None
    found = trend(times)
    return found if found.significant and abs(found.change) > TOLERANCE else None


class WarmUp:
    """Decides, one trial at a time, when warm-up is over.

    Consecutive trials are pooled (by their median) into blocks of at least ``block_s``. Warm-up is over
    when, over the later half of all blocks (at least the last three, and at least five block lengths of
    time), the trend cannot be told from 0 and changes a trial by under 2%.

    Attributes:
        times: seconds of each trial seen.
        elapsed_s: their total.
        blocks: medians of the finished blocks, seconds per trial.
        last_trend: the trend over the last window, None before there are enough blocks.
        status: what the last :meth:`add` returned.
    """

    def __init__(
        self, budget_s: float, block_s: float = MIN_BLOCK_S, *, most_trials: float = math.inf
    ) -> None:
        if not budget_s > 0 or not block_s > 0:
            raise ValueError(
                f"warm-up needs a positive budget and block length, got {budget_s} and {block_s}"
            )
        self.budget_s = budget_s
        self.block_s = block_s
        self.most_trials = most_trials
        self.times: list[float] = []
        self.elapsed_s = 0.0
        self.blocks: list[float] = []
        self.last_trend: Trend | None = None
        self.status: Status = "warming"
        self._open: list[float] = []
        self._block_lengths_s: list[float] = []

    def add(self, seconds: float) -> Status:
        """Take one trial's duration.

        Returns:
            ``warming`` to make another warm-up trial, ``steady`` to start measuring, ``out_of_time``
            to start measuring with the flag ``not_steady``. The last two are final.

        Raises:
            ValueError: the duration is not a positive finite number, or warm-up is already over.
        """
        if self.status != "warming":
            raise ValueError(f"warm-up is over ({self.status}); trials from here on are measured")
        _check(seconds, "trial duration")
        self.times.append(seconds)
        self.elapsed_s += seconds
        self._open.append(seconds)
        if math.fsum(self._open) >= self.block_s:
            self.blocks.append(statistics.median(self._open))
            self._block_lengths_s.append(math.fsum(self._open))
            self._open = []
            if self._is_steady():
                self.status = "steady"
                return self.status
        if self.elapsed_s >= self.budget_s or len(self.times) >= self.most_trials:
            self.status = "out_of_time"
        return self.status

    def _is_steady(self) -> bool:
        window = max(MIN_BLOCKS, math.ceil(len(self.blocks) / 2))
        needed_s = MIN_WINDOW_BLOCK_LENGTHS * self.block_s
        while window < len(self.blocks) and math.fsum(self._block_lengths_s[-window:]) < needed_s:
            window += 1
        if len(self.blocks) < window or math.fsum(self._block_lengths_s[-window:]) < needed_s:
            return False
        self.last_trend = trend(self.blocks[-window:])
        return not self.last_trend.significant and abs(self.last_trend.change) < TOLERANCE

    def explain(self) -> str:
        """One line for a person: what was seen and why warm-up ended or goes on."""
        seen = f"{len(self.times)} trials in {self.elapsed_s:.1f} s, {len(self.blocks)} blocks"
        if self.last_trend is None:
            return (
                f"{self.status}: {seen}; at least {MIN_BLOCKS} blocks "
                f"and {MIN_WINDOW_BLOCK_LENGTHS * self.block_s:g} s are needed"
            )
        found = self.last_trend
        return (
            f"{self.status}: {seen}; change over the last {found.n} blocks "
            f"{100 * found.change:+.1f}% ± {100 * found.margin:.1f}%"
        )


def _check(seconds: float, what: str) -> None:
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"{what} must be a positive finite number of seconds, got {seconds}")
