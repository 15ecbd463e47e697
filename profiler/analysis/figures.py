"""What the evidence about a case says about one metric: a figure with its bounds, or why there is none.

Times, rates, power and energy are worked out again from the starts, so that bounds hold at whatever
confidence is asked for; the record's own 95% interval serves where there are no starts to go back to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from profiler.analysis.decision import Better, mean_and_deviation, start_bounds
from profiler.analysis.evidence import CaseEvidence, Start
from profiler.analysis.figure_metrics import ENERGY, HEADROOM, MEMORY, METRICS, SPEED

Basis = Literal["starts", "recorded", "exact", "largest", "load", "none"]

RECORDED_CONFIDENCE = 0.975
"""Each end of a recorded 95% interval errs with 2.5%."""

# A record that was summarised from its own trials agrees with them to rounding.
_AGREES = 1e-6
_POWER_AGREES = 0.02
_LARGEST = 1e30


@dataclass(frozen=True)
class Figure:
    """One figure and what it rests on.

    Attributes:
        basis: ``starts`` (bounds from the means of several starts), ``recorded`` (one start, or a figure
            that only the record has), ``exact`` (a count without spread), ``largest`` (the most that was
            seen, which another look may exceed), ``load`` (bounds over the requests of a load), ``none``.
        value: in the metric's unit, or None.
        per_start: one value per start in the domain that is averaged.
        work: a rate is ``work`` divided by the mean over :attr:`per_start`; None when the mean is the value.
        recorded_95: the record's own 95% interval, or None.
        starts: starts behind it.
        predicted: whether it is worked out instead of measured.
        note: what a reader must know, e.g. what a sensor covers; empty when there is nothing.
        reason: why there is no value, or None.
        load_bounds: bounds over the requests of loads, or None.
        load_confidence: that each of them holds with.
    """

    basis: Basis
    value: float | None
    per_start: tuple[float, ...] = ()
    work: float | None = None
    recorded_95: tuple[float, float] | None = None
    starts: int = 0
    predicted: bool = False
    note: str = ""
    reason: str | None = None
    load_bounds: tuple[float, float] | None = None
    load_confidence: float = 0.0

    @classmethod
    def missing(cls, reason: str) -> Figure:
        """Return a figure that says why there is none."""
        return cls("none", None, reason=reason)

    def bounds(self, confidence: float) -> tuple[float, float] | str:
        """Return the one-sided bounds, each of which errs with ``1 - confidence``, or why there are none."""
        if self.value is None and self.load_bounds is None:
            return self.reason or "there is no value"
        if self.load_bounds is not None:
            if confidence > self.load_confidence + 1e-12:
                return f"its bounds hold with {self.load_confidence:.0%}, {confidence:.2%} is asked for"
            return self.load_bounds
        assert self.value is not None
        if self.basis == "exact":
            return self.value, self.value
        if self.basis == "starts":
            low, high = start_bounds(self.per_start, confidence)
            if self.work is None:
                return low, high
            return self.work / high, math.inf if low <= 0 else self.work / low
        if self.basis == "largest":
            return self.value, math.inf
        if self.recorded_95 is None:
            return "the record has no interval for it"
        if confidence > RECORDED_CONFIDENCE:
            return (
                f"the record holds only the interval of {RECORDED_CONFIDENCE:.1%} per side, "
                f"{confidence:.2%} is asked for; more starts give any confidence"
            )
        return self.recorded_95

    def in_domain(self, limit: float) -> float:
        """Return a limit of the figure in the domain that :attr:`per_start` is averaged in."""
        return limit if self.work is None else self.work / limit if limit else math.inf


def figure_of(name: str, case: CaseEvidence) -> Figure:
    """Return what the evidence says about a metric of :data:`METRICS` that needs only the case itself.

    Args:
        name: a metric of speed, energy, memory or headroom, or one that only the record has.
        case: a case with status ``ok``.
    """
    try:
        if name in SPEED:
            return _speed(name, case)
        if name in ENERGY:
            return _energy(name, case)
        if name in MEMORY:
            return _largest_of(name, case)
        if name in HEADROOM:
            return headroom(case)
        return _recorded(name, case)
    except (ValueError, OverflowError) as error:
        return Figure.missing(str(error))


def _speed(name: str, case: CaseEvidence) -> Figure:
    spec = case.spec
    decode_steps = spec.output_tokens - 1
    rates = {
        "prefill_tokens_per_s": spec.batch * spec.prompt_tokens,
        "decode_tokens_per_s": spec.batch * decode_steps,
        "output_tokens_per_s": spec.batch * spec.output_tokens,
    }
    times: dict[str, Callable[[Start], float | None]] = {
        **dict.fromkeys(("prefill_s", "ttft_s", "prefill_tokens_per_s"), lambda start: start.prefill_s),
        "tpot_s": lambda start: start.decode_s / decode_steps if start.decode_s and decode_steps else None,
        "decode_tokens_per_s": lambda start: start.decode_s if decode_steps else None,
        "e2e_s": lambda start: start.e2e_s,
        "output_tokens_per_s": lambda start: start.e2e_s,
        "load_s": lambda start: start.record.load_s,
    }
    values = [times[name](start) for start in case.starts]
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return _no_value(name, case, "it has no such phase of its own" if values else "no start counts")
    return _checked_against_record(name, case, tuple(known), rates.get(name))


def _checked_against_record(
    name: str, case: CaseEvidence, values: tuple[float, ...], work: float | None
) -> Figure:
    """Return the figure of the starts, unless the record says something else than its own trials."""
    _must_be_possible(values)
    mean, _ = mean_and_deviation(values)
    value = mean if work is None else work / mean
    interval = None
    if len(case.records) == 1:
        recorded = case.records[0].measurements.get(name)
        if recorded is not None and recorded.value is not None:
            if not math.isclose(recorded.value, value, rel_tol=_AGREES, abs_tol=1e-12):
                return Figure.missing("the recorded value does not follow from the recorded trials")
            interval = recorded.ci95
    basis: Basis = "starts" if len(values) > 1 else "recorded"
    return Figure(basis, value, values, work, interval, starts=len(values))


def _energy(name: str, case: CaseEvidence) -> Figure:
    """Return power or energy with each start as a replicate; the record alone knows what is covered."""
    figure = _recorded(name, case)
    if figure.value is None:
        return figure
    tokens = case.spec.batch * case.spec.output_tokens
    values = []
    for start in case.starts:
        joules, seconds = start.record.energy_j, start.record.measured_s
        if joules is None or not (joules > 0 and seconds > 0):
            return figure
        values.append(joules / seconds if name == "power_mean_w" else joules / (start.trials * tokens))
    if len(values) < 2:
        return figure
    _must_be_possible(values)
    mean, _ = mean_and_deviation(values)
    # A record that means something else by its figure (net of idle, another window) keeps its own.
    if len(case.records) == 1 and not math.isclose(mean, figure.value, rel_tol=_POWER_AGREES):
        return figure
    return replace(figure, basis="starts", value=mean, per_start=tuple(values), starts=len(values))


def _recorded(name: str, case: CaseEvidence) -> Figure:
    """Return a figure that only the records have; of several the least favourable counts."""
    better = METRICS[name].better
    worst: Figure | None = None
    for record in case.records:
        found = record.measurements.get(name)
        if found is None or found.value is None:
            continue
        _must_be_possible((found.value, *(found.ci95 or ())))
        starts = sum(start.used for start in record.starts)
        basis: Basis = "largest" if name == "power_max_1s_w" and found.ci95 is None else "recorded"
        note = "" if found.scope in ("none", "within_process", "across_starts") else f"covers: {found.scope}"
        figure = Figure(basis, found.value, recorded_95=found.ci95, starts=starts, note=note)
        if worst is None or _worse(found.value, worst.value or 0.0, better):
            worst = figure
    return worst or _no_value(name, case, "the record holds no such measurement")


def _must_be_possible(values: Iterable[float]) -> None:
    # A record may hold any number; sums of squares and quotients of the largest have no value.
    if not all(0 <= value < _LARGEST for value in values):
        raise ValueError("the recorded figures cannot be true")


def _worse(value: float, than: float, better: Better) -> bool:
    return value < than if better == "higher" else value > than


def _no_value(name: str, case: CaseEvidence, otherwise: str) -> Figure:
    reasons = [
        found.reason
        for record in case.records
        if (found := record.measurements.get(name)) is not None and found.reason is not None
    ]
    return Figure.missing(reasons[-1] if reasons else otherwise)


def _largest_of(name: str, case: CaseEvidence) -> Figure:
    values = [
        found.value
        for record in case.records
        if (found := record.measurements.get(name)) is not None and found.value is not None
    ]
    if not values:
        return _no_value(name, case, "the record holds no such measurement")
    _must_be_possible(values)
    return Figure("exact", max(values), starts=len(case.starts))


def headroom(case: CaseEvidence) -> Figure:
    """Return device memory less the most that was seen in use, or less what the plan reckoned with."""
    total = case.device.memory_total_bytes
    if total is None:
        return Figure.missing("the device does not say how much memory it has")
    used = _largest_of("max_sampled_device_bytes", case)
    if used.value is not None:
        return replace(used, value=total - used.value)
    if case.predicted is None:
        return used
    note = "device memory less weights, cache and reserve of the plan"
    return Figure("exact", float(total - case.predicted.needed_bytes), predicted=True, note=note)
