"""What a price per token hangs on: every assumption changed within its range, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from profiler.analysis.cost import PricedCase, usd_per_second_at_work
from profiler.analysis.cost_types import SHARED, SHARES, VARIABLE, Box
from profiler.analysis.figures import RECORDED_CONFIDENCE

CHANGE = 0.2
"""An assumption without a range of its own is tried 20% lower and higher."""


@dataclass(frozen=True)
class Sensitivity:
    """One assumption, changed within its range.

    Attributes:
        assumption: its name, with its unit.
        of: the candidates that it concerns.
        shared: whether it stands under ``common`` and changes for all of them at once.
        base: as in the file.
        low: lowest value tried.
        high: highest value tried.
        stated_range: whether the file gives the range; otherwise it is 20% either way.
        usd_at_low: cost per million output tokens of the candidates in :attr:`of`, at ``low``.
        usd_at_high: the same at ``high``.
        cheapest_at_low: cheapest candidate of all at ``low``.
        cheapest_at_high: the same at ``high``.
        changes_ranking: whether the order of the candidates changes at either end.
    """

    assumption: str
    of: tuple[str, ...]
    shared: bool
    base: float
    low: float
    high: float
    stated_range: bool
    usd_at_low: tuple[float, ...]
    usd_at_high: tuple[float, ...]
    cheapest_at_low: str
    cheapest_at_high: str
    changes_ranking: bool


@dataclass(frozen=True)
class PricedBox:
    """A case with a price, its box, and the measured power that goes with it."""

    case: PricedCase
    box: Box
    device_w: float | None

    def usd_with(self, box: Box) -> float:
        """Cost per million output tokens if the box were ``box``; the time per trial stays."""
        changed = usd_per_second_at_work(box, self.device_w) / usd_per_second_at_work(self.box, self.device_w)
        return (self.case.output.value or 0.0) * changed

    @property
    def ends(self) -> tuple[float, float] | None:
        """Both ends of the 95% interval of the cost per million output tokens."""
        return interval_95(self.case)


def interval_95(case: PricedCase) -> tuple[float, float] | None:
    """Return the two-sided 95% interval of the cost per million output tokens, or None."""
    found = case.output.bounds(RECORDED_CONFIDENCE)
    return None if isinstance(found, str) else found


def sensitivities(priced: Sequence[PricedBox]) -> Iterator[Sensitivity]:
    """Change every assumption that was made, common ones for all boxes at once."""
    for name in VARIABLE:
        if name in SHARED:
            together = [entry for entry in priced if name in entry.box.common]
            if together:
                yield _sensitivity(name, together, priced, shared=True)
        for entry in priced:
            if name not in entry.box.common and _matters(name, entry.box):
                yield _sensitivity(name, [entry], priced, shared=False)


def _matters(name: str, box: Box) -> bool:
    """Whether an assumption was made and enters the cost."""
    if not getattr(box, name):
        return False
    bought = ("residual_value_usd", "depreciation_years", "interest_rate_per_year")
    if name in bought:
        return box.price_usd is not None and (name != bought[2] or box.depreciation_method == "annuity")
    power = ("electricity_usd_per_kwh", "pue", "load_power_w", "idle_power_w", "rest_of_box_power_w")
    return box.pays_for_power or name not in power


def _sensitivity(
    name: str, changed: Sequence[PricedBox], everyone: Sequence[PricedBox], *, shared: bool
) -> Sensitivity:
    base = float(getattr(changed[0].box, name))
    stated = changed[0].box.ranges.get(name)
    low, high = stated or _around(name, base, changed[0].box)
    named = {entry.case.candidate for entry in changed}

    def usd_at(value: float) -> dict[str, float]:
        return {
            entry.case.candidate: entry.usd_with(_changed(entry.box, name, value))
            if entry.case.candidate in named
            else entry.case.output.value or 0.0
            for entry in everyone
        }

    at_low, at_high = usd_at(low), usd_at(high)
    order = [entry.case.candidate for entry in everyone]
    orders = [sorted(order, key=lambda who: (usd[who], order.index(who))) for usd in (at_low, at_high)]
    return Sensitivity(
        assumption=name,
        of=tuple(entry.case.candidate for entry in changed),
        shared=shared,
        base=base,
        low=low,
        high=high,
        stated_range=stated is not None,
        usd_at_low=tuple(at_low[entry.case.candidate] for entry in changed),
        usd_at_high=tuple(at_high[entry.case.candidate] for entry in changed),
        cheapest_at_low=orders[0][0],
        cheapest_at_high=orders[1][0],
        changes_ranking=any(found != order for found in orders),
    )


def _around(name: str, base: float, box: Box) -> tuple[float, float]:
    low, high = base * (1 - CHANGE), base * (1 + CHANGE)
    if name in SHARES:
        high = min(high, 1.0)
    if name == "pue":
        low = max(low, 1.0)
    if name == "residual_value_usd":
        high = min(high, box.price_usd or high)
    return low, high


def _changed(box: Box, name: str, value: float) -> Box:
    if name == "price_usd":
        return replace(box, price_usd=value, residual_value_usd=min(box.residual_value_usd or 0.0, value))
    change: dict[str, Any] = {name: value}
    return replace(box, **change)
