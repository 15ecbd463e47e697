"""Does a record follow from its own raw samples? Every figure made once more, by the code that made it.

What cannot be made again stands in :data:`NOT_RECOMPUTED` with the reason, so that a figure is either
checked or said not to be.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from profiler.measure.derive import figures_of
from profiler.measure.differences import (
    Difference,
    Recomputed,
    close,
    guarded,
    measurement_faults,
    without_flags,
)
from profiler.measure.extrapolate import all_specs, extrapolated
from profiler.measure.fidelity import fidelity_flags
from profiler.measure.recompute_energy import energy_faults, reads_flags
from profiler.measure.recompute_fidelity import fidelity_faults
from profiler.measure.recorded import disturbed, recorded_starts
from profiler.measure.roofline import ceiling_flags
from profiler.measure.start_watch import LASTING
from profiler.measure.summary import flags
from profiler.models.architecture import Architecture
from profiler.models.formats import Formats
from profiler.models.slices import Depth, sliced
from profiler.models.work import trial_work
from profiler.results.schema import (
    CaseRecord,
    CaseSpec,
    Measurement,
    ModelRecord,
    RunRecord,
    TrialRecord,
    Work,
)
from profiler.workload.identity import workload_id
from profiler.workload.prompts import case_label, prompts_digest, trial_prompts

NOT_RECOMPUTED: Final[dict[str, str]] = {}
"""Figures of a case that cannot be made again, with the reason."""
UNKNOWN: Final = "this version of aiprof knows no way to make it again"

Stamps = Mapping[tuple[int, int], Sequence[int]]
"""Nanoseconds after submit of every output token, by (start, trial)."""


def recompute_case(
    run: RunRecord,
    case: CaseRecord,
    stamps: Stamps | None,
    before: Sequence[CaseRecord] = (),
    sensors: Mapping[str, Any] | None = None,
) -> Recomputed:
    """Make every figure of a case again and hold it against the record.

    Args:
        run: the record of its run.
        case: the case.
        stamps: its raw samples, or None where it has none.
        before: cases of the run that had finished before it, from which a slice may be extrapolated.
        sensors: reads of its sensors as columns, or None where it has none.
    """
    differences = list(guarded("work", lambda: _work_faults(run, case)))
    differences += guarded("trials", lambda: _trial_faults(case, stamps))
    differences += guarded("prompts_sha256", lambda: _prompt_faults(run, case))
    differences += guarded("energies", lambda: energy_faults(run, case, sensors))
    if case.status != "ok":
        return Recomputed((), tuple(differences), {})
    differences += guarded("starts", lambda: _start_faults(run, case))
    made: dict[str, Measurement] = {}

    def figures() -> Iterator[Difference]:
        yield from _figure_faults(run, case, before, made)

    differences += guarded("measurements", figures)
    if sensors is not None:
        differences += guarded("flags", lambda: without_flags(case, reads_flags(run, case, sensors)))
    differences += guarded("fidelity", lambda: fidelity_faults(case, architecture_in(run, case)))
    left_out = {name: NOT_RECOMPUTED.get(name, UNKNOWN) for name in case.measurements if name not in made}
    energies = {"energies"} if any(energy.joules is not None for energy in case.energies) else set()
    names = (made.keys() & case.measurements.keys()) | energies
    return Recomputed(tuple(sorted(names)), tuple(differences), left_out)


def plan_faults(run: RunRecord, case: CaseRecord) -> Iterator[Difference]:
    """Whether the case is one that was planned."""
    planned = {entry.spec.case_id: entry for entry in run.cases}.get(case.spec.case_id)
    if planned is None and run.settings.search is not None:
        return  # the points of a search follow from what it finds
    if planned is None or (planned.spec, planned.predicted) != (case.spec, case.predicted):
        yield Difference("spec", "is not what run.json planned under this case_id")


def architecture_in(run: RunRecord, case: CaseRecord) -> Architecture | None:
    """Return the architecture of what a case ran, or None where the run does not know its model.

    Raises:
        ValueError: what the run holds is none.
    """
    model = next((entry for entry in run.models if entry.name == case.spec.model), None)
    return None if model is None or not model.architecture else architecture_of(model, case.spec)


def _work_faults(run: RunRecord, case: CaseRecord) -> Iterator[Difference]:
    """Identity and amount of the work, from the architecture."""
    yield from plan_faults(run, case)
    architecture, spec = architecture_in(run, case), case.spec
    if architecture is None:
        return
    work = workload_id(
        architecture,
        prompt_tokens=spec.prompt_tokens,
        output_tokens=spec.output_tokens,
        batch=spec.batch,
        parallel=None if spec.parallel is None else spec.parallel.model_dump(),
        speculative=spec.speculative,
    )
    if work != spec.workload_id:
        yield Difference("workload_id", f"is {spec.workload_id[:12]}…, the work has {work[:12]}…")
    if case.work is not None:
        formats = Formats(**spec.formats.model_dump())
        counted = trial_work(architecture, formats, spec.prompt_tokens, spec.output_tokens, spec.batch)
        for name, value in asdict(counted).items():
            if not close(getattr(case.work, name), value):
                yield Difference(f"work.{name}", f"is {getattr(case.work, name)}, counting gives {value}")


def architecture_of(model: ModelRecord, spec: CaseSpec) -> Architecture:
    """Return the architecture that a case ran: what the record holds, or its slice.

    Raises:
        ValueError: it holds none.
    """
    try:
        whole = TypeAdapter(Architecture).validate_json(json.dumps(model.architecture))
    except ValidationError as error:
        raise ValueError(f"no architecture: {error.errors()[0]['msg']}") from None
    cut = spec.slice
    return whole if cut is None else sliced(whole, Depth(cut.dense, cut.moe))


def _trial_faults(case: CaseRecord, stamps: Stamps | None) -> Iterator[Difference]:
    """Order and completeness of the trials, and their times from the stamps of their tokens."""
    starts = {start.index for start in case.starts}
    numbers: dict[int, list[bool]] = {}
    for trial in case.trials:
        seen = numbers.setdefault(trial.start, [])
        where = f"trial {trial.index} of start {trial.start}"
        if case.status == "ok" and trial.start not in starts:
            yield Difference("trials", f"{where} belongs to no start")
        if trial.index != len(seen):
            yield Difference("trials", f"{where} stands where trial {len(seen)} should: one is missing")
        if trial.warm_up and False in seen:
            yield Difference("trials", f"{where} is called warm-up after measuring began")
        seen.append(trial.warm_up)
        if stamps:
            yield from _stamp_faults(case, where, stamps.get((trial.start, trial.index)), trial)
    extra = set(stamps or ()) - {(trial.start, trial.index) for trial in case.trials}
    if extra:
        yield Difference("trials", f"the samples hold {len(extra)} trials that the record lacks")


def _stamp_faults(
    case: CaseRecord, where: str, own: Sequence[int] | None, trial: TrialRecord
) -> Iterator[Difference]:
    tokens = case.spec.output_tokens
    if trial.mixed is not None and own is None:
        return  # where the engine mixes phases, its steps are not those of one token each
    if own is None or len(own) != tokens:
        count = 0 if own is None else len(own)
        yield Difference("trials", f"{where} has {count} stamps for {tokens} tokens")
        return
    if any(later < earlier for earlier, later in pairwise(own)):
        yield Difference("trials", f"{where} has stamps that are not in order")
    follows = {
        "prefill_s": own[0] / 1e9,
        "decode_s": (own[-1] - own[0]) / 1e9 if tokens > 1 else None,
        "e2e_s": own[-1] / 1e9,
    }
    for name, value in follows.items():
        if not close(getattr(trial, name), value):
            yield Difference(name, f"{where}: is {getattr(trial, name)}, its stamps give {value}")


def _prompt_faults(run: RunRecord, case: CaseRecord) -> Iterator[Difference]:
    """Digests of the prompts, from seed and challenge."""
    recorded = [trial for trial in case.trials if trial.prompts_sha256 is not None]
    if not recorded:
        return
    spec = case.spec
    model = next((entry for entry in run.models if entry.name == spec.model), None)
    if model is None:
        yield Difference("prompts_sha256", f"run.json lists no model {spec.model[:100]}")
        return
    vocabulary = architecture_of(model, spec).vocab_size
    for trial in recorded:
        prompts = trial_prompts(
            case_label(spec.scenario, spec.variant, spec.batch),
            seed=spec.seed,
            challenge=run.challenge,
            start=trial.start,
            trial=trial.index,
            batch=spec.batch,
            prompt_tokens=spec.prompt_tokens,
            vocab_size=vocabulary,
        )
        if prompts_digest(prompts) != trial.prompts_sha256:
            where = f"trial {trial.index} of start {trial.start}"
            yield Difference("prompts_sha256", f"{where}: does not follow from seed and challenge")


def _start_faults(run: RunRecord, case: CaseRecord) -> Iterator[Difference]:
    """Whether the starts that count are those that have to."""
    indices = [start.index for start in case.starts]
    if indices != list(range(len(indices))):
        yield Difference("starts", f"are numbered {indices}: one is missing or there twice")
    used = [start for start in case.starts if start.used]
    if len(used) != run.settings.starts:
        yield Difference("starts", f"{len(used)} count, the plan asked for {run.settings.starts}")
    floor = next(
        floor
        for floor in run.noise_floors
        if (floor.device_key, floor.engine) == (case.spec.device_key, case.spec.engine)
    )
    for start in case.starts:
        # What the probes say is worked out again; what else was seen is taken as recorded.
        seen = disturbed(start, floor) or bool(set(start.replaced_for) - LASTING - {"interference"})
        if not start.used and not (run.settings.repeat_on_interference and seen):
            yield Difference("starts", f"start {start.index} was left out without having been disturbed")
    if any(disturbed(start, floor) for start in used):
        yield from without_flags(case, {"interference"})


def _figure_faults(
    run: RunRecord, case: CaseRecord, before: Sequence[CaseRecord], made: dict[str, Measurement]
) -> Iterator[Difference]:
    """Every measurement, the binding ceilings and the flags; fills ``made``."""
    if not case.starts:
        return
    settings, target = run.settings, run.settings.target_relative_half_width
    if target is None:
        raise ValueError("run.json names no precision that trials were stopped at")
    used = recorded_starts(case, target)
    work = case.work or Work(
        prefill_flops=0.0, prefill_bytes=0.0, decode_flops=0.0, decode_bytes=0.0, expected=False
    )
    measured, binding = figures_of(case.spec, work, used, run.ceilings, settings.soak_s)
    measured |= extrapolated(case.spec, measured, case.starts, all_specs(run), before)
    made.update(measured)
    for name, again in measured.items():
        if name not in case.measurements:
            yield Difference(name, "is missing in the record")
        else:
            yield from measurement_faults(name, case.measurements[name], again)
    if binding != case.binding_ceilings:
        yield Difference("binding_ceilings", f"are {case.binding_ceilings}, the roofline gives {binding}")
    simulated = case.simulated or run.simulated
    found = flags(case.spec, used, target, simulated=simulated) + ceiling_flags(measured)
    if case.fidelity is not None:
        found += fidelity_flags(case.fidelity)
    yield from without_flags(case, {flag.code for flag in found})
