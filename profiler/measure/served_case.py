"""A case that the engine's own server serves: started afresh for each start, driven by the load client."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from statistics import median
from typing import Any

from profiler.load.request import Point
from profiler.measure.case import Measured, is_simulated
from profiler.measure.case_watch import CaseWatch
from profiler.measure.context import CaseContext, StartFailedError
from profiler.measure.energy_summary import energy_flags
from profiler.measure.interference import interference_flag
from profiler.measure.served_energy import served_figures
from profiler.measure.served_figures import server_figures, server_flags
from profiler.measure.served_start import ServedOutcome, ServedStart
from profiler.measure.summary import SIMULATED
from profiler.results.schema import Failure, Flag, NoiseFloor, SamplesRef

WriteSamples = Callable[[dict[str, Any]], SamplesRef]


def measure_served(
    context: CaseContext, seconds: float, noise: NoiseFloor, write_samples: WriteSamples
) -> Measured:
    """Measure a case.

    Args:
        context: the case and everything it needs.
        seconds: wall time for all starts.
        noise: the device's idle probes.
        write_samples: puts the columns of all requests on disk.

    Returns:
        The fields of its record, without stamps, and the reads of sensors.
    """
    began, started = context.clock.now(), datetime.now(UTC)
    watch = CaseWatch(context.sensing, *context.all_devices)
    fields: dict[str, Any] = {
        "spec": context.spec,
        "predicted": context.predicted,
        "started_utc": started.isoformat(timespec="seconds"),
        "simulated": is_simulated(context),
    }
    outcomes: list[ServedOutcome] = []
    try:
        for index in range(context.starts):
            left = began + seconds - context.clock.now()
            outcomes.append(ServedStart(context, index, left / (context.starts - index)).run())
        fields |= _driven(context, outcomes, noise, watch, write_samples)
    except StartFailedError as error:
        failure = Failure(kind=error.kind, stage=error.stage, message=error.message, log_tail=error.log_tail)
        fields |= {"status": "failed", "failure": failure}
    fields |= {
        "phases": tuple(
            phase
            for outcome in outcomes
            if outcome.stretch is not None and outcome.stretch.working_ns is not None
            for phase in outcome.power.phases(watch.origin_ns, *outcome.stretch.working_ns)
        ),
        "energies": tuple(energy for outcome in outcomes for energy in outcome.energies),
        "energy_spans": tuple(one.power.spans for one in outcomes if one.power.spans is not None),
        "elapsed_s": context.clock.now() - began,
    }
    return Measured(fields, {"start": []}, watch.columns())


def _driven(
    context: CaseContext,
    outcomes: list[ServedOutcome],
    noise: NoiseFloor,
    watch: CaseWatch,
    write_samples: WriteSamples,
) -> dict[str, Any]:
    """Return what the loads of all starts make of the case."""
    spec, driver = context.spec, outcomes[0].driver
    assert spec.load is not None
    point = Point.of(spec.load)
    fields = driver.fields(spec, point, [outcome.drove for outcome in outcomes], write_samples)
    servers = tuple(outcome.record for outcome in outcomes)
    energies = tuple(energy for outcome in outcomes for energy in outcome.energies)
    fields["served"] = fields["served"].model_copy(update={"servers": servers})
    if fields["status"] == "failed":
        fields["failure"] = fields["failure"].model_copy(update={"log_tail": outcomes[-1].log_tail})
    if fields["status"] == "ok":
        fields["measurements"] |= server_figures(spec, servers) | served_figures(energies)
    fields["flags"] = (
        *fields["flags"],
        *([SIMULATED] if is_simulated(context) else []),
        *server_flags(spec, servers),
        *(flag for outcome in outcomes for flag in outcome.flags),
        *_interference(outcomes, noise),
        *watch.flags([one.stretch for one in outcomes if one.stretch is not None]),
        *energy_flags([outcome.energies for outcome in outcomes]),
    )
    return fields


def _interference(outcomes: list[ServedOutcome], noise: NoiseFloor) -> list[Flag]:
    """Return a flag for each start whose bandwidth probes before and after differ from the idle ones."""
    idle, found = median(noise.bytes_per_s), []
    for outcome in outcomes:
        before, after = outcome.record.probe_before_bytes_per_s, outcome.record.probe_after_bytes_per_s
        if before is not None and after is not None:
            found.append(interference_flag(before, after, idle, noise.tolerance))
    return [flag for flag in found if flag is not None]
