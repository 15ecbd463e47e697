"""Scenarios: standard generation workloads, one YAML file each in ``scenarios/``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

from profiler.data import data_root
from profiler.errors import InputFileError, UsageError, unknown
from profiler.workload.arrivals import Arrivals
from profiler.workload.lengths import Quantiles

Variant = Literal["full", "quick"]
Basis = Literal["median", "mean", "defined"]


@dataclass(frozen=True)
class Source:
    """Where a scenario's numbers come from.

    Attributes:
        name: of the trace.
        url: of the very file, at a fixed commit where there is one.
        licence: SPDX name, or why none is needed.
        citation: the publication to cite.
    """

    name: str
    url: str
    licence: str
    citation: str


@dataclass(frozen=True)
class Served:
    """The scenario as a service sees it.

    Attributes:
        prompt_tokens: published distribution of prompt lengths.
        output_tokens: published distribution of output lengths.
        correlation: Pearson correlation of the two in the trace, or None when it cannot be told.
        correlation_note: what that means, as lengths are drawn independently.
        arrivals: how requests arrive.
    """

    prompt_tokens: Quantiles
    output_tokens: Quantiles
    correlation: float | None
    correlation_note: str
    arrivals: Arrivals


@dataclass(frozen=True)
class Scenario:
    """One standard workload.

    Attributes:
        name: as in ``--scenario``.
        version: raised whenever its numbers change.
        description: one line: what it stands for.
        notes: what else a reader should know, or an empty string.
        prompt_tokens: offline prompt length of every request.
        output_tokens: tokens generated for every request offline.
        basis: how the two follow from the source: its medians, its means, or by definition.
        batches: batch sizes that belong to the scenario; empty when any will do.
        quick_fraction: share of the lengths in the quick variant.
        quick_purpose: why that share.
        served: distributions and arrivals, or None when it is never served.
        offline_only: why it is never served, or None when it is.
        source: where the numbers come from.
    """

    name: str
    version: int
    description: str
    notes: str
    prompt_tokens: int
    output_tokens: int
    basis: Basis
    batches: tuple[int, ...]
    quick_fraction: Fraction
    quick_purpose: str
    served: Served | None
    offline_only: str | None
    source: Source

    def point(self, variant: Variant, batch: int) -> ScenarioPoint:
        """Return the offline point of ``variant`` at ``batch`` requests.

        A quick length is the fraction of the full one, rounded half up, at least 1.

        Raises:
            UsageError: ``batch`` is below 1.
        """
        if batch < 1:
            raise UsageError(f"batch must be at least 1, not {batch}")
        share = Fraction(1) if variant == "full" else self.quick_fraction
        return ScenarioPoint(
            scenario=self,
            variant=variant,
            prompt_tokens=_share(self.prompt_tokens, share),
            output_tokens=_share(self.output_tokens, share),
            batch=batch,
        )


@dataclass(frozen=True)
class ScenarioPoint:
    """A scenario at fixed lengths and batch size: what one offline case runs.

    Attributes:
        scenario: whose point it is.
        variant: ``full``, or ``quick`` with a fraction of the lengths.
        prompt_tokens: prompt length of each request.
        output_tokens: tokens generated for each request.
        batch: requests that run together.
    """

    scenario: Scenario
    variant: Variant
    prompt_tokens: int
    output_tokens: int
    batch: int


def scenarios() -> dict[str, Scenario]:
    """Return the shipped scenarios by name.

    Raises:
        InputFileError: with the faults of all files that are not what they should be.
    """
    found: dict[str, Scenario] = {}
    faults: list[str] = []
    for name, path in _shipped().items():
        try:
            found[name] = load_scenario(path)
        except InputFileError as error:
            faults += error.faults
    if faults:
        raise InputFileError(faults)
    return found


def find_scenario(name_or_path: str) -> Scenario:
    """Return a shipped scenario by name, or the user's own from a YAML file.

    Whatever has a folder separator or ends in ``.yaml`` or ``.yml`` is a file; all else is a name.

    Raises:
        UsageError: no scenario has this name.
        InputFileError: the file is not a scenario.
    """
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        return load_scenario(Path(name_or_path))
    shipped = _shipped()
    if name_or_path not in shipped:
        hint = f"; to use the file, write './{name_or_path}'" if Path(name_or_path).is_file() else ""
        raise UsageError(unknown("scenario", name_or_path, shipped) + hint)
    return load_scenario(shipped[name_or_path])


def load_scenario(path: Path) -> Scenario:
    """Read one scenario file.

    Raises:
        InputFileError: with every fault; also when a user's file takes a shipped scenario's name,
            because results are told apart by name.
    """
    from profiler.workload.scenario_file import read_scenario  # pydantic is slow to import

    scenario = read_scenario(path)
    shipped = _shipped().get(scenario.name)
    if shipped is not None and shipped.resolve() != path.resolve():
        raise InputFileError(
            [f"{path}: name: '{scenario.name}' is a scenario that comes with aiprof; choose another name"]
        )
    return scenario


def _shipped() -> dict[str, Path]:
    return {path.stem: path for path in sorted(data_root("scenarios").glob("*.yaml"))}


def _share(tokens: int, share: Fraction) -> int:
    # Exact arithmetic: round() would send halves to the even neighbour, and floats could miss a half.
    return max(1, math.floor(tokens * share + Fraction(1, 2)))
