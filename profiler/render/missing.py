"""What a run could not measure, and why."""

from __future__ import annotations

from collections.abc import Iterable

from profiler.results.schema import CaseRecord


def missing_in(cases: Iterable[CaseRecord]) -> tuple[tuple[str, str], ...]:
    """Return what could not be measured in any case, those with the same reason together."""
    reasons: dict[str, dict[str, None]] = {}
    measured: set[str] = set()
    for case in cases:
        for name, measurement in case.measurements.items():
            if measurement.value is None:
                reasons.setdefault(name, {})[measurement.reason or ""] = None
            else:
                measured.add(name)
    together: dict[str, list[str]] = {}
    for name, texts in reasons.items():
        if name not in measured:
            together.setdefault("; ".join(texts), []).append(name)
    return tuple((", ".join(names), reason) for reason, names in together.items())
