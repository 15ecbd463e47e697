"""What the terminal shows of a run, as text and in order, with nothing left to compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from profiler.render.devices import device_line, name_of
from profiler.render.memory_rows import largest, memory_rows
from profiler.render.report_numbers import half_width
from profiler.render.speculation import speculation_line
from profiler.render.units import format_bytes, format_rate, format_seconds
from profiler.results.read import Run
from profiler.results.schema import (
    CaseRecord,
    CaseSpec,
    DeviceRecord,
    Flag,
    FormatsRecord,
    Measurement,
    SkippedCase,
)

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


@dataclass(frozen=True)
class Row:
    """One finished or failed case."""

    label: str
    batch: str
    prefill: Cell
    decode: Cell
    mfu: Cell
    mbu: Cell
    ttft: Cell
    memory: Cell
    marks: str
    failure: str
    extrapolated: str = ""
    devices: str = ""
    speculation: str = ""


@dataclass(frozen=True)
class MemoryView:
    """Memory of the case of a group that needs most.

    Attributes:
        label: the case.
        rows: quantity, measured, predicted, and where the measured one comes from or why it is missing.
    """

    label: str
    rows: tuple[tuple[str, str, str, str], ...]


@dataclass(frozen=True)
class Group:
    """Cases that share device, engine, model and formats."""

    title: str
    rows: tuple[Row, ...]
    memory: MemoryView | None = None


@dataclass(frozen=True)
class FlagView:
    """A flag and the cases that carry it.

    Attributes:
        mark: letter that stands for it in tables; empty when every case carries it.
        cases: labels of the cases; empty when every case carries it.
    """

    mark: str
    flag: Flag
    cases: tuple[str, ...]


@dataclass(frozen=True)
class RunView:
    """A whole run, ready to be shown."""

    headline: str
    groups: tuple[Group, ...]
    flags: tuple[FlagView, ...]
    skipped: tuple[tuple[str, str], ...]
    missing: tuple[tuple[str, str], ...]
    simulated: bool


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


def run_view(run: Run) -> RunView:
    """Return what there is to show of a run, complete or not."""
    record = run.record
    devices = {device.key: device for device in record.devices}
    engines = {engine.name: engine for engine in record.engines}
    groups: dict[str, list[CaseRecord]] = {}
    flags = _flags(run.cases)
    for case in run.cases:
        spec = case.spec
        written = formats_words(spec.formats)
        name = devices[spec.device_key].name if spec.device_key in devices else spec.device_key
        device = name_of(spec, name)
        engine = f"{spec.engine} {engines[spec.engine].version}" if spec.engine in engines else spec.engine
        title = f"{spec.model_label} ({weights_words(spec.weights)}) · {written} · {engine} · {device}"
        if case.fidelity is not None:
            title += f" · {case.fidelity.verdict.replace('_', ' ')}"
            title += ": the figures do not count" if case.fidelity.refuted else ""
        groups.setdefault(title, []).append(case)
    ok = sum(case.status == "ok" for case in run.cases)
    failed = len(run.cases) - ok
    unmeasured = len(record.cases) - len(run.cases)
    parts = [f"{ok} of {len(record.cases)} cases measured"]
    parts += [f"{failed} failed"] if failed else []
    parts += [f"{unmeasured} not measured yet"] if unmeasured else []
    parts += [f"{len(record.skipped)} skipped"] if record.skipped else []
    return RunView(
        headline=", ".join(parts),
        groups=tuple(
            Group(title, tuple(_row(case, flags) for case in cases), _memory_view(cases, devices))
            for title, cases in groups.items()
        ),
        flags=flags,
        skipped=tuple(_skipped(case) for case in record.skipped),
        missing=_missing(run.cases),
        simulated=record.simulated,
    )


def _row(case: CaseRecord, flags: Sequence[FlagView]) -> Row:
    spec, found = case.spec, case.measurements
    carried = {flag.code for flag in case.flags}
    failure = ""
    if case.failure is not None:
        failure = f"failed ({case.failure.kind} during {case.failure.stage}): {case.failure.message}"
    return Row(
        label=label(spec),
        batch=spec.load_label.removeprefix("batch "),
        prefill=cell(found.get("prefill_tokens_per_s")),
        decode=cell(found.get("decode_tokens_per_s")),
        mfu=cell(found.get("mfu")),
        mbu=cell(found.get("mbu")),
        ttft=cell(found.get("ttft_s")),
        memory=_memory(case),
        marks="".join(shown.mark for shown in flags if shown.mark and shown.flag.code in carried),
        failure=failure,
        extrapolated=_extrapolated(case),
        devices=device_line(case),
        speculation=speculation_line(case),
    )


def _extrapolated(case: CaseRecord) -> str:
    """Return what slices say about the whole model, in words; empty for whole models."""
    found = [
        (phase, case.measurements[name])
        for phase in ("prefill", "decode")
        if (name := f"extrapolated_{phase}_tokens_per_s") in case.measurements
    ]
    parts = [
        f"{phase} {cell(one) if one.value is not None else f'unknown ({one.reason})'}" for phase, one in found
    ]
    return f"whole model, extrapolated: {', '.join(parts)}" if parts else ""


def _memory_view(cases: Sequence[CaseRecord], devices: Mapping[str, DeviceRecord]) -> MemoryView | None:
    case = largest(cases)
    if case is None:
        return None
    device = devices.get(case.spec.device_key)
    rows = memory_rows(case, on_cpu=device is not None and device.backend == "cpu")
    shown = tuple(
        (
            row.words,
            cell(row.measured).text,
            DASH if row.predicted is None else with_unit(float(row.predicted), row.measured.unit),
            row.measured.reason or row.measured.method,
        )
        for row in rows
    )
    return MemoryView(f"{label(case.spec)}, {case.spec.load_label}", shown)


def _memory(case: CaseRecord) -> Cell:
    """Return the engine's own peak where it keeps one, otherwise that of its process."""
    for name, what in (("peak_engine_bytes", "engine"), ("peak_process_bytes", "process")):
        measurement = case.measurements.get(name)
        if measurement is not None and measurement.value is not None:
            found = cell(measurement)
            return Cell(found.text, "", f"peak of the {what}; {found.title}")
    return cell(case.measurements.get("peak_process_bytes"))


def _flags(cases: Sequence[CaseRecord]) -> tuple[FlagView, ...]:
    """Return each code once, those of every case first, with what each case has to say of it."""
    found: dict[str, list[tuple[Flag, str]]] = {}
    for case in cases:
        for flag in case.flags:
            found.setdefault(flag.code, []).append((flag, full_label(case.spec)))
    ok = sum(case.status == "ok" for case in cases)
    shown: list[FlagView] = []
    for entries in sorted(found.values(), key=lambda entries: -len(entries)):
        texts = list(dict.fromkeys(flag.text for flag, _ in entries))
        everywhere = len(entries) == ok and len(texts) == 1
        mark = "" if everywhere else chr(ord("a") + sum(bool(view.mark) for view in shown) % 26)
        first = entries[0][0]
        if len(texts) == 1:
            labels = () if everywhere else tuple(label for _, label in entries)
            shown.append(FlagView(mark, first, labels))
        else:
            text = f"in {len({label for _, label in entries})} of {ok} cases"
            labels = tuple(f"{label}: {flag.text}" for flag, label in entries)
            shown.append(FlagView(mark, Flag(code=first.code, text=text, hint=first.hint), labels))
    return tuple(shown)


def _skipped(case: SkippedCase) -> tuple[str, str]:
    return full_label(case.spec), case.reason


def _missing(cases: Sequence[CaseRecord]) -> tuple[tuple[str, str], ...]:
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
