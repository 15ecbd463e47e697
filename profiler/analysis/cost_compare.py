"""What follows from prices per million tokens: the order of the boxes, break-even, and what would change it.

Boxes are set against each other only on the same work in the same formats.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from profiler.analysis.candidates import Candidate, candidates_of
from profiler.analysis.cost import (
    PricedCase,
    api_usd_per_trial,
    box_of,
    hourly_cost,
    load_watts,
    power_per_start,
    priced_cases,
    with_price,
)
from profiler.analysis.cost_sensitivity import PricedBox, Sensitivity, sensitivities
from profiler.analysis.cost_types import ApiPrice, Box, Costs
from profiler.results.read import Run, printable


@dataclass(frozen=True)
class BreakEven:
    """At which price a box costs as much per token as another.

    Attributes:
        candidate: whose price is asked for.
        against: the other candidate.
        kind: ``price_usd`` or ``rent_usd_per_hour``.
        now: the price in the file.
        price: the price at which both are equal; None when running costs alone are more.
        low: lower end, or None.
        high: upper end, or None; each end from the unfavourable ends of both intervals.
        ratio: :attr:`price` over the other's price; None where one is bought and the other rented.
    """

    candidate: str
    against: str
    kind: str
    now: float
    price: float | None
    low: float | None
    high: float | None
    ratio: float | None


@dataclass(frozen=True)
class AgainstApi:
    """A box beside a service's price for the same tokens.

    Attributes:
        candidate: the box.
        api: name of the service.
        ratio: the service's price over the box's cost; above 1 the box is cheaper.
        low: lower end of the ratio, or None.
        high: upper end, or None.
        utilisation: share of all hours at work from which the box is cheaper; None when it never is.
    """

    candidate: str
    api: str
    ratio: float
    low: float | None
    high: float | None
    utilisation: float | None


@dataclass(frozen=True)
class WorkCosts:
    """All candidates on one piece of work, cheapest first, those without a price last.

    Attributes:
        case: label of the case.
        cases: the priced cases.
        distinguishable: whether the cheapest is cheaper than the next beyond both intervals; None when
            there is nothing to compare or an interval is missing.
        break_even: see :class:`BreakEven`.
        against_api: see :class:`AgainstApi`.
        sensitivity: see :class:`Sensitivity`.
    """

    case: str
    cases: tuple[PricedCase, ...]
    distinguishable: bool | None
    break_even: tuple[BreakEven, ...]
    against_api: tuple[AgainstApi, ...]
    sensitivity: tuple[Sensitivity, ...]


@dataclass(frozen=True)
class CostReport:
    """Everything that a cost file says about runs.

    Attributes:
        name: of the cost file.
        output_share: share of the cost that output tokens carry.
        boxes: box and candidate by name, with what is reckoned with because nothing was said.
        works: one entry per work and formats.
        notes: what a reader should know about the runs.
    """

    name: str
    output_share: float
    boxes: tuple[tuple[str, Box], ...]
    works: tuple[WorkCosts, ...]
    notes: tuple[str, ...]


def cost_report(costs: Costs, runs: Sequence[Run]) -> CostReport:
    """Price every measured case of the runs, and compare."""
    candidates = candidates_of(runs)
    powers = _powers(costs, candidates)
    by_work: dict[tuple[str, ...], list[PricedCase]] = {}
    for case in priced_cases(costs, candidates):
        by_work.setdefault(case.work, []).append(case)
    boxes = {candidate.name: box_of(costs, candidate) for candidate in candidates}
    return CostReport(
        name=costs.name,
        output_share=costs.output_share,
        boxes=tuple((name, box) for name, box in boxes.items() if isinstance(box, Box)),
        works=tuple(_work(costs, cases, boxes, powers) for cases in by_work.values()),
        notes=tuple(printable(warning) for run in runs for warning in run.warnings[:20]),
    )


def _powers(costs: Costs, candidates: Sequence[Candidate]) -> dict[tuple[str, str], float | None]:
    """Measured watts by candidate and case, where the box is priced by them."""
    found: dict[tuple[str, str], float | None] = {}
    for candidate in candidates:
        box = box_of(costs, candidate)
        for case in candidate.cases:
            if case.status == "ok" and isinstance(box, Box) and not box.lacking:
                power = power_per_start(case, box)
                found[candidate.name, case.spec.case_id] = None if isinstance(power, str) else power.value
    return found


def _work(
    costs: Costs,
    cases: Sequence[PricedCase],
    boxes: dict[str, Box | str],
    powers: dict[tuple[str, str], float | None],
) -> WorkCosts:
    priced = []
    for case in cases:
        box = boxes[case.candidate]
        if case.output.value is not None and isinstance(box, Box):
            priced.append(PricedBox(case, box, powers.get((case.candidate, case.case_id))))
    priced.sort(key=lambda entry: (entry.case.output.value or 0.0, entry.case.candidate))
    without = [case for case in cases if case.output.value is None]
    return WorkCosts(
        case=cases[0].case,
        cases=(*(entry.case for entry in priced), *without),
        distinguishable=_distinguishable(priced),
        break_even=tuple(_break_evens(priced)),
        against_api=tuple(_against(entry, api) for entry in priced for api in costs.api_prices),
        sensitivity=tuple(sensitivities(priced)),
    )


def _distinguishable(priced: Sequence[PricedBox]) -> bool | None:
    if len(priced) < 2:
        return None
    first, second = priced[0].ends, priced[1].ends
    return None if first is None or second is None else first[1] < second[0]


def _break_evens(priced: Sequence[PricedBox]) -> Iterator[BreakEven]:
    """Each box against the cheapest, and the cheapest against the next."""
    for entry in priced if len(priced) > 1 else ():
        other = priced[0] if entry is not priced[0] else priced[1]
        yield _break_even(entry, other)


def _break_even(entry: PricedBox, other: PricedBox) -> BreakEven:
    box = entry.box
    rented = box.rent_usd_per_hour is not None
    now = (box.rent_usd_per_hour if rented else box.price_usd) or 0.0
    own, target = entry.case.output.value or 0.0, other.case.output.value or 0.0
    running = entry.usd_with(with_price(box, 0.0))

    def price_for(usd: float, slower: float) -> float | None:
        # All of the cost per token grows with the time per token, the part that is not price as well.
        wanted = now * (usd / slower - running) / (own - running)
        return wanted if wanted > 0 else None

    low = high = None
    if entry.ends is not None and other.ends is not None and entry.ends[0] > 0:
        low = price_for(other.ends[0], entry.ends[1] / own)
        high = price_for(other.ends[1], entry.ends[0] / own)
    price = price_for(target, 1.0)
    theirs = other.box.rent_usd_per_hour if rented else other.box.price_usd
    return BreakEven(
        candidate=entry.case.candidate,
        against=other.case.candidate,
        kind="rent_usd_per_hour" if rented else "price_usd",
        now=now,
        price=price,
        low=low,
        high=high,
        ratio=price / theirs if price is not None and theirs else None,
    )


def _against(entry: PricedBox, api: ApiPrice) -> AgainstApi:
    case, box = entry.case, entry.box
    own, asked = case.usd_per_trial or 0.0, api_usd_per_trial(api, case.tokens)
    ratio = asked / own if own else 0.0
    ends, value = entry.ends, case.output.value or 0.0
    bounded = ends is not None and ends[0] > 0
    return AgainstApi(
        candidate=case.candidate,
        api=api.name,
        ratio=ratio,
        low=ratio * value / ends[1] if ends is not None and bounded else None,
        high=ratio * value / ends[0] if ends is not None and bounded else None,
        utilisation=_busy_enough(entry, box, asked),
    )


def _busy_enough(entry: PricedBox, box: Box, asked_usd: float) -> float | None:
    """Utilisation at which a trial costs ``asked_usd``: cost per hour is linear in it."""
    hourly = hourly_cost(box, entry.device_w)
    per_kw = (box.pue or 1.0) * (box.electricity_usd_per_kwh or 0.0) / 1000
    load = load_watts(box, entry.device_w) if box.pays_for_power else 0.0
    idle = load if box.idle_power_w is None else box.idle_power_w
    standing = hourly.capital_usd + hourly.other_usd + (idle * per_kw if box.pays_for_power else 0.0)
    extra = (load - idle) * per_kw if box.pays_for_power else 0.0
    trials_per_hour = 3600 * box.devices_per_box / (entry.case.trial_s or 1.0)
    left = asked_usd * trials_per_hour - extra
    return standing / left if left > 0 and standing <= left else None
