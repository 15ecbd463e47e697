"""Measured on this box, predicted on that one: a run corrects the predictions of the same work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from profiler.analysis.predict.calibration import ENGINES, Calibration, calibrated, calibration
from profiler.analysis.predict.deployment import Deployment
from profiler.analysis.predict.forecast import Correction, on_datasheet_scale
from profiler.analysis.predict.serving import Load, nominal_steps
from profiler.analysis.predict.terms import COLUMNS, step_seconds
from profiler.errors import UsageError
from profiler.hardware.catalogue import find_hardware
from profiler.hardware.measured import MATRIX, READ_BANDWIDTH
from profiler.hardware.part import Hardware, Source, Sourced
from profiler.models.architecture import Architecture, Experts, LatentAttention
from profiler.models.formats import Formats
from profiler.results.case_record import CaseRecord
from profiler.results.read import Run


def hardware_of(run: Run, device_key: str) -> Hardware:
    """Return the device of a run with the ceilings measured there; from the catalogue where it has it.

    Raises:
        UsageError: no read bandwidth was measured.
    """
    device = next(device for device in run.record.devices if device.key == device_key)
    origin = Source(f"run {run.record.run_id[:12]}", None, "own measurement", run.record.created_utc[:10])
    best: dict[str, Sourced] = {}
    for ceiling in run.record.ceilings:
        value = ceiling.measurement.value
        if ceiling.device_key == device_key and value and value > 0:
            unit = "bytes/s" if ceiling.name == READ_BANDWIDTH else "FLOP/s"
            if ceiling.name not in best or best[ceiling.name].value < value:
                best[ceiling.name] = Sourced(value, unit, origin, "measured", ceiling.ceiling_method)
    bandwidth = best.get(READ_BANDWIDTH)
    if bandwidth is None:
        raise UsageError(
            f"run {run.path.name}: measured no read bandwidth of '{device.name}'; nothing to scale from"
        )
    flops = {name.removeprefix(MATRIX): one for name, one in best.items() if name.startswith(MATRIX)}
    measured = {"memory_bandwidth": bandwidth} | {f"flops.{dtype}": one for dtype, one in flops.items()}
    part = find_hardware(device.name)
    if part is None:
        memory = device.memory_total_bytes
        size = None if memory is None else Sourced(float(memory), "bytes", origin, "measured")
        kind = "cpu" if device.backend == "cpu" else "gpu"
        part = Hardware(
            name="box", title=device.name, vendor="unknown", kind=kind, aliases=(), driver_names=(),  # type: ignore[arg-type]
            memory_bytes=size, memory_bandwidth_bytes_per_s=bandwidth, flops={}, lacks={}, tdp_w=None,
            links=(), unknown={}, shipped=False,
        )  # fmt: skip
    return replace(
        part, memory_bandwidth_bytes_per_s=bandwidth, flops={**part.flops, **flops}, measured=measured
    )


def correction_from(
    run: Run, target: Deployment, load: Load, fitted: Calibration | None = None
) -> Correction:
    """Return what the run's case nearest to the load says about predictions of its model and formats.

    Raises:
        UsageError: the run is simulated, or has no finished case of the model in these formats.
    """
    if run.record.simulated:
        raise UsageError(f"run {run.path.name}: is simulated; no hardware stands behind it")
    models = {model.name: architecture_of(model.architecture) for model in run.record.models}
    cases = [
        case
        for case in run.cases
        if case.status == "ok"
        and models.get(case.spec.model) == target.architecture
        and case.spec.formats.weight_format == target.formats.weight_format
        and _seconds(case) is not None
    ]
    if not cases:
        have = ", ".join(
            sorted({f"{case.spec.model} {case.spec.formats.weight_format}" for case in run.cases})
        )
        raise UsageError(
            f"run {run.path.name}: no finished case of this model in {target.formats.weight_format} with "
            f"times of both phases (has: {have or 'none'})"
        )
    case = min(cases, key=lambda one: _distance(one, load))
    return _correction(run, case, target, calibration() if fitted is None else fitted)


def _correction(run: Run, case: CaseRecord, target: Deployment, fitted: Calibration) -> Correction:
    spec = case.spec
    formats = Formats(**spec.formats.model_dump())
    here = on_datasheet_scale(
        Deployment(hardware_of(run, spec.device_key), target.architecture, formats), fitted
    )
    work = Load("static", spec.prompt_tokens, spec.output_tokens, spec.batch)
    steps = nominal_steps(here, work)
    engine = spec.engine if spec.engine in ENGINES else "endpoint"
    factors = calibrated(engine, here.hardware.vendor, fitted).factors[: len(COLUMNS)]
    measured = _seconds(case)
    assert measured is not None
    prefill_s, decode_s = measured
    device = next(device for device in run.record.devices if device.key == spec.device_key)
    return Correction(
        decode_s / float(step_seconds(steps.decode, factors)),
        prefill_s / float(step_seconds(steps.prefill, factors)),
        f"scaled from run {run.path.name}: {spec.model} at batch {spec.batch}, {spec.prompt_tokens} -> "
        f"{spec.output_tokens} tokens on {device.name} with {spec.engine}",
    )


def _seconds(case: CaseRecord) -> tuple[float, float] | None:
    """Measured seconds of the prefill and of a decode step."""
    prefill = case.measurements.get("prefill_s")
    rate = case.measurements.get("decode_tokens_per_s")
    if prefill is None or rate is None or not prefill.value or not rate.value:
        return None
    return prefill.value, case.spec.batch / rate.value


def _distance(case: CaseRecord, load: Load) -> float:
    """How unlike the load a case is, in octaves of batch and lengths."""
    pairs = (
        (case.spec.batch, load.users),
        (case.spec.prompt_tokens, load.prompt),
        (case.spec.output_tokens, load.output),
    )
    return float(np.sum([abs(math.log2(one / max(other, 1.0))) for one, other in pairs]))


def architecture_of(fields: Mapping[str, object]) -> Architecture:
    """Return the architecture that a record holds as JSON."""
    values: dict[str, object] = dict(fields)
    experts, latent = values.get("experts"), values.get("latent_attention")
    if isinstance(experts, dict):
        values["experts"] = Experts(**experts)
    if isinstance(latent, dict):
        values["latent_attention"] = LatentAttention(**latent)
    return Architecture(**values)  # type: ignore[arg-type]
