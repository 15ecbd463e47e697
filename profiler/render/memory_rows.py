"""What each observer saw of a case's memory, beside what was predicted of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from profiler.results.schema import CaseRecord, Measurement

# metric -> (words, field of the prediction that stands beside it)
_ROWS: Final[tuple[tuple[str, str, str | None], ...]] = (
    ("weights_bytes", "weights", "weights_bytes"),
    ("weight_copies_bytes", "copies of weights", None),
    ("kv_cache_bytes", "key-value cache", "kv_cache_bytes"),
    ("peak_engine_bytes", "engine, peak", "needed_bytes"),
    ("max_sampled_device_bytes", "device, most sampled", "needed_bytes"),
    ("peak_process_bytes", "process, peak", None),
    ("max_sampled_host_bytes", "host, most sampled", None),
    ("kv_capacity_tokens", "tokens that would fit", "kv_capacity_tokens"),
    ("max_users_at_context", "users at this length", "max_users_at_context"),
)
_CPU_PREDICTS: Final = {"peak_process_bytes": "needed_bytes"}
"""On a CPU the worker's process holds the model."""


@dataclass(frozen=True)
class MemoryRow:
    """One quantity.

    Attributes:
        name: of the metric.
        words: what it is, for a person.
        measured: with its source as ``method``, or why it is missing.
        predicted: before the case ran, in the same unit, or None where nothing is predicted.
    """

    name: str
    words: str
    measured: Measurement
    predicted: int | None


def memory_rows(case: CaseRecord, *, on_cpu: bool) -> list[MemoryRow]:
    """Return the memory of a case by every observer; copies of weights only where there are any.

    Args:
        case: finished.
        on_cpu: whether its device is the CPU, whose memory is the host's.
    """
    rows: list[MemoryRow] = []
    for name, words, beside in _ROWS:
        measured = case.measurements.get(name)
        if measured is None or (name == "weight_copies_bytes" and not measured.value):
            continue
        if on_cpu:
            beside = _CPU_PREDICTS.get(name, beside if name != "max_sampled_device_bytes" else None)
        predicted = None if case.predicted is None or beside is None else getattr(case.predicted, beside)
        rows.append(MemoryRow(name, words, measured, predicted))
    return rows


def largest(cases: Iterable[CaseRecord]) -> CaseRecord | None:
    """Return the finished case that was predicted to need most, or None."""
    finished = [case for case in cases if case.status == "ok" and case.predicted is not None]
    return max(finished, key=lambda case: case.predicted.needed_bytes, default=None)  # type: ignore[union-attr]
