"""A prediction: figures with their intervals, the terms they are sums of, and what they rest on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from profiler.analysis.predict.calibration import Calibration, Ground, Spread, calibrated, calibration
from profiler.analysis.predict.deployment import Deployment, check
from profiler.analysis.predict.memory import Fit
from profiler.analysis.predict.memory import fit as fit_in_memory
from profiler.analysis.predict.power import busy
from profiler.analysis.predict.serving import Load, Steps, nominal_steps, served
from profiler.analysis.predict.terms import (
    ASSUMED_INTENSITY,
    ASSUMED_LINK_BYTES_PER_S,
    COLUMNS,
    Array,
    step_parts,
)

GROUND_WORDS: Mapping[Ground, str] = {
    "pair": "this engine on other devices of this vendor",
    "engine": "this engine on devices of other vendors only",
    "none": "other ground only: nothing published of this engine on this kind of device was in the fit",
}

THIN = 3


@dataclass(frozen=True)
class Predicted:
    """A predicted figure; never without its interval.

    Attributes:
        value: middle of the prediction in ``unit``.
        unit: base unit.
        low80, high80: 80% interval.
        low95, high95: 95% interval, None: fewer than 19 devices support it.
    """

    value: float
    unit: str
    low80: float
    high80: float
    low95: float | None
    high95: float | None

    @classmethod
    def around(cls, value: float, unit: str, half80: float, half95: float | None = None) -> Predicted:
        """Return ``value`` with symmetric intervals in the logarithm."""
        wide = (None, None) if half95 is None else (value * math.exp(-half95), value * math.exp(half95))
        return cls(value, unit, value * math.exp(-half80), value * math.exp(half80), *wide)


@dataclass(frozen=True)
class Terms:
    """One step as a sum.

    Attributes:
        seconds: by term; they add up to the step.
        within: the parts of terms that overlap: reading and multiplying, cache and scores.
        binds: the largest term, and which of its parts is larger.
    """

    seconds: Mapping[str, float]
    within: Mapping[str, float]
    binds: str

    @property
    def total(self) -> float:
        """Seconds of the step."""
        return sum(self.seconds.values())


@dataclass(frozen=True)
class Forecast:
    """What is predicted of a deployment under a load.

    Attributes:
        deployment: what runs where.
        load: what is asked of it.
        engine: name and generation.
        running: sequences that run at once.
        figures: by metric name; a metric that cannot be predicted is None.
        reasons: why, for those.
        decode: terms of a mean decode step.
        prefill: terms of a prefill.
        memory: how it sits in memory.
        ground: what the factors had seen.
        spread: the spread of the rates, for what stands behind the interval.
        assumptions: one line each.
    """

    deployment: Deployment
    load: Load
    engine: str
    running: float
    figures: Mapping[str, Predicted | None]
    reasons: Mapping[str, str]
    decode: Terms
    prefill: Terms
    memory: Fit
    ground: Ground
    spread: Spread
    assumptions: tuple[str, ...]


@dataclass(frozen=True)
class Correction:
    """What a measurement on one box says about predictions of the same work on another.

    Attributes:
        decode: measured over predicted seconds of a decode step there.
        prefill: the same of a prefill.
        basis: one line: which run and device.
    """

    decode: float
    prefill: float
    basis: str


def predict(
    deployment: Deployment,
    load: Load,
    engine: str,
    correction: Correction | None = None,
    fitted: Calibration | None = None,
) -> Forecast:
    """Predict what users of a deployment see.

    Raises:
        UsageError: the deployment contradicts itself, a peak is unknown, or the engine is.
    """
    check(deployment)
    fitted = calibration() if fitted is None else fitted
    deployment = on_datasheet_scale(deployment, fitted)
    known = calibrated(engine, deployment.hardware.vendor, fitted, deployment.hardware.kind)
    steps = nominal_steps(deployment, load)
    if correction is not None:
        steps = replace(
            steps, decode=steps.decode * correction.decode, prefill=steps.prefill * correction.prefill
        )
    rate, ttft = known.rate, known.ttft
    if correction is not None:  # two devices err apart from each other
        rate = rate.model_copy(update={"half80": rate.half80 * math.sqrt(2), "half95": None})
    figures, reasons = _figures(deployment, load, steps, known.factors, rate, ttft, fitted)
    return Forecast(
        deployment,
        load,
        engine,
        steps.running,
        figures,
        reasons,
        _terms(steps.decode, known.factors),
        _terms(steps.prefill, known.factors),
        fit_in_memory(deployment),
        known.ground,
        rate,
        (*_assumptions(deployment, load, engine, steps), *([] if correction is None else [correction.basis])),
    )


def on_datasheet_scale(deployment: Deployment, fitted: Calibration) -> Deployment:
    """The factors are on datasheet peaks, so ceilings that were measured are raised to their scale."""
    hardware = deployment.hardware
    if not hardware.measured:
        return deployment
    bandwidth = hardware.memory_bandwidth_bytes_per_s
    if bandwidth is not None and "memory_bandwidth" in hardware.measured:
        bandwidth = replace(bandwidth, value=bandwidth.value / fitted.bandwidth_reached)
    flops = {
        dtype: replace(peak, value=peak.value / fitted.matrix_reached)
        if f"flops.{dtype}" in hardware.measured
        else peak
        for dtype, peak in hardware.flops.items()
    }
    scaled = replace(hardware, memory_bandwidth_bytes_per_s=bandwidth, flops=flops)
    return replace(deployment, hardware=scaled)


def _figures(
    deployment: Deployment,
    load: Load,
    steps: Steps,
    factors: Array,
    rate: Spread,
    ttft: Spread,
    fitted: Calibration,
) -> tuple[dict[str, Predicted | None], dict[str, str]]:
    one = served(
        np.array(load.kind),
        steps.decode,
        steps.prefill,
        np.array(steps.running),
        factors,
        prompt=np.array(load.prompt),
        output=np.array(load.output),
        users=np.array(load.users),
    )
    hardware = deployment.hardware
    figures: dict[str, Predicted | None] = {
        "output_tokens_per_s": Predicted.around(
            float(one.output_tokens_per_s), "tokens/s", rate.half80, rate.half95
        ),
        "tpot_s": Predicted.around(float(one.tpot_s), "s", rate.half80, rate.half95),
        "ttft_s": Predicted.around(float(one.ttft_s), "s", ttft.half80, ttft.half95),
        "power_mean_w": None,
        "energy_per_output_token_j": None,
    }
    reasons = {}
    if not hardware.flops:
        reasons["ttft_s"] = f"{hardware.title}: no rate of matrix products: {hardware.why_unknown('flops')}"
        figures["ttft_s"] = None
    if hardware.tdp_w is None:
        reasons["power_mean_w"] = f"{hardware.title}: TDP {hardware.why_unknown('tdp')}"
        reasons["energy_per_output_token_j"] = reasons["power_mean_w"]
        return figures, reasons
    memory, compute = busy(steps, factors, load.output)
    power = fitted.power
    share = min(power.idle + power.memory * memory + power.compute * compute, 1.0)
    most = hardware.tdp_w.value * deployment.parallel.ranks
    watts = share * most
    around = Predicted.around(watts, "W", power.half80)
    figures["power_mean_w"] = replace(around, high80=min(around.high80, most))
    joules = watts / float(one.output_tokens_per_s)
    figures["energy_per_output_token_j"] = Predicted.around(
        joules, "J/token", math.hypot(power.half80, rate.half80)
    )
    return figures, reasons


def _terms(nominal: Array, factors: Array) -> Terms:
    columns = factors[: len(COLUMNS)]
    seconds = {name: float(value) for name, value in step_parts(nominal, columns).items()}
    scaled = nominal * columns
    within = {name: float(scaled[place]) for place, name in enumerate(COLUMNS)}
    largest = max(seconds, key=lambda name: seconds[name])
    inside = {
        "products": ("weights", "multiply"),
        "attention": ("cache", "scores"),
        "launch": ("layers", "expert_layers"),
        "host": ("step", "sequences"),
        "links": ("waits", "traffic"),
    }[largest]
    part = max(inside, key=lambda name: within[name])
    return Terms(seconds, within, f"{largest} ({part})")


def _assumptions(deployment: Deployment, load: Load, engine: str, steps: Steps) -> tuple[str, ...]:
    hardware, parallel, dtype = deployment.hardware, deployment.parallel, deployment.formats.compute_dtype
    lines = ["speculative decoding and cached prefixes are left out"]
    if parallel.ranks > 1 and not hardware.links:
        lines.append(
            f"link rate unknown ({hardware.why_unknown('links')}): taken as PCIe 4.0 x16, "
            f"{ASSUMED_LINK_BYTES_PER_S / 1e9:.0f} GB/s each way"
        )
    if dtype not in hardware.flops:
        sixteen = hardware.flops.get("bf16") or hardware.flops.get("fp16")
        lines.append(
            f"{dtype} rate unknown: the 16-bit rate is taken"
            if sixteen is not None
            else f"rate of matrix products unknown: {ASSUMED_INTENSITY:.0f} operations per byte are taken"
        )
    if deployment.architecture.experts is not None:
        lines.append("experts are chosen evenly; real routing is uneven")
    if steps.running < load.users:
        lines.append(f"memory holds {steps.running:.0f} sequences at once; the other users wait")
    if engine == "llamacpp" and load.users > 1:
        lines.append("llama.cpp was calibrated with one stream only")
    for dtype_name in hardware.measured:
        lines.append(f"{dtype_name.replace('_', ' ')} as measured, raised to the scale of datasheets")
    return tuple(lines)
