"""Watts from how busy the device is. Measured watts exist for few devices, so no accuracy is claimed."""

from __future__ import annotations

from profiler.analysis.predict.serving import Steps
from profiler.analysis.predict.terms import COLUMNS, Array, step_seconds


def busy(steps: Steps, factors: Array, output: float) -> tuple[float, float]:
    """Shares of the time that memory and matrix units would be busy at their peaks, 0 to 1.

    Over one life of a sequence: a prefill, and ``output`` decode steps shared with the other sequences.
    """
    columns = factors[: len(COLUMNS)]
    turn = output / steps.running
    total = float(step_seconds(steps.prefill, columns)) + turn * float(step_seconds(steps.decode, columns))

    def share(*names: str) -> float:
        places = [COLUMNS.index(name) for name in names]
        nominal = float(steps.prefill[places].sum() + turn * steps.decode[places].sum())
        return min(nominal / total, 1.0)

    return share("weights", "cache"), share("multiply", "scores")
