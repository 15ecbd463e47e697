"""What the terminal shows of a run, as text and in order, with nothing left to compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from profiler.render.cells import (
    DASH,
    Cell,
    cell,
    formats_words,
    full_label,
    label,
    weights_words,
    with_unit,
)
from profiler.render.devices import device_line, name_of
from profiler.render.energy_rows import energy_figures, energy_scope, with_energy
from profiler.render.memory_rows import largest, memory_rows
from profiler.render.missing import missing_in
from profiler.render.report_numbers import figure, half_width
from profiler.render.speculation import speculation_line
from profiler.results.read import Run
from profiler.results.schema import (
    CaseRecord,
    DeviceRecord,
    Flag,
    SkippedCase,
)


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
class EnergyView:
    """Energies of a group's cases, as the meter of the device shows them.

    Attributes:
        covers: scope of the meter.
        rows: label and batch of a case, and its figures in the order of ``ENERGY_COLUMNS``.
    """

    covers: str
    rows: tuple[tuple[str, str, tuple[Cell, ...]], ...]


@dataclass(frozen=True)
class Group:
    """Cases that share device, engine, model and formats."""

    title: str
    rows: tuple[Row, ...]
    memory: MemoryView | None = None
    energy: EnergyView | None = None


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
            Group(
                title,
                tuple(_row(case, flags) for case in cases),
                _memory_view(cases, devices),
                _energy_view(cases),
            )
            for title, cases in groups.items()
        ),
        flags=flags,
        skipped=tuple(_skipped(case) for case in record.skipped),
        missing=tuple((names, "; ".join(reasons)) for names, reasons in missing_in(run.cases)),
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


def _energy_view(cases: Sequence[CaseRecord]) -> EnergyView | None:
    shown = with_energy(cases)
    if not shown:
        return None
    scopes = dict.fromkeys(energy_scope(case) for case in shown)
    rows = (
        (
            label(case.spec),
            case.spec.load_label.removeprefix("batch "),
            tuple(
                Cell(DASH if one.value is None else figure(one.value), half_width(one))
                for one in energy_figures(case)
            ),
        )
        for case in shown
    )
    return EnergyView(", ".join(scopes), tuple(rows))


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
