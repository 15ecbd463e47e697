"""The figures of ``run.json`` made once more: what the idle probes give, and what the plan predicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Final

from profiler.ceilings.probe import Probe
from profiler.ceilings.sustained import SUSTAINED, sustained_ceiling
from profiler.measure.differences import Difference, Recomputed, close, guarded, measurement_faults
from profiler.measure.interference import tolerance
from profiler.measure.recompute import architecture_of
from profiler.models import accounting
from profiler.models.formats import Formats
from profiler.results.schema import CaseSpec, Ceiling, ModelRecord, Prediction, RunRecord

READ_BANDWIDTH: Final = "read_bandwidth"
BASELINES_TAKEN: Final = "taken as recorded: the reads of the resting box, before any case, are not kept"
SENSORS_TAKEN: Final = "taken as recorded: what a few seconds of reads before the first case showed"
PREDICTED_NOT_RECOMPUTED: Final[Mapping[str, str]] = {
    "needed_bytes": "the reserve of the plan is a convention of the version that made it",
    "kv_capacity_tokens": "as needed_bytes",
    "max_users_at_context": "as needed_bytes",
    "trial_s": "a guess that shares out time, never a result",
}


def recompute_run(run: RunRecord) -> Recomputed:
    """Make the ceilings, the noise floors and the predictions of a run again."""
    differences = guarded("noise_floors", lambda: _floors(run))
    left_out = dict(PREDICTED_NOT_RECOMPUTED)
    made = ["tolerance", "predicted weights_bytes", "predicted kv_cache_bytes"]
    for ceiling in run.ceilings:
        if ceiling.name == READ_BANDWIDTH:
            made.append(READ_BANDWIDTH)
            differences += guarded(READ_BANDWIDTH, partial(_bandwidth, run, ceiling))
        elif ceiling.measurement.value is not None:
            made.append(ceiling.name)
            differences += guarded(ceiling.name, partial(_of_readings, ceiling))
    if any(baseline.power_w.value is not None for baseline in run.baselines):
        left_out["baselines"] = BASELINES_TAKEN
    if any(sensor.sampled for sensor in run.sensors):
        left_out["ticks and bounds of sensors"] = SENSORS_TAKEN
    for planned in run.cases:
        if planned.predicted is None:
            continue
        differences += guarded("predicted", partial(_predicted, run.models, planned.spec, planned.predicted))
    return Recomputed(tuple(dict.fromkeys(made)), tuple(dict.fromkeys(differences)), left_out)


def _floors(run: RunRecord) -> Iterator[Difference]:
    for floor in run.noise_floors:
        follows = tolerance(floor.bytes_per_s)
        if not close(floor.tolerance, follows):
            yield Difference("tolerance", f"is {floor.tolerance}, the idle probes give {follows}")


def _bandwidth(run: RunRecord, ceiling: Ceiling) -> Iterator[Difference]:
    """The best of the idle probes; with an engine named on the ceiling, of that engine's."""
    own = [
        floor
        for floor in run.noise_floors
        if floor.device_key == ceiling.device_key and ceiling.engine in (None, floor.engine)
    ]
    faults = [
        list(measurement_faults(READ_BANDWIDTH, ceiling.measurement, again.measurement))
        for floor in own
        for again in [
            Probe(floor.bytes_per_s, "bytes/s", floor.method).ceiling(
                ceiling.device_key, READ_BANDWIDTH, ceiling.engine
            )
        ]
    ]
    if not faults:
        yield Difference(READ_BANDWIDTH, "there are no idle probes that it could be the best of")
    elif all(faults):
        yield from faults[0]


def _of_readings(ceiling: Ceiling) -> Iterator[Difference]:
    """A ceiling from its single readings, the way it is made of them."""
    probe = Probe(ceiling.readings, ceiling.measurement.unit, ceiling.ceiling_method)
    if not ceiling.readings:
        yield Difference(ceiling.name, "its single readings are missing")
        return
    kind, _, dtype = ceiling.name.partition(":")
    if kind == SUSTAINED:
        again = sustained_ceiling(probe, ceiling.device_key, dtype, ceiling.engine or "")
    else:
        again = probe.ceiling(ceiling.device_key, ceiling.name, ceiling.engine)
    yield from measurement_faults(ceiling.name, ceiling.measurement, again.measurement)


def _predicted(
    models: tuple[ModelRecord, ...], spec: CaseSpec, predicted: Prediction
) -> Iterator[Difference]:
    model = next((entry for entry in models if entry.name == spec.model), None)
    if model is None:
        return
    architecture, formats = architecture_of(model, spec), Formats(**spec.formats.model_dump())
    tokens = spec.prompt_tokens + spec.output_tokens
    follows = {
        "weights_bytes": accounting.weights_bytes(architecture, formats),
        "kv_cache_bytes": accounting.kv_cache_bytes(architecture, formats.kv_dtype, tokens, spec.batch),
    }
    for name, value in follows.items():
        if getattr(predicted, name) != value:
            recorded = getattr(predicted, name)
            yield Difference(f"predicted {name}", f"is {recorded}, the accounting gives {value}")
