"""A buyer's assumptions about boxes, as the cost analysis uses them; ``cost_file`` reads them from YAML."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Method = Literal["straight_line", "annuity"]

SHARES = ("utilisation", "interest_rate_per_year")
VARIABLE = (
    "price_usd",
    "residual_value_usd",
    "depreciation_years",
    "interest_rate_per_year",
    "rent_usd_per_hour",
    "other_fixed_usd_per_year",
    "utilisation",
    "electricity_usd_per_kwh",
    "pue",
    "load_power_w",
    "idle_power_w",
    "rest_of_box_power_w",
)
"""Assumptions that are numbers and may be off, in the order in which they are shown."""
SHARED = (
    "depreciation_years",
    "interest_rate_per_year",
    "other_fixed_usd_per_year",
    "utilisation",
    "electricity_usd_per_kwh",
    "pue",
)
"""Those that may stand under ``common`` for all boxes."""


@dataclass(frozen=True)
class Box:
    """Assumptions about one box, with the common ones filled in; None where nothing was said.

    Attributes:
        name: as in the file.
        device: part of the device's name, in any case, or None.
        device_key: key of the device, or None.
        run: name of the run's folder, or None.
        price_usd: purchase price of the whole box.
        residual_value_usd: what it is still worth after ``depreciation_years``.
        depreciation_years: years over which the price is written off.
        depreciation_method: ``straight_line``, or ``annuity`` at ``interest_rate_per_year``.
        interest_rate_per_year: cost of capital, 0.08 for 8%.
        rent_usd_per_hour: instead of a price, for every hour of the year.
        rent_includes_power: whether the rent covers electricity and cooling.
        other_fixed_usd_per_year: space, support, staff.
        utilisation: share of all hours in which the box works at the measured throughput.
        electricity_usd_per_kwh: power tariff.
        pue: power of the whole site over power of its boxes.
        power: ``measured`` by the run, or ``stated`` here.
        load_power_w: stated power of the whole box under the measured load.
        idle_power_w: power of the whole box while it has nothing to do.
        rest_of_box_power_w: with measured power, what the sensor does not cover.
        devices_per_box: devices that price and stated watts cover, each working like the one measured.
        source: where the figures come from.
        ranges: lowest and highest plausible value by assumption.
        common: names of the assumptions that come from ``common``.
    """

    name: str
    device: str | None = None
    device_key: str | None = None
    run: str | None = None
    price_usd: float | None = None
    residual_value_usd: float | None = None
    depreciation_years: float | None = None
    depreciation_method: Method = "straight_line"
    interest_rate_per_year: float | None = None
    rent_usd_per_hour: float | None = None
    rent_includes_power: bool = False
    other_fixed_usd_per_year: float | None = None
    utilisation: float | None = None
    electricity_usd_per_kwh: float | None = None
    pue: float | None = None
    power: Literal["measured", "stated"] = "stated"
    load_power_w: float | None = None
    idle_power_w: float | None = None
    rest_of_box_power_w: float | None = None
    devices_per_box: int = 1
    source: str | None = None
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    common: frozenset[str] = frozenset()

    @property
    def pays_for_power(self) -> bool:
        """Whether electricity is paid beside the rent."""
        return not (self.rent_usd_per_hour is not None and self.rent_includes_power)

    @property
    def lacking(self) -> tuple[str, ...]:
        """Assumptions without which no figure is made."""
        needed = []
        if self.price_usd is None and self.rent_usd_per_hour is None:
            needed.append("price_usd or rent_usd_per_hour")
        if self.price_usd is not None and self.depreciation_years is None:
            needed.append("depreciation_years")
        if self.price_usd is not None and self.depreciation_method == "annuity":
            needed += ["interest_rate_per_year"] if self.interest_rate_per_year is None else []
        if self.utilisation is None:
            needed.append("utilisation")
        if self.pays_for_power:
            needed += ["electricity_usd_per_kwh"] if self.electricity_usd_per_kwh is None else []
            if self.power == "stated" and self.load_power_w is None:
                needed.append("load_power_w (or power: measured)")
            if self.power == "measured" and self.rest_of_box_power_w is None:
                needed.append("rest_of_box_power_w (0 when the sensor covers the whole box)")
        return tuple(needed)

    @property
    def left_out(self) -> tuple[str, ...]:
        """What is reckoned with because nothing was said."""
        said = []
        if self.price_usd is not None and self.residual_value_usd is None:
            said.append("worth nothing in the end (no residual_value_usd)")
        if self.other_fixed_usd_per_year is None:
            said.append("no other fixed cost (no other_fixed_usd_per_year)")
        if self.pays_for_power:
            said += ["no cooling (no pue)"] if self.pue is None else []
            if self.idle_power_w is None and (self.utilisation or 0) < 1:
                said.append("idle as hungry as under load (no idle_power_w)")
        if self.devices_per_box > 1:
            said.append(
                f"{self.devices_per_box} devices each as fast as the one measured, not measured together"
            )
        return tuple(said)


@dataclass(frozen=True)
class ApiPrice:
    """What a service asks for the same tokens."""

    name: str
    usd_per_million_input_tokens: float
    usd_per_million_output_tokens: float
    source: str | None = None


@dataclass(frozen=True)
class Costs:
    """A cost file.

    Attributes:
        name: of the file.
        boxes: the boxes it prices.
        output_share: share of all cost that output tokens carry; 1 puts everything on them.
        api_prices: to compare with.
    """

    name: str
    boxes: tuple[Box, ...]
    output_share: float = 1.0
    api_prices: tuple[ApiPrice, ...] = ()
