"""What real engines make of the nominal terms: fitted factors, and how far predictions were off.

A factor is ``exp(common + engine + vendor + engine on vendor)``, each part drawn towards 0 when it was
fitted: an engine or vendor that the data hardly show keeps the common value.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from profiler.analysis.predict.serving import FACTORS
from profiler.analysis.predict.terms import Array
from profiler.errors import UsageError, unknown
from profiler.hardware.part import Kind
from profiler.yamlio import FileModel, load_yaml

PATH = Path(__file__).resolve().parent / "calibration.yaml"

Ground = Literal["pair", "engine", "none"]
Metric = Literal["rate", "ttft"]

ENGINES = {
    "vllm": "vLLM from 2025 on",
    "vllm-0": "vLLM of 2024",
    "sglang": "SGLang",
    "tensorrt-llm": "TensorRT-LLM from 2025 on",
    "tensorrt-llm-0": "TensorRT-LLM of 2024",
    "deepspeed-mii": "DeepSpeed-MII",
    "llamacpp": "llama.cpp, one stream",
    "vllm-ascend": "vLLM-Ascend",
    "torch": "aiprof's own decoder",
    "endpoint": "whatever serves",
}
"""Engines by name and generation; those without data get the common factors."""

DEFAULT_ENGINE = "vllm"


class SourceUsed(FileModel):
    """A source that the factors were fitted on."""

    name: str
    url: str
    licence: str
    rows: int
    devices: tuple[str, ...]


class Spread(FileModel):
    """How far predictions were from the truth on devices that were left out.

    Attributes:
        group: ``served`` or ``llamacpp``; they err differently.
        ground: what of (engine, vendor) other devices had shown: the ``pair``, the ``engine`` on
            other vendors only, or ``none``.
        metric: ``rate`` (tokens/s and TPOT) or ``ttft``.
        devices: that stand behind it.
        rows: that stand behind it.
        half80: half the width of the 80% interval of ln(truth / prediction), every device counting the
            same, stretched by ``(1 + 1/devices) ** 0.75``.
        half95: of the 95% interval, None with fewer than 19 devices.
    """

    group: Literal["served", "llamacpp"]
    ground: Ground
    metric: Metric
    devices: int
    rows: int
    half80: float = Field(gt=0)
    half95: float | None = None


class PowerFit(FileModel):
    """Watts over TDP: ``idle + memory * busy share of the memory + compute * busy share of the units``."""

    idle: float
    memory: float
    compute: float
    half80: float = Field(gt=0)
    devices: tuple[str, ...]


class Calibration(FileModel):
    """The fitted parameters, as shipped.

    Attributes:
        fitted: date.
        common, engines, vendors, pairs: logarithms of the parts of each factor.
        spreads: see :class:`Spread`.
        power: see :class:`PowerFit`.
        bandwidth_reached, matrix_reached: what probes measure over what datasheets say, median over parts;
            factors are on datasheet peaks, so measured ceilings are divided by these.
        sources: what the fit rests on.
    """

    fitted: str
    common: dict[str, float]
    engines: dict[str, dict[str, float]]
    vendors: dict[str, dict[str, float]]
    pairs: dict[str, dict[str, float]]
    spreads: tuple[Spread, ...] = Field(min_length=1)
    power: PowerFit
    bandwidth_reached: float = Field(gt=0, le=1)
    matrix_reached: float = Field(gt=0, le=1)
    sources: tuple[SourceUsed, ...]


@dataclass(frozen=True)
class Calibrated:
    """The factors of one engine on one vendor's parts.

    Attributes:
        factors: by :data:`~profiler.analysis.predict.serving.FACTORS`.
        ground: what they rest on.
        rate: spread of throughput and time per token.
        ttft: spread of time to first token.
    """

    factors: Array
    ground: Ground
    rate: Spread
    ttft: Spread


@cache
def calibration() -> Calibration:
    """Return the parameters that ship with aiprof.

    Raises:
        InputFileError: the file has faults.
    """
    return load_yaml(PATH, Calibration)


def calibrated(engine: str, vendor: str, fitted: Calibration | None = None, kind: Kind = "gpu") -> Calibrated:
    """Return the factors and spreads for an engine on a vendor's parts of a kind.

    Raises:
        UsageError: the engine is unknown; the line names the nearest.
    """
    if engine not in ENGINES:
        raise UsageError(unknown("engine", engine, ENGINES))
    fitted = calibration() if fitted is None else fitted
    pair = f"{engine} on {vendor}"
    parts = [
        fitted.common,
        fitted.engines.get(engine, {}),
        fitted.vendors.get(vendor, {}),
        fitted.pairs.get(pair, {}),
    ]
    logs = [sum(part.get(name, 0.0) for part in parts) for name in FACTORS]
    ground: Ground = "pair" if pair in fitted.pairs else "engine" if engine in fitted.engines else "none"
    if kind == "cpu":  # no CPU was in the data, whoever made it
        ground = "none"
    group = "llamacpp" if engine == "llamacpp" else "served"
    return Calibrated(
        np.exp(np.array(logs)),
        ground,
        _spread(fitted, group, ground, "rate"),
        _spread(fitted, group, ground, "ttft"),
    )


def _spread(fitted: Calibration, group: str, ground: Ground, metric: Metric) -> Spread:
    """The spread of this ground, or the widest of those that there are where it was never tested."""
    found = [
        spread
        for spread in fitted.spreads
        if (spread.group, spread.ground, spread.metric) == (group, ground, metric)
    ]
    same = [spread for spread in fitted.spreads if spread.metric == metric]
    return found[0] if found else max(same, key=lambda spread: spread.half80)
