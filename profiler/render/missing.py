"""What a run could not measure, and why."""

from __future__ import annotations

from collections.abc import Iterable

from profiler.results.schema import CaseRecord


def missing_in(cases: Iterable[CaseRecord]) -> list[tuple[str, tuple[str, ...]]]:
    """Return (names of metrics, reasons) of what no case has, those with the same reasons together."""
    reasons: dict[str, dict[str, None]] = {}
    measured: set[str] = set()
    for case in cases:
        for name, measurement in case.measurements.items():
            if measurement.value is None:
                reasons.setdefault(name, {})[measurement.reason or ""] = None
            else:
                measured.add(name)
    together: dict[tuple[str, ...], list[str]] = {}
    for name, texts in reasons.items():
        if name not in measured:
            together.setdefault(tuple(texts), []).append(name)
    return [(", ".join(names), found) for found, names in together.items()]
