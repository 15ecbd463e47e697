"""The table of all cases, and the sections on flags, failures, the box and the words."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Final

from profiler.render.cells import full_label, label, weights_words
from profiler.render.charts_roofline import ceiling_label
from profiler.render.missing import missing_in
from profiler.render.report_fidelity import fidelity_table
from profiler.render.report_numbers import Unit, figure, measured_cell, rate_text, unit_for
from profiler.render.report_subjects import Entry, format_label
from profiler.render.report_view import Cell, Column, Facts, Row, Section, Table, condensed, listed, plural
from profiler.render.units import format_bytes
from profiler.results.read import Run
from profiler.results.schema import Flag

# Beyond this a page is no longer the place; what is left out is counted.
MAX_CASES: Final = 2000
# What stands behind each figure is given for so many cases; it takes more room than the figures.
MAX_TITLED: Final = 60
MAX_NAMED: Final = 2

_METRICS: Final = (
    ("prefill_tokens_per_s", "prefill"),
    ("decode_tokens_per_s", "decode"),
    ("output_tokens_per_s", "output"),
    ("ttft_s", "TTFT"),
    ("tpot_s", "TPOT"),
    ("mfu", "MFU"),
    ("mbu", "MBU"),
    ("speculative_acceptance", "guesses accepted"),
    ("peak_engine_bytes", "engine peak"),
    ("peak_process_bytes", "process peak"),
    ("power_mean_w", "power"),
    ("energy_per_output_token_j", "energy"),
    ("sustained_ratio", "sustained"),
    ("extrapolated_prefill_tokens_per_s", "prefill of the whole model, extrapolated"),
    ("extrapolated_decode_tokens_per_s", "decode of the whole model, extrapolated"),
)


def cases_section(entries: Sequence[Entry], runs: Sequence[Run]) -> Section:
    """Return the table of all finished and failed cases."""
    if not entries:
        return Section("cases", "All cases", "All cases", empty="No case has been measured yet.")
    shown = entries[:MAX_CASES]
    titles = len(shown) <= MAX_TITLED
    common = _everywhere(entries)
    metrics = [
        (name, text, base)
        for name, text in _METRICS
        if (base := next((found.unit for entry in entries if (found := entry.measured(name))), None))
    ]
    units = {name: unit_for(base, [entry.value(name) for entry in shown]) for name, _, base in metrics}
    columns = [Column("workload"), Column("box"), Column("model"), Column("formats")]
    columns += [Column("tokens in + out"), Column("batch", "", True)]
    columns += [Column(text, units[name].text, True) for name, text, _ in metrics]
    columns.append(Column("flags"))
    rows = [_case_row(entry, units, common, titles=titles) for entry in shown]
    note = "± is half of the 95% interval; a figure without it has none. "
    if common:
        verb = "is" if len(common) == 1 else "are"
        note += f"Every case carries {listed(sorted(common))}, which {verb} not repeated. "
    if len(entries) > MAX_CASES:
        note += f"The first {MAX_CASES:,} of {len(entries):,} cases; `aiprof export` gives all of them. "
    table = Table("all-cases", "Finished and failed", tuple(columns), tuple(rows), note.strip())
    checks = fidelity_table(entries)
    tables = (condensed(table),) if checks is None else (condensed(table), checks)
    return Section("cases", "All cases", "All cases", tables=tables)


def _case_row(entry: Entry, units: Mapping[str, Unit], common: set[str], *, titles: bool) -> Row:
    """Return the row of a case: its measurements in ``units``, or why it failed."""
    spec, failure = entry.spec, entry.case.failure
    cells = [Cell(label(spec), link=entry.anchor), Cell(entry.subject.label)]
    cells += [Cell(spec.model_label), Cell(format_label(spec))]
    cells += [
        Cell(f"{spec.prompt_tokens:,} + {spec.output_tokens:,}"),
        Cell(spec.load_label.removeprefix("batch ")),
    ]
    if failure is not None:
        remark = f"failed ({failure.kind} during {failure.stage}): {failure.message}"
        return Row(tuple(cells), entry.anchor, remark)
    found = entry.case.measurements
    cells += [measured_cell(found.get(name), unit, titles=titles) for name, unit in units.items()]
    codes = dict.fromkeys(flag.code for flag in entry.case.flags if flag.code not in common)
    return Row((*cells, Cell(", ".join(codes))), entry.anchor)


def _everywhere(entries: Sequence[Entry]) -> set[str]:
    """Return the codes of flags that every finished case carries."""
    carried = [{flag.code for flag in entry.case.flags} for entry in entries if entry.case.status == "ok"]
    return set.intersection(*carried) if carried else set()


def limits_section(entries: Sequence[Entry], runs: Sequence[Run]) -> Section:
    """Return what was flagged, failed, skipped, left open or could not be measured, and why."""
    tables = [_flags(entries), _failures(entries), _skipped(runs), _missing(entries)]
    shown = tuple(table for table in tables if table.rows)
    if not shown:
        return Section(
            "limits", "What limits these results", "Limits", empty="Nothing was flagged, skipped or missing."
        )
    return Section("limits", "What limits these results", "Limits", tables=shown)


def _flags(entries: Sequence[Entry]) -> Table:
    found: dict[str, list[tuple[Entry, Flag]]] = {}
    for entry in entries:
        for flag in entry.case.flags:
            found.setdefault(flag.code, []).append((entry, flag))
    rows: list[Row] = []
    finished = sum(entry.case.status == "ok" for entry in entries)
    for code, carried in sorted(found.items(), key=lambda item: -len(item[1])):
        texts = list(dict.fromkeys(flag.text for _, flag in carried))
        cases = list(dict.fromkeys(entry.anchor for entry, _ in carried))
        first = carried[0]
        where = "every case" if len(cases) == finished else listed(_named(carried), MAX_NAMED)
        seen = texts[0] if len(texts) == 1 else f"{texts[0]} (and {plural(len(texts) - 1, 'other finding')})"
        link = "" if len(cases) == finished else first[0].anchor
        rows.append(
            Row(
                (Cell(code), Cell(f"{len(cases):,}"), Cell(seen), Cell(first[1].hint), Cell(where, link=link))
            )
        )
    columns = (Column("flag"), Column("cases", "", True), Column("what was seen"), Column("what to do"))
    return Table(
        "flags", f"Flags ({plural(finished, 'finished case')})", (*columns, Column("where")), tuple(rows)
    )


def _named(carried: Sequence[tuple[Entry, Flag]]) -> list[str]:
    return list(dict.fromkeys(f"{entry.subject.label}: {full_label(entry.spec)}" for entry, _ in carried))


def _failures(entries: Sequence[Entry]) -> Table:
    rows: list[Row] = []
    for entry in entries:
        failure = entry.case.failure
        if failure is not None:
            case = Cell(full_label(entry.spec), link=entry.anchor)
            texts = (entry.subject.label, failure.kind, failure.stage, failure.message)
            rows.append(Row((case, *map(Cell, texts))))
    columns = (Column("case"), Column("box"), Column("kind"), Column("during"), Column("message"))
    return Table("failures", "Failed", columns, tuple(rows))


def _skipped(runs: Sequence[Run]) -> Table:
    rows: list[Row] = []
    for run in runs:
        done = {case.spec.case_id for case in run.cases}
        left = [(skipped.spec, "skipped", skipped.reason) for skipped in run.record.skipped]
        why = "planned, but the sweep ended before it; `aiprof sweep --resume` measures it"
        left += [
            (planned.spec, "not run", why) for planned in run.record.cases if planned.spec.case_id not in done
        ]
        names = {device.key: device.name for device in run.record.devices}
        rows += [
            Row(
                (
                    Cell(full_label(spec)),
                    Cell(names.get(spec.device_key, spec.device_key)),
                    Cell(status),
                    Cell(reason),
                )
            )
            for spec, status, reason in left
        ]
    columns = (Column("case"), Column("device"), Column("status"), Column("why"))
    return Table("skipped", "Not measured", columns, tuple(rows))


def _missing(entries: Sequence[Entry]) -> Table:
    """Metrics that no case of a subject has; those with the same reason together."""
    together: dict[tuple[str, str], list[str]] = {}
    subjects = {entry.subject.index: entry.subject for entry in entries}
    for index, subject in sorted(subjects.items()):
        own = [entry for entry in entries if entry.subject.index == index]
        for names, reasons in missing_in(entry.case for entry in own):
            together.setdefault((names, listed(reasons)), []).append(subject.label)
    rows = [
        Row(
            (
                Cell(names),
                Cell(reason),
                Cell("every box" if len(boxes) == len(subjects) else listed(boxes, 8)),
            )
        )
        for (names, reason), boxes in together.items()
    ]
    columns = (Column("metrics"), Column("reason"), Column("where"))
    return Table("missing", "Measured in no case", columns, tuple(rows))


def box_section(runs: Sequence[Run]) -> Section:
    """Return each box with its versions, ceilings, and the command that repeats the run."""
    facts = tuple(Facts(run.path.resolve().name, _facts(run), _command(run)) for run in runs)
    return Section("box", "The boxes and how they were measured", "Boxes", facts=facts)


def _command(run: Run) -> str:
    command = run.record.command
    # A load says so itself; a sweep's record holds its flags only.
    words = command if command[:1] == ("load",) else ("sweep", *command)
    return shlex.join(["aiprof", *words])


def _facts(run: Run) -> tuple[tuple[str, str], ...]:
    record = run.record
    facts = [("measured", record.created_utc), ("aiprof", record.aiprof_version), ("run", record.run_id)]
    facts.append(("box", f"{record.box.system} {record.box.kernel}, {record.box.architecture}"))
    used = {planned.spec.device_key for planned in record.cases} | {c.spec.device_key for c in run.cases}
    for device in record.devices:
        if device.key not in used:
            continue
        memory = "" if device.memory_total_bytes is None else f", {format_bytes(device.memory_total_bytes)}"
        facts.append(
            (
                "device",
                f"{device.name}{memory} ({device.backend} backend, {device.verified}; key {device.key})",
            )
        )
    facts += [
        ("engine", f"{engine.name} {engine.version}, Python {engine.python}") for engine in record.engines
    ]
    facts += [
        ("model", f"{model.name} ({weights_words(model.weights)}): {model.source}") for model in record.models
    ]
    for ceiling in record.ceilings:
        value = ceiling.measurement.value
        if value is not None:
            kind = "FLOP" if "flops" in ceiling.name else "B"
            facts.append(
                (ceiling_label(ceiling.name), f"{rate_text(value, kind)} ({ceiling.ceiling_method})")
            )
    for floor in record.noise_floors:
        if floor.bytes_per_s:
            ends = (rate_text(end(floor.bytes_per_s), "B") for end in (min, max))
            facts.append(
                (
                    "noise floor",
                    f"idle bandwidth from {' to '.join(ends)} over "
                    f"{plural(len(floor.bytes_per_s), 'probe')}; changes over "
                    f"{figure(100 * floor.tolerance)}% are flagged",
                )
            )
    settings = record.settings
    facts.append(
        (
            "method",
            f"preset {settings.preset}, {plural(settings.starts, 'start')} per case, seed {record.seed}",
        )
    )
    return tuple(facts)
