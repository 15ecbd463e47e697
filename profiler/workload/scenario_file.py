"""What a scenario file may say, and its way into :class:`profiler.workload.scenario.Scenario`."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from profiler.workload.arrivals import Arrivals, check_cv
from profiler.workload.lengths import Quantiles
from profiler.workload.scenario import Scenario, Served, Source
from profiler.yamlio import FileModel, load_yaml

LONGEST = 10_000_000
"""No model reads or writes more tokens than this in one request."""

Tokens = Annotated[int, Field(ge=1, le=LONGEST)]
Text = Annotated[str, Field(min_length=1, pattern=r"\S")]
Line = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^\S[^\n]*$")]
Percentile = Annotated[str, Field(pattern=r"^p[0-9]{1,2}(\.[0-9]{1,3})?$")]


class OfflineFile(FileModel):
    """Fixed lengths of every request."""

    prompt_tokens: Tokens
    output_tokens: Tokens
    basis: Literal["median", "mean", "defined"]
    batches: tuple[Annotated[int, Field(ge=1, le=65536)], ...] = ()


class QuickFile(FileModel):
    """The variant for a first look."""

    fraction: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,3}/[1-9][0-9]{0,3}$")]
    purpose: Text

    @field_validator("fraction")
    @classmethod
    def _at_most_the_whole(cls, fraction: str) -> str:
        if Fraction(fraction) > 1:
            raise ValueError(f"must be at most 1/1, not {fraction}")
        return fraction


class LengthsFile(FileModel):
    """A published distribution of lengths."""

    mean: Annotated[float, Field(gt=0)] | None = None
    quantiles: Annotated[dict[Percentile, Tokens], Field(min_length=1)]

    @field_validator("quantiles")
    @classmethod
    def _in_order(cls, quantiles: dict[str, int]) -> dict[str, int]:
        _quantiles(quantiles, None)
        return quantiles

    def filled(self) -> Quantiles:
        """Return the distribution."""
        return _quantiles(self.quantiles, self.mean)


class CorrelationFile(FileModel):
    """How prompt and output lengths go together in the trace."""

    pearson: Annotated[float, Field(ge=-1, le=1)] | None
    note: Text


class ArrivalsFile(FileModel):
    """How requests arrive."""

    process: Literal["constant", "poisson", "gamma"]
    cv: Annotated[float, Field(ge=0)]
    measured_cv: Annotated[float, Field(ge=0)] | None
    rate_per_s: Annotated[float, Field(gt=0)] | None
    source: Text

    @model_validator(mode="after")
    def _cv_fits(self) -> Self:
        check_cv(self.process, self.cv)
        return self


class ServedFile(FileModel):
    """The scenario as a service sees it."""

    prompt_tokens: LengthsFile
    output_tokens: LengthsFile
    correlation: CorrelationFile
    arrivals: ArrivalsFile


class SourceFile(FileModel):
    """Where the numbers come from."""

    name: Text
    url: Annotated[str, Field(pattern=r"^https?://\S+$")]
    licence: Text
    citation: Text


class ScenarioFile(FileModel):
    """One scenario file."""

    name: Annotated[str, Field(max_length=40, pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    version: Annotated[int, Field(ge=1)]
    description: Line
    notes: str = ""
    offline: OfflineFile
    quick: QuickFile
    served: ServedFile | None = None
    offline_only: Text | None = None
    source: SourceFile

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.served is None) == (self.offline_only is None):
            raise ValueError("give either served, or offline_only with the reason why it is never served")
        if self.offline.basis == "median" and self.served is not None:
            for part in ("prompt_tokens", "output_tokens"):
                median = getattr(self.served, part).quantiles.get("p50")
                if median != getattr(self.offline, part):
                    raise ValueError(
                        f"offline.{part} must be served.{part}.quantiles.p50 ({median}), as basis is median"
                    )
        return self


def read_scenario(path: Path) -> Scenario:
    """Read one scenario file.

    Raises:
        InputFileError: with every fault.
    """
    given = load_yaml(path, ScenarioFile)
    return Scenario(
        name=given.name,
        version=given.version,
        description=given.description,
        notes=given.notes.strip(),
        prompt_tokens=given.offline.prompt_tokens,
        output_tokens=given.offline.output_tokens,
        basis=given.offline.basis,
        batches=given.offline.batches,
        quick_fraction=Fraction(given.quick.fraction),
        quick_purpose=given.quick.purpose,
        served=None if given.served is None else _served(given.served),
        offline_only=given.offline_only,
        source=Source(**given.source.model_dump()),
    )


def _served(given: ServedFile) -> Served:
    return Served(
        prompt_tokens=given.prompt_tokens.filled(),
        output_tokens=given.output_tokens.filled(),
        correlation=given.correlation.pearson,
        correlation_note=given.correlation.note,
        arrivals=Arrivals(**given.arrivals.model_dump()),
    )


def _quantiles(by_percentile: dict[str, int], mean: float | None) -> Quantiles:
    levels = tuple(float(Fraction(name[1:]) / 100) for name in by_percentile)
    return Quantiles(levels, tuple(by_percentile.values()), mean)
