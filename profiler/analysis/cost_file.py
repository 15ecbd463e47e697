"""What a cost file may say: a buyer's assumptions, each with its unit in its name.

Nothing has a default that makes a box look cheaper without being named: what was left out and what is
reckoned with instead is listed by :attr:`profiler.analysis.cost_types.Box.left_out` and shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from profiler.analysis.cost_types import SHARED, SHARES, VARIABLE, ApiPrice, Box, Costs, Method
from profiler.yamlio import FileModel, load_yaml

Line = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^\S[^\n]*$")]
Money = Annotated[float, Field(ge=0, le=1e12)]
Watts = Annotated[float, Field(ge=0, le=1e9)]


class _Shared(FileModel):
    """Assumptions that may be the same for all boxes."""

    depreciation_years: Annotated[float, Field(gt=0, le=100)] | None = None
    depreciation_method: Method | None = None
    interest_rate_per_year: Annotated[float, Field(gt=0, le=1)] | None = None
    other_fixed_usd_per_year: Money | None = None
    utilisation: Annotated[float, Field(gt=0, le=1)] | None = None
    utilisation_reason: Line | None = None
    electricity_usd_per_kwh: Annotated[float, Field(ge=0, le=1000)] | None = None
    pue: Annotated[float, Field(ge=1, le=10)] | None = None
    ranges: dict[str, tuple[float, float]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _busy_all_year_needs_a_reason(self) -> Self:
        if self.utilisation == 1 and self.utilisation_reason is None:
            raise ValueError(
                "utilisation: 1 means at work in every hour of the year; write the share you expect, "
                "or say why in utilisation_reason"
            )
        allowed = [name for name in VARIABLE if name in type(self).model_fields]
        for name, (low, high) in self.ranges.items():
            if name not in allowed:
                raise ValueError(f"ranges: '{name}' is none of {', '.join(allowed)}")
            if getattr(self, name) is None:
                raise ValueError(f"ranges: {name} has a range and no value")
            if not 0 <= low <= getattr(self, name) <= high <= 1e12:
                raise ValueError(f"ranges: {name} must be [low, high] around {getattr(self, name):g}")
            if high > 1 and name in SHARES:
                raise ValueError(f"ranges: {name} is a share and at most 1, not {high:g}")
            if name in ("pue", "depreciation_years", "utilisation") and low < (1 if name == "pue" else 1e-3):
                raise ValueError(f"ranges: {name} cannot be as low as {low:g}")
        return self


class _Match(FileModel):
    device: Line | None = None
    device_key: Line | None = None
    run: Line | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not (self.device or self.device_key or self.run):
            raise ValueError("give device (part of its name), device_key or run")
        return self


class _BoxFile(_Shared):
    name: Line
    match: _Match
    price_usd: Annotated[float, Field(gt=0, le=1e12)] | None = None
    residual_value_usd: Money | None = None
    rent_usd_per_hour: Annotated[float, Field(gt=0, le=1e9)] | None = None
    rent_includes_power: bool = False
    power: Literal["measured", "stated"] | None = None
    load_power_w: Annotated[float, Field(gt=0, le=1e9)] | None = None
    idle_power_w: Watts | None = None
    rest_of_box_power_w: Watts | None = None
    devices_per_box: Annotated[int, Field(ge=1, le=100_000)] = 1
    source: Line | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.price_usd is not None and self.rent_usd_per_hour is not None:
            raise ValueError("give either price_usd or rent_usd_per_hour, not both")
        if self.rent_includes_power and self.rent_usd_per_hour is None:
            raise ValueError("rent_includes_power goes with rent_usd_per_hour")
        if self.residual_value_usd is not None and self.residual_value_usd > (self.price_usd or 0):
            raise ValueError("residual_value_usd is more than price_usd")
        if self.power == "measured" and self.load_power_w is not None:
            raise ValueError("load_power_w is not used with power: measured; remove one of them")
        if self.power != "measured" and self.rest_of_box_power_w is not None:
            raise ValueError("rest_of_box_power_w goes with power: measured; load_power_w is the whole box")
        return self


class _Attribution(FileModel):
    method: Literal["all_on_output", "stated_split"]
    output_share: Annotated[float, Field(gt=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _share_where_it_belongs(self) -> Self:
        if (self.method == "stated_split") != (self.output_share is not None):
            raise ValueError("output_share goes with method: stated_split, and must be there for it")
        return self


class _Api(FileModel):
    name: Line
    usd_per_million_input_tokens: Money
    usd_per_million_output_tokens: Money
    source: Line | None = None


class CostFile(FileModel):
    """A cost file as it stands on disk."""

    costs: Literal[1]
    name: Line
    attribution: _Attribution = _Attribution(method="all_on_output")
    common: _Shared = _Shared()
    boxes: Annotated[tuple[_BoxFile, ...], Field(max_length=200)]
    api_prices: Annotated[tuple[_Api, ...], Field(max_length=50)] = ()

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        if not self.boxes:
            raise ValueError("boxes must have at least one entry")
        names = [box.name for box in self.boxes] + [api.name for api in self.api_prices]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"'{twice[0]}' is there twice; give every box and API its own name")
        return self


def load_costs(path: Path) -> Costs:
    """Read a cost file.

    Raises:
        InputFileError: with every fault, each with its line.
    """
    given = load_yaml(path, CostFile)
    return Costs(
        name=given.name,
        boxes=tuple(_box(box, given.common) for box in given.boxes),
        output_share=given.attribution.output_share or 1.0,
        api_prices=tuple(ApiPrice(**api.model_dump()) for api in given.api_prices),
    )


def _box(given: _BoxFile, common: _Shared) -> Box:
    own = given.model_dump(exclude_none=True, exclude={"match", "utilisation_reason", "ranges"})
    shared = common.model_dump(exclude_none=True, exclude={"utilisation_reason", "ranges"})
    taken = {name: value for name, value in shared.items() if name not in own}
    shared_ranges = {name: ends for name, ends in common.ranges.items() if name in taken}
    # Watts are a property of the box: unless said otherwise they are stated, if they were, else measured.
    own.setdefault("power", "measured" if given.rest_of_box_power_w is not None else "stated")
    return Box(
        **given.match.model_dump(),
        **own,
        **taken,
        ranges=shared_ranges | given.ranges,
        common=frozenset(taken) & frozenset(SHARED),
    )
