"""The files of the catalogue: what a person writes, and what it becomes in base units."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from profiler.hardware.part import Confidence, Hardware, Kind, Link, Reach, Source, Sourced
from profiler.yamlio import FileModel

SIZE: dict[str, float] = {"GB": 1e9, "GiB": 2.0**30}
RATE: dict[str, float] = {"GB/s": 1e9, "TB/s": 1e12}
OPERATIONS: dict[str, float] = {"TFLOP/s": 1e12, "TOP/s": 1e12}
POWER: dict[str, float] = {"W": 1.0}

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=80)]
Text = Annotated[str, Field(max_length=500)]
Dtype = Literal["bf16", "fp16", "fp8", "int8", "fp4", "fp32"]
UnknownField = Literal["memory", "memory_bandwidth", "flops", "tdp", "links"]


class SourceEntry(FileModel):
    """A document that numbers come from."""

    name: Text
    url: Text | None = None
    licence: Text
    date: Annotated[str, Field(pattern=r"^\d{4}(-\d{2}(-\d{2})?)?$")]


class _Figure(FileModel):
    value: float = Field(gt=0, le=1e9)
    source: str | None = None
    confidence: Literal["high", "medium", "low"] | None = None
    note: Text = ""


class SizeFigure(_Figure):
    """Bytes."""

    unit: Literal["GB", "GiB"]


class RateFigure(_Figure):
    """Bytes per second."""

    unit: Literal["GB/s", "TB/s"]


class OperationsFigure(_Figure):
    """Operations per second of dense matrix products."""

    unit: Literal["TFLOP/s", "TOP/s"]


class PowerFigure(_Figure):
    """Watts."""

    unit: Literal["W"]


class LinkEntry(FileModel):
    """A link; the rate is that of one device, both directions together."""

    name: Text
    reach: Reach
    both_directions: RateFigure


class PartEntry(FileModel):
    """One accelerator. A field that is missing needs its reason under ``unknown``."""

    name: Name
    title: Text
    vendor: Text
    kind: Kind
    aliases: tuple[Name, ...] = ()
    driver_names: tuple[Text, ...] = ()
    source: str
    confidence: Literal["high", "medium", "low"]
    datasheet: Text | None = None
    memory: SizeFigure | None = None
    memory_bandwidth: RateFigure | None = None
    flops: dict[Dtype, OperationsFigure] = Field(default_factory=dict)
    lacks: dict[Dtype, Text] = Field(default_factory=dict)
    tdp: PowerFigure | None = None
    links: tuple[LinkEntry, ...] = ()
    unknown: dict[UnknownField, Text] = Field(default_factory=dict)
    export: Text = ""
    notes: Text = ""

    @model_validator(mode="after")
    def _figure_or_reason(self) -> Self:
        for name in ("memory", "memory_bandwidth", "flops", "tdp", "links"):
            if bool(getattr(self, name)) == (name in self.unknown):
                raise ValueError(f"give either {name} or unknown.{name} with the reason")
        both = sorted(set(self.flops) & set(self.lacks))
        if both:
            raise ValueError(f"{both[0]} stands under flops and under lacks")
        return self

    def figures(self) -> list[_Figure]:
        """All figures, for checking that their sources exist."""
        single = [self.memory, self.memory_bandwidth, self.tdp]
        return [
            *(figure for figure in single if figure is not None),
            *self.flops.values(),
            *(link.both_directions for link in self.links),
        ]


class HardwareFile(FileModel):
    """One file of the catalogue, or a user's own."""

    sources: dict[str, SourceEntry]
    parts: tuple[PartEntry, ...]

    @model_validator(mode="after")
    def _sources_exist(self) -> Self:
        for part in self.parts:
            for name in (part.source, *(figure.source for figure in part.figures())):
                if name is not None and name not in self.sources:
                    raise ValueError(
                        f"part {part.name} names the source '{name}', which is not under sources"
                    )
        return self

    def hardware(self, shipped: bool) -> list[Hardware]:
        """Return the parts in base units."""
        sources = {
            key: Source(entry.name, entry.url, entry.licence, entry.date)
            for key, entry in self.sources.items()
        }
        return [_hardware(part, sources, shipped) for part in self.parts]


def _hardware(part: PartEntry, sources: dict[str, Source], shipped: bool) -> Hardware:
    def sourced(figure: _Figure | None, unit: str, scales: dict[str, float]) -> Sourced | None:
        if figure is None:
            return None
        scale = scales[figure.unit]  # type: ignore[attr-defined]
        confidence: Confidence = figure.confidence or part.confidence
        origin = sources[figure.source or part.source]
        return Sourced(figure.value * scale, unit, origin, confidence, figure.note)

    def certain(figure: _Figure, unit: str, scales: dict[str, float]) -> Sourced:
        value = sourced(figure, unit, scales)
        assert value is not None
        return value

    return Hardware(
        name=part.name,
        title=part.title,
        vendor=part.vendor,
        kind=part.kind,
        aliases=part.aliases,
        driver_names=part.driver_names,
        memory_bytes=sourced(part.memory, "bytes", SIZE),
        memory_bandwidth_bytes_per_s=sourced(part.memory_bandwidth, "bytes/s", RATE),
        flops={str(dtype): certain(figure, "FLOP/s", OPERATIONS) for dtype, figure in part.flops.items()},
        lacks={str(dtype): reason for dtype, reason in part.lacks.items()},
        tdp_w=sourced(part.tdp, "W", POWER),
        links=tuple(
            Link(link.name, link.reach, certain(link.both_directions, "bytes/s", RATE)) for link in part.links
        ),
        unknown={str(name): reason for name, reason in part.unknown.items()},
        export=part.export,
        datasheet=part.datasheet,
        notes=part.notes,
        shipped=shipped,
    )
