"""Does the record of a load follow from its request columns? Made once more by the code that made it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from profiler.errors import UsageError
from profiler.load.flags import flags
from profiler.load.search import judge
from profiler.load.slo import parse_slos
from profiler.load.starts import measurements_of_starts
from profiler.load.table import Requests, merge
from profiler.measure.differences import (
    Difference,
    Recomputed,
    guarded,
    measurement_faults,
    without_flags,
)
from profiler.measure.recompute import NOT_RECOMPUTED, UNKNOWN, architecture_in, plan_faults
from profiler.measure.recompute_energy import energy_faults, load_memory, reads_flags
from profiler.measure.recompute_fidelity import fidelity_faults
from profiler.measure.served_energy import served_figures
from profiler.measure.served_figures import server_figures, server_flags
from profiler.results.schema import CaseRecord, Measurement, RunRecord, ServedRecord


def recompute_load(
    run: RunRecord,
    case: CaseRecord,
    parts: Sequence[Requests] | None,
    sensors: Mapping[str, Any] | None = None,
) -> Recomputed:
    """Make every figure of a served case again and hold it against the record.

    Args:
        run: the record of its run.
        case: the case.
        parts: its raw samples, of each start of the server, or None where they are lost.
        sensors: reads of its sensors as columns, or None where it has none.
    """
    differences = guarded("spec", lambda: plan_faults(run, case))
    differences += guarded("energies", lambda: energy_faults(run, case, sensors))
    differences += guarded("fidelity", lambda: fidelity_faults(case, architecture_in(run, case)))
    made: dict[str, Measurement] = {}
    served = case.served
    if served is not None and parts is not None:
        differences += guarded("served", lambda: _counts(served, merge(parts)))
        if case.status == "ok":
            if sensors is not None:
                differences += guarded("flags", lambda: without_flags(case, reads_flags(run, case, sensors)))
                made |= load_memory(run, case, sensors)
            differences += guarded("measurements", lambda: _figures(case, served, parts, made))
    left_out = {name: NOT_RECOMPUTED.get(name, UNKNOWN) for name in case.measurements if name not in made}
    return Recomputed(tuple(sorted(made.keys() & case.measurements.keys())), tuple(differences), left_out)


def _counts(served: ServedRecord, requests: Requests) -> Iterator[Difference]:
    status = requests.counts("status")
    follows = {"requests": len(requests), "ok": status.pop("ok", 0), "failures": status}
    for name, value in follows.items():
        if getattr(served, name) != value:
            yield Difference(f"served.{name}", f"is {getattr(served, name)}, the samples give {value}")


def _figures(
    case: CaseRecord, served: ServedRecord, parts: Sequence[Requests], made: dict[str, Measurement]
) -> Iterator[Difference]:
    requests = merge(parts)
    try:
        slos = parse_slos(served.slos)
    except UsageError as error:
        raise ValueError(str(error)) from None
    if served.judgements and judge(requests, slos) != served.judgements:
        yield Difference("served.judgements", "do not follow from the samples")
    load = case.spec.load
    made.update(measurements_of_starts(parts, None if load is None else load.concurrency, slos))
    made.update(served_figures(case.energies))
    made.update(server_figures(case.spec, served.servers))
    for name, again in made.items():
        if name not in case.measurements:
            yield Difference(name, "is missing in the record")
        else:
            yield from measurement_faults(name, case.measurements[name], again)
    # How many cores there were is said in a flag's text and decides about none.
    found = [*flags(requests, case.spec, served, made, 1), *server_flags(case.spec, served.servers)]
    yield from without_flags(case, {flag.code for flag in found})
