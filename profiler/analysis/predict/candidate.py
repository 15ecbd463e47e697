"""Devices that are not here beside those that were measured: the same cases, predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from profiler.analysis.candidates import Candidate
from profiler.analysis.evidence import CaseEvidence
from profiler.analysis.figures import Figure
from profiler.analysis.predict.calibration import ENGINES
from profiler.analysis.predict.deployment import Deployment, default_parallel
from profiler.analysis.predict.forecast import Forecast, Predicted, predict
from profiler.analysis.predict.options import default_engine
from profiler.analysis.predict.scale import architecture_of
from profiler.analysis.predict.serving import Load
from profiler.errors import UsageError
from profiler.hardware.catalogue import get_hardware
from profiler.hardware.part import Hardware
from profiler.models.formats import Formats
from profiler.results.read import Run
from profiler.results.schema import CaseSpec, DeviceRecord

BACKEND = "predicted"


@dataclass(frozen=True)
class Elsewhere:
    """A measured case as it would be on another device.

    Attributes:
        spec: the case that was measured.
        forecast: the prediction, or None.
        reason: why there is none, or an empty string.
    """

    spec: CaseSpec
    forecast: Forecast | None
    reason: str


def selected(text: str) -> tuple[Hardware, int]:
    """Return part and count that ``H200`` or ``H200:8`` stands for.

    Raises:
        UsageError: the part is unknown, or the count is not a whole number above 0.
    """
    name, _, count = text.partition(":")
    if count and not (count.isdigit() and int(count) > 0):
        raise UsageError(f"'{text}': write the part and how many of them, e.g. {name}:2")
    return get_hardware(name), int(count or 1)


def elsewhere(runs: Sequence[Run], hardware: Hardware, count: int) -> list[Elsewhere]:
    """Return the offline cases of runs, each kind of work once, as predicted on ``count`` devices."""
    found: dict[tuple[str, str, str], Elsewhere] = {}
    for run in runs:
        models = {model.name: model.architecture for model in run.record.models}
        for planned in run.record.cases:
            spec = planned.spec
            key = (spec.workload_id, spec.formats.weight_format, spec.engine)
            if spec.load is None and spec.model in models and key not in found:
                found[key] = _elsewhere(spec, models[spec.model], hardware, count)
    return list(found.values())


def _elsewhere(spec: CaseSpec, fields: Mapping[str, object], hardware: Hardware, count: int) -> Elsewhere:
    formats = Formats(**spec.formats.model_dump())
    engine = spec.engine if spec.engine in ENGINES and spec.engine != "torch" else default_engine(hardware)
    try:
        architecture = architecture_of(fields)
        parallel = default_parallel(hardware, architecture, count)
        load = Load("static", spec.prompt_tokens, spec.output_tokens, spec.batch)
        forecast = predict(Deployment(hardware, architecture, formats, parallel), load, engine)
    except UsageError as error:
        return Elsewhere(spec, None, str(error))
    if forecast.memory.fits(1, spec.prompt_tokens + spec.output_tokens) is False:
        return Elsewhere(spec, None, f"does not fit on {count} x {hardware.name}")
    return Elsewhere(spec, forecast, "")


def case_figures(one: Forecast) -> dict[str, Predicted]:
    """The figures of an offline case under the names that measured ones have."""
    rate, tpot, ttft = (one.figures[name] for name in ("output_tokens_per_s", "tpot_s", "ttft_s"))
    assert rate is not None
    assert tpot is not None
    found = {"output_tokens_per_s": rate, "tpot_s": tpot}
    batch = one.load.users
    decode = Predicted(batch / tpot.value, "tokens/s", batch / tpot.high80, batch / tpot.low80, None, None)
    if tpot.low95 is not None and tpot.high95 is not None:
        decode = replace(decode, low95=batch / tpot.high95, high95=batch / tpot.low95)
    found["decode_tokens_per_s"] = decode
    if ttft is not None:
        found |= {"ttft_s": ttft, "prefill_s": ttft}
    return found


def candidate(runs: Sequence[Run], text: str) -> Candidate:
    """Return a candidate of the gate whose figures are all predicted.

    Raises:
        UsageError: the selector names no part.
    """
    hardware, count = selected(text)
    memory = hardware.memory_bytes
    device = DeviceRecord(
        key=f"predicted-{hardware.name}-{count}",
        backend=BACKEND,
        name=f"{count} x {hardware.title} (predicted)",
        memory_total_bytes=None if memory is None else int(memory.value) * count,
        simulated=False,
        verified="predicted, never measured",
        details={},
        facts={},
    )
    cases = tuple(_evidence(one, device) for one in elsewhere(runs, hardware, count))
    return Candidate(device.name, device, (), cases, simulated=False)


def _evidence(one: Elsewhere, device: DeviceRecord) -> CaseEvidence:
    figures = {} if one.forecast is None else case_figures(one.forecast)
    spec = one.spec.model_copy(update={"device_key": device.key})
    return CaseEvidence(
        spec=spec,
        device=device,
        status="skipped" if one.forecast is None else "ok",
        records=(),
        runs=(),
        engine_version="",
        simulated=False,
        reason=one.reason or None,
        forecast={name: _figure(figure) for name, figure in figures.items()},
    )


def _figure(one: Predicted) -> Figure:
    wide = None if one.low95 is None or one.high95 is None else (one.low95, one.high95)
    note = f"80% interval {one.low80:.4g} to {one.high80:.4g} {one.unit}"
    return Figure("recorded", one.value, recorded_95=wide, predicted=True, note=note)
