"""Every figure of a case from its starts: the one way, for measuring and for checking a record."""

from __future__ import annotations

from collections.abc import Sequence

from profiler.measure.context import MeasuredStart
from profiler.measure.roofline import roofline
from profiler.measure.soak import sustained_ratio
from profiler.measure.summary import measurements
from profiler.results.schema import CaseSpec, Ceiling, Measurement, Work


def figures_of(
    spec: CaseSpec,
    work: Work,
    used: Sequence[MeasuredStart],
    ceilings: Sequence[Ceiling],
    soak_s: float | None,
) -> tuple[dict[str, Measurement], dict[str, str]]:
    """Return the measurements of a case, and by phase the ceiling that binds it.

    Args:
        spec: the case.
        work: what a trial of it has to compute and move.
        used: the starts that count, at least one.
        ceilings: of the run.
        soak_s: how long the case was held, or None.
    """
    measured = measurements(spec, used)
    near, binding = roofline(spec, work, used, ceilings)
    measured |= near
    if soak_s is not None:
        measured["sustained_ratio"] = sustained_ratio(used[0].measured(lambda trial: trial.e2e_s))
    return measured, binding
