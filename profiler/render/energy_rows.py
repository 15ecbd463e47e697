"""What the energies of a case are for a terminal: per token in each phase, and power."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from profiler.results.schema import CaseRecord, Measurement

ENERGY_COLUMNS: Final = (
    ("energy_per_output_token_j", "output\nJ/token"),
    ("prefill_energy_per_token_j", "prefill\nJ/token"),
    ("decode_energy_per_token_j", "decode\nJ/token"),
    ("power_mean_w", "mean\nW"),
    ("idle_power_w", "idle\nW"),
)
"""Figures of the device's own meter, with their headings."""


def with_energy(cases: Iterable[CaseRecord]) -> list[CaseRecord]:
    """Return the cases of which any of the figures is known."""
    return [case for case in cases if any(one.value is not None for one in energy_figures(case))]


def energy_figures(case: CaseRecord) -> list[Measurement]:
    """Return the figures in the order of the columns; those that a case does not have are missing."""
    nothing = Measurement.missing("J", "not measured in this case")
    return [case.measurements.get(name, nothing) for name, _ in ENERGY_COLUMNS]


def energy_scope(case: CaseRecord) -> str:
    """Return what the device's own meter covers."""
    return next((one.scope for one in energy_figures(case) if one.value is not None), "")
