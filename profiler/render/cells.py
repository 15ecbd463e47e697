"""How a figure and a case are called in a terminal and on a page."""

from __future__ import annotations

from dataclasses import dataclass

from profiler.render.report_numbers import half_width
from profiler.render.units import format_bytes, format_rate, format_seconds
from profiler.results.schema import CaseSpec, FormatsRecord, Measurement

DASH = "–"


@dataclass(frozen=True)
class Cell:
    """One figure as text.

    Attributes:
        text: value with unit, or a dash.
        interval: ``±1.2%`` or empty.
        title: what is behind it: method, scope, n; or why it is missing.
    """

    text: str
    interval: str = ""
    title: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.interval}".rstrip()


def label(spec: CaseSpec) -> str:
    """Return the scenario and, unless full, its variant."""
    return spec.scenario if spec.variant == "full" else f"{spec.scenario} ({spec.variant})"


def formats_words(formats: FormatsRecord) -> str:
    """Return ``bf16``, or all three formats where they differ."""
    if len({formats.weight_format, formats.compute_dtype, formats.kv_dtype}) == 1:
        return formats.weight_format
    return f"{formats.weight_format} weights, {formats.compute_dtype} compute, {formats.kv_dtype} cache"


def weights_words(weights: str) -> str:
    """Return ``random weights``, ``GGUF weights`` of a file, …."""
    return "GGUF weights" if weights == "file" else f"{weights} weights"


def full_label(spec: CaseSpec) -> str:
    """Return everything that tells a case from others of its run."""
    return f"{label(spec)} · {spec.model_label} · {spec.formats.weight_format} · {spec.load_label}"


def with_unit(value: float, unit: str) -> str:
    """Return a value of a record, which is in base units, as a person reads it."""
    match unit:
        case "s":
            return format_seconds(value)
        case "bytes":
            return format_bytes(value)
        case "tokens/s":
            return format_rate(value, "tokens")
        case "ratio":
            return f"{value:.0%}"
        case "tokens" | "users":
            return f"{value:,.0f}"
        case _:
            return f"{value:.4g} {unit}"


def cell(measurement: Measurement | None, *, missing: str = "not measured in this case") -> Cell:
    """Return a measurement as text."""
    if measurement is None:
        return Cell(DASH, title=missing)
    if measurement.value is None:
        return Cell(DASH, title=measurement.reason or missing)
    title = f"{measurement.method}; n = {measurement.n}; {measurement.scope}"
    interval = (
        "±?"
        if measurement.method.startswith("mean of trials") and measurement.unit in ("s", "tokens/s")
        else ""
    )
    if measurement.ci95 is not None:
        low, high = measurement.ci95
        interval = half_width(measurement)
        title = (
            f"95% interval {with_unit(low, measurement.unit)} to {with_unit(high, measurement.unit)}; {title}"
        )
    return Cell(with_unit(measurement.value, measurement.unit), interval, title)
