"""The price of a million tokens: what an hour of the box costs over what it produces in that hour.

    usd_per_hour  = (capital + other fixed) per year / 8760 h + watts / 1000 * pue * tariff
    watts         = utilisation * load + (1 - utilisation) * idle
    tokens_per_h  = utilisation * 3600 * devices_per_box * B * n / e2e_s

Capital per year is ``(price - residual) / years`` (straight line), or the annuity
``(price - residual / (1+i)^years) * i / (1 - (1+i)^-years)`` (capital recovery factor, e.g. Brealey, Myers,
Allen, Principles of Corporate Finance, chapter 6). Cost per token is linear in the time per trial, so it
has one value per start and an interval like every other figure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from profiler.analysis.candidates import Candidate
from profiler.analysis.cost_types import ApiPrice, Box, Costs
from profiler.analysis.decision import mean_and_deviation
from profiler.analysis.evidence import CaseEvidence
from profiler.analysis.figures import Figure, figure_of

HOURS_PER_YEAR = 8760.0
MILLION = 1e6


@dataclass(frozen=True)
class HourlyCost:
    """What one hour of the year costs, at work or not.

    Attributes:
        capital_usd: depreciation or rent.
        other_usd: other fixed cost.
        energy_usd: electricity, cooling included.
        load_w: power of the whole box at work; None when the rent covers power.
    """

    capital_usd: float
    other_usd: float
    energy_usd: float
    load_w: float | None

    @property
    def total_usd(self) -> float:
        """All of it."""
        return self.capital_usd + self.other_usd + self.energy_usd


def box_of(costs: Costs, candidate: Candidate) -> Box | str:
    """Return the box of the file that a candidate is, or why none or several could be meant."""
    fitting = [box for box in costs.boxes if _matches(box, candidate)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(box.name for box in fitting)
        return f"several boxes of the cost file match it ({names}); make their match narrower"
    return "no box of the cost file matches it"


def _matches(box: Box, candidate: Candidate) -> bool:
    return (
        (box.device is None or box.device.lower() in candidate.device.name.lower())
        and (box.device_key is None or box.device_key.lower() == candidate.device.key.lower())
        and (box.run is None or box.run in candidate.runs)
    )


def capital_usd_per_year(box: Box) -> float:
    """Return depreciation per year (see the module); 0 for a rented box.

    Raises:
        ValueError: the box has a price and no ``depreciation_years``.
    """
    if box.price_usd is None:
        return 0.0
    years, residual = box.depreciation_years, box.residual_value_usd or 0.0
    if years is None:
        raise ValueError("depreciation_years is missing")
    if box.depreciation_method == "straight_line":
        return (box.price_usd - residual) / years
    rate = box.interest_rate_per_year or 0.0
    growth = math.pow(1 + rate, years)
    return (box.price_usd - residual / growth) * rate / (1 - 1 / growth)


def hourly_cost(box: Box, measured_device_w: float | None) -> HourlyCost:
    """Return what an hour costs.

    Args:
        box: assumptions, none of them lacking.
        measured_device_w: mean power of one device under load, for ``power: measured``.
    """
    rent = box.rent_usd_per_hour or 0.0
    capital = rent + capital_usd_per_year(box) / HOURS_PER_YEAR
    other = (box.other_fixed_usd_per_year or 0.0) / HOURS_PER_YEAR
    if not box.pays_for_power:
        return HourlyCost(capital, other, 0.0, None)
    load = load_watts(box, measured_device_w)
    idle = load if box.idle_power_w is None else box.idle_power_w
    busy = box.utilisation or 0.0
    watts = busy * load + (1 - busy) * idle
    energy = watts / 1000 * (box.pue or 1.0) * (box.electricity_usd_per_kwh or 0.0)
    return HourlyCost(capital, other, energy, load)


def load_watts(box: Box, measured_device_w: float | None) -> float:
    """Return the power of the whole box at work.

    Raises:
        ValueError: it is neither stated nor measured.
    """
    if box.power == "stated" and box.load_power_w is not None:
        return box.load_power_w
    if box.power == "measured" and measured_device_w is not None:
        return measured_device_w * box.devices_per_box + (box.rest_of_box_power_w or 0.0)
    raise ValueError("the power of the box is neither stated nor measured")


def usd_per_second_at_work(box: Box, measured_device_w: float | None) -> float:
    """Return the cost of one second in which one device works; idle hours are paid by the busy ones."""
    return hourly_cost(box, measured_device_w).total_usd / (
        3600 * (box.utilisation or 0.0) * box.devices_per_box
    )


def cost_figure(name: str, case: CaseEvidence, box: Box | str, output_share: float) -> Figure:
    """Return ``usd_per_million_output_tokens`` or ``usd_per_million_input_tokens`` of a case.

    Args:
        name: the metric.
        case: a case with status ``ok``.
        box: its assumptions, or why there are none.
        output_share: share of the cost that output tokens carry.
    """
    if isinstance(box, str):
        return Figure.missing(box)
    if box.lacking:
        return Figure.missing(f"no price without {', '.join(box.lacking)} of box '{box.name}'")
    if case.refuted is not None:
        return Figure.missing(f"no price: the engine computes something else ({case.refuted})")
    on_output = name == "usd_per_million_output_tokens"
    if not on_output and output_share == 1:
        return Figure.missing("all cost is on output tokens; a stated_split would put a part on input")
    tokens = case.spec.batch * (case.spec.output_tokens if on_output else case.spec.prompt_tokens)
    share = output_share if on_output else 1 - output_share
    speed = figure_of("output_tokens_per_s", case)
    if speed.value is None:
        return speed
    try:
        return _priced(case, box, speed, share * MILLION / tokens)
    except (ValueError, OverflowError, ZeroDivisionError) as error:
        return Figure.missing(f"no price: {error}")


def _priced(case: CaseEvidence, box: Box, speed: Figure, factor: float) -> Figure:
    """Return the cost of a trial's seconds times ``factor``, one value per start."""
    watts = power_per_start(case, box)
    if isinstance(watts, str):
        return Figure.missing(watts)
    # A power that is only known for all starts together is taken for each of them.
    each = len(watts.per_start) == len(speed.per_start)
    powers = watts.per_start if each else (watts.value,) * len(speed.per_start)
    values = tuple(
        factor * seconds * usd_per_second_at_work(box, power)
        for seconds, power in zip(speed.per_start, powers, strict=True)
    )
    value, _ = mean_and_deviation(values)
    if not all(math.isfinite(usd) for usd in values):
        return Figure.missing("the figures are too large to be true")
    interval = None
    if speed.recorded_95 is not None and speed.value and min(speed.recorded_95) > 0:
        low, high = speed.recorded_95
        interval = (value * speed.value / high, value * speed.value / low)
    return Figure(speed.basis, value, values, None, interval, starts=speed.starts, note=watts.note)


def power_per_start(case: CaseEvidence, box: Box) -> Figure | str:
    """Return the measured power of the device, or that none is needed, or why there is none."""
    if not box.pays_for_power:
        return Figure("exact", None, note="power is in the rent")
    if box.power == "stated":
        return Figure("exact", None, note="watts as stated, without an interval")
    power = figure_of("power_mean_w", case)
    if power.value is None:
        return (
            f"power was not measured ({power.reason}); state load_power_w of the whole box in place of "
            "power: measured"
        )
    spread = "a value per start" if power.basis == "starts" else "one value, its spread unknown"
    return replace(power, note=f"watts measured ({power.note or 'cover not stated'}; {spread})")


@dataclass(frozen=True)
class PricedCase:
    """What a case costs on one box.

    Attributes:
        candidate: name of the candidate.
        box: name of its box in the file, or None when none matches.
        case: label of the case.
        case_id: its id.
        work: what cases must share to be set against each other: work and formats.
        output_tokens_per_s: throughput that the price rests on.
        output: figure for ``usd_per_million_output_tokens``.
        input: figure for ``usd_per_million_input_tokens``.
        hourly: what an hour costs, or None.
        trial_s: mean time of a trial.
        tokens: prompt and output tokens of a trial.
        labels: ``simulated``, ``one start`` and the flags of the case.
    """

    candidate: str
    box: str | None
    case: str
    case_id: str
    work: tuple[str, str, str, str, str]
    output_tokens_per_s: Figure
    output: Figure
    input: Figure
    hourly: HourlyCost | None
    trial_s: float | None
    tokens: tuple[int, int]
    labels: tuple[str, ...]

    @property
    def output_tokens_per_usd(self) -> float | None:
        """Output tokens for a dollar of the whole cost, together with the prompts they came with."""
        usd = self.usd_per_trial
        return None if not usd else self.tokens[1] / usd

    @property
    def usd_per_trial(self) -> float | None:
        """Whole cost of one trial, input and output."""
        if self.output.value is None:
            return None
        on_input = (self.input.value or 0.0) * self.tokens[0]
        return (self.output.value * self.tokens[1] + on_input) / MILLION


def priced_cases(costs: Costs, candidates: Sequence[Candidate]) -> tuple[PricedCase, ...]:
    """Return the cost of every measured case of every candidate, those without a price too."""
    found = []
    for candidate in candidates:
        box = box_of(costs, candidate)
        found += [_price(costs, candidate, box, case) for case in candidate.cases if case.status == "ok"]
    return tuple(found)


def _price(costs: Costs, candidate: Candidate, box: Box | str, case: CaseEvidence) -> PricedCase:
    spec = case.spec
    speed = figure_of("output_tokens_per_s", case)
    output = cost_figure("usd_per_million_output_tokens", case, box, costs.output_share)
    hourly = None
    if output.value is not None and isinstance(box, Box):
        power = power_per_start(case, box)
        hourly = hourly_cost(box, None if isinstance(power, str) else power.value)
    tokens = (spec.batch * spec.prompt_tokens, spec.batch * spec.output_tokens)
    labels = ["simulated"] if case.simulated else []
    labels += ["one start"] if speed.starts == 1 else []
    labels += [code for code in case.flags if code not in ("simulated", "one_start")]
    labels += ["edited after it was written"] if case.tampered else []
    return PricedCase(
        candidate=candidate.name,
        box=box.name if isinstance(box, Box) else None,
        case=case.label,
        case_id=spec.case_id,
        work=(spec.workload_id, spec.weights, *_formats(case)),
        output_tokens_per_s=speed,
        output=output,
        input=cost_figure("usd_per_million_input_tokens", case, box, costs.output_share),
        hourly=hourly,
        trial_s=tokens[1] / speed.value if speed.value else None,
        tokens=tokens,
        labels=tuple(labels),
    )


def _formats(case: CaseEvidence) -> tuple[str, str, str]:
    formats = case.spec.formats
    return formats.weight_format, formats.compute_dtype, formats.kv_dtype


def api_usd_per_trial(api: ApiPrice, tokens: tuple[int, int]) -> float:
    """Return what a service asks for the tokens of a trial, prompt and output."""
    return (
        api.usd_per_million_input_tokens * tokens[0] + api.usd_per_million_output_tokens * tokens[1]
    ) / MILLION


def with_price(box: Box, price_usd: float) -> Box:
    """Return the box at another price (or rent); the residual value stays the same share of it."""
    if box.rent_usd_per_hour is not None:
        return replace(box, rent_usd_per_hour=price_usd)
    share = (box.residual_value_usd or 0.0) / (box.price_usd or 1.0)
    return replace(box, price_usd=price_usd, residual_value_usd=share * price_usd)
