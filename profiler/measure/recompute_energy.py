"""Do the energies of a case follow from its sensors' reads? Made again by the code that made them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from profiler.backends.base import Unavailable
from profiler.measure.case_watch import LONG_KINDS
from profiler.measure.conditions import Watched, condition_flags
from profiler.measure.differences import Difference, close
from profiler.measure.energy_summary import joules_of_trials
from profiler.measure.kept_reads import KeptReads, info_from, kept, reads_of
from profiler.measure.phase_energies import done_in, phase_energies
from profiler.measure.polled_memory import most_in_use, sampled_figures
from profiler.measure.served_energy import load_energies
from profiler.measure.start_energy import working_ns
from profiler.results.schema import CaseRecord, EnergyRecord, EnergySpans, Measurement, RunRecord, StartRecord
from profiler.sensors.base import ENERGY_KINDS, Scope, SensorInfo
from profiler.sensors.meters import Meter

# Why there is no energy, where the reads alone cannot show it: what stood in the way is not in them.
_UNSEEN = frozenset({"simulated", "virtual_time", "sampler_died", "suspended"})
_FIELDS = ("joules", "bound_j", "net_j", "net_bound_j", "window_s", "active_s", "tick_s")
_EXACT = ("scope", "tokens", "method", "n_ticks", "flags", "simulated")
_FOREVER_NS = 2**53


def energy_faults(
    run: RunRecord, case: CaseRecord, columns: Mapping[str, Any] | None
) -> Iterator[Difference]:
    """Yield what of a case's energies does not follow from the reads of its sensors.

    Args:
        run: the record of its run.
        case: the case.
        columns: reads of its sensors, or None where it has none.
    """
    infos = {info.key: info for record in run.sensors if (info := info_from(record)) is not None}
    spans = {one.start: one for one in case.energy_spans}
    if len(spans) < len(case.energy_spans):
        yield Difference("energies", "the spans of a start are there twice")
    for record in case.starts:
        own = [energy for energy in case.energies if energy.start == record.index]
        if not close(record.energy_j, joules_of_trials(own, record.measured_s)):
            follows = joules_of_trials(own, record.measured_s)
            yield Difference("energy_j", f"start {record.index}: is {record.energy_j}, they give {follows}")
        yield from _memory_faults(record, case, columns, infos)
    for start in dict.fromkeys(energy.start for energy in case.energies):
        own = [energy for energy in case.energies if energy.start == start]
        missing = start not in spans or columns is None
        if missing and all(energy.joules is None for energy in own):
            continue
        if start not in spans or columns is None:
            what = f"start {start}: the reads of sensors or the spans that energies follow from are missing"
            yield Difference("energies", what)
            continue
        yield from _span_faults(case, spans[start])
        source = kept(columns, infos, spans[start])
        for recorded in _by_meter(own):
            meter = _meter(recorded, infos)
            if meter is None:
                yield Difference("energies", f"start {start}: run.json lists no such sensors as they name")
                continue
            again = _again(case, source, meter, spans[start])
            yield from _energies_differ(recorded, again)


def reads_flags(run: RunRecord, case: CaseRecord, columns: Mapping[str, Any]) -> set[str]:
    """Return the codes of the flags that the reads of a device's state raise against a case."""
    states = _states(run, case)
    used = {start.index for start in case.starts if start.used}
    watched: list[Watched] = []
    for spans in case.energy_spans:
        if case.served is None and spans.start not in used:
            continue
        times = _times(case, spans)
        if times is None:
            continue
        reads = kept(columns, states, spans.model_copy(update={"until_ns": _FOREVER_NS}))
        for info in states.values():
            span = times.whole if info.kind in LONG_KINDS else times.working
            watched.append(Watched(info, reads.series(info, *span).good()))
    return {flag.code for flag in condition_flags(watched)}


def load_memory(run: RunRecord, case: CaseRecord, columns: Mapping[str, Any]) -> dict[str, Measurement]:
    """Return the figure of a load's memory from the reads of its sensor."""
    infos = {key: info for key, info in _states(run, case).items() if info.kind == "memory"}
    reads = reads_of(columns, infos, _FOREVER_NS)
    times = [found for spans in case.energy_spans if (found := _times(case, spans)) is not None]
    if not times:
        return {}
    inside = ((info, reads[key].between(*times[0].whole)) for key, info in infos.items())
    return sampled_figures(most_in_use(inside))


class _Times(NamedTuple):
    """When a start worked, and from when to when it was there, ns since the case's origin."""

    working: tuple[int, int]
    whole: tuple[int, int]


def _times(case: CaseRecord, spans: EnergySpans) -> _Times | None:
    if case.served is not None:
        begin_ns, end_ns = spans.trials[0][0], spans.trials[-1][2]
        return _Times((begin_ns, end_ns), ((spans.idle or (begin_ns, 0))[0], end_ns))
    phases = {phase.phase: phase for phase in case.phases if phase.start == spans.start}
    if "warm-up" not in phases:
        return None
    whole = (
        min(_ns(phase.begin_s) for phase in phases.values()),
        max(_ns(phase.end_s) for phase in phases.values()),
    )
    return _Times(working_ns(done_in(spans), _ns(phases["warm-up"].begin_s)), whole)


def _states(run: RunRecord, case: CaseRecord) -> dict[str, SensorInfo]:
    """Return the sensors of the state of a case's device: those of the CPU belong to the box otherwise."""
    of_cpu = any(device.key == case.spec.device_key and device.backend == "cpu" for device in run.devices)
    return {
        info.key: info
        for record in run.sensors
        if (info := info_from(record)) is not None
        and info.kind not in ENERGY_KINDS
        and (info.source == "cpu") == of_cpu
    }


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _memory_faults(
    start: StartRecord, case: CaseRecord, columns: Mapping[str, Any] | None, infos: Mapping[str, SensorInfo]
) -> Iterator[Difference]:
    """Whether the most memory that the sampler saw on the device is in its reads."""
    memory = start.memory
    if memory is None or memory.polled_device_bytes is None:
        return
    info = infos.get(memory.polled_device_sensor or "")
    begins = [_ns(phase.begin_s) for phase in case.phases if phase.start == start.index]
    if info is None or columns is None or not begins:
        yield Difference(
            "polled_device_bytes", f"start {start.index}: the reads that it follows from are missing"
        )
        return
    own = reads_of(columns, {info.key: info}, _FOREVER_NS)[info.key].between(min(begins), _FOREVER_NS).good()
    raw = own.raw[: memory.polled_device_reads]
    most = round(int(raw.max()) * info.scale) if len(raw) else None
    if len(raw) < memory.polled_device_reads or most != memory.polled_device_bytes:
        what = f"start {start.index}: is {memory.polled_device_bytes}, the reads give {most}"
        yield Difference("polled_device_bytes", what)


def _span_faults(case: CaseRecord, spans: EnergySpans) -> Iterator[Difference]:
    """Whether the spans are those of the trials whose times are recorded."""
    if case.served is not None:
        return
    trials = [trial for trial in case.trials if trial.start == spans.start and not trial.warm_up]
    if len(trials) != len(spans.trials):
        yield Difference("energy_spans", f"are of {len(spans.trials)} trials, {len(trials)} were measured")
        return
    for trial, (submit, first, last) in zip(trials, spans.trials, strict=True):
        prefill_s = None if first is None else (first - submit) / 1e9
        if not (close(trial.e2e_s, (last - submit) / 1e9) and close(trial.prefill_s, prefill_s)):
            where = f"trial {trial.index} of start {trial.start}"
            yield Difference("energy_spans", f"{where}: lasts otherwise than its span")
    rows = [*spans.trials, *spans.requests, *spans.prefills]
    ends = [moment for submit, first, last in rows for moment in (submit, first, last) if moment is not None]
    if ends != sorted(ends):
        yield Difference("energy_spans", f"start {spans.start}: are not in order")


def _by_meter(energies: Sequence[EnergyRecord]) -> list[list[EnergyRecord]]:
    """Energies of one start, those of each meter together."""
    found: dict[tuple[str, tuple[str, ...]], list[EnergyRecord]] = {}
    for energy in energies:
        found.setdefault((energy.covers, energy.sensors), []).append(energy)
    return list(found.values())


def _meter(recorded: Sequence[EnergyRecord], infos: Mapping[str, SensorInfo]) -> Meter | None:
    """Return the meter that energies are of, or None where run.json does not know its sensors."""
    first = recorded[0]
    scope: Scope = first.scope  # type: ignore[assignment]  # any other word fits no recomputed record
    if not first.sensors:
        why = first.reason
        return Meter(
            first.covers,
            scope,
            (),
            Unavailable("no_sensor", "no sensors are named")
            if why is None
            else Unavailable(why.code, why.text, why.remedy),
        )
    if not set(first.sensors) <= infos.keys():
        return None
    sensors = tuple(infos[key] for key in first.sensors)
    return Meter(first.covers, sensors[0].scope, sensors)


def _again(case: CaseRecord, source: KeptReads, meter: Meter, spans: EnergySpans) -> Sequence[EnergyRecord]:
    if case.served is None:
        return phase_energies(source, meter, case.spec, spans.start, done_in(spans))
    return load_energies(source, meter, spans, tokens_of(case, spans.start))


def tokens_of(case: CaseRecord, start: int = 0) -> int:
    """Return the output tokens of all successful requests of a load.

    Counted in each start of a server that was started for it, else from its recorded rate.
    """
    for server in case.served.servers if case.served is not None else ():
        if server.index == start:
            return server.output_tokens
    rate, served = case.measurements.get("output_tokens_per_s"), case.served
    if rate is None or served is None:
        return 0
    return round((rate.value or 0.0) * (served.duration_s or 0.0))


def _energies_differ(recorded: Sequence[EnergyRecord], again: Sequence[EnergyRecord]) -> Iterator[Difference]:
    named = f"energy of start {recorded[0].start} ({recorded[0].covers})"
    if [energy.phase for energy in recorded] != [energy.phase for energy in again]:
        phases = ", ".join(energy.phase for energy in again)
        yield Difference("energies", f"{named}: the reads give records of {phases}")
        return
    for mine, theirs in zip(recorded, again, strict=True):
        if mine.joules is None and mine.reason is not None and mine.reason.code in _UNSEEN:
            continue
        for names, equal in ((_FIELDS, close), (_EXACT, _same)):
            for name in names:
                if not equal(getattr(mine, name), getattr(theirs, name)):
                    was, follows = getattr(mine, name), getattr(theirs, name)
                    what = f"{named}, {mine.phase}: {name} is {was}, the reads give {follows}"
                    yield Difference("energies", what)


def _same(mine: object, theirs: object) -> bool:
    return mine == theirs
