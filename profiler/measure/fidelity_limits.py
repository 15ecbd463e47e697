"""When an engine's answers count as those of the model it claims.

The noise of each format was measured by ``benchmarks/fidelity_noise.py``; docs/method.md has the table
and says what the limits let through.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from profiler.measure.fidelity_answers import Fault
from profiler.models.formats import Formats, arithmetic_of
from profiler.results.fidelity_record import FidelityFigures, FidelityLimits, Verdict

# Largest mean divergence of any dense model and seed that was measured, in nats. fp32 is what two fp32
# log-probabilities can be told apart by.
NOISE = {
    "fp32": 1e-6,
    "fp16": 9.2e-5,
    "bf16": 5.6e-3,
    "w8a16-int8": 0.030,
    "q8_0": 0.033,
    "w8a8-int8": 0.078,
    "fp8-block128": 0.46,
    "q4_0": 2.9,
    "w4a16-g128": 3.1,
}
# Likewise for mixtures of experts, where rounding sends some tokens to other experts.
EXPERTS_NOISE = {
    "fp16": 4.4e-4,
    "bf16": 0.0125,
    "q8_0": 0.058,
    "w8a8-int8": 0.11,
    "fp8-block128": 0.67,
    "q4_0": 3.2,
    "w4a16-g128": 3.5,
}
CACHE_NOISE = {"fp8": 0.13, "int8": 0.46}
# An engine may be this many times as far off as the noisiest that was measured: other kernels, orders of
# summation and accumulators, and models that were not measured.
ALLOWANCE = 2.0
# No format was measured above 3.5 nats, no mistake (a layer left out, a wrong RoPE base) below 4.3.
MOST_OF_ANY_FORMAT = 3.9
# A divergence of K comes from errors of about sqrt(2 K) in the likely logits; what turns the order of
# two round is the difference of their errors, taken at four standard deviations.
GAP_FACTOR = 8.0


class Judgement(NamedTuple):
    """A verdict with everything that belongs to it; see ``Fidelity``."""

    verdict: Verdict
    reason: str | None
    explained_by: str | None
    figures: FidelityFigures
    limits: FidelityLimits


def limits_for(formats: Formats, *, experts: bool = False) -> FidelityLimits:
    """Return what a faithful engine with these formats keeps to.

    Args:
        formats: what it claims.
        experts: whether the model is a mixture of experts.
    """
    table = _table(experts)
    if formats.stored_bytes is not None:
        # The reference has the file's own weights, rounded as they are; only arithmetic is left to differ.
        formats = arithmetic_of(formats)
    # 8-bit arithmetic belongs to the weights' format; a plain dtype adds its own noise.
    parts = (formats.weight_format, formats.compute_dtype, formats.kv_dtype)
    noise = max(table.get(name, 0.0) for name in parts)
    return _limits(noise + CACHE_NOISE.get(formats.kv_dtype, 0.0))


def judge(
    figures: FidelityFigures, formats: Formats, faults: Sequence[Fault] = (), *, experts: bool = False
) -> Judgement:
    """Return the verdict.

    Args:
        figures: how far the engine is from the reference.
        formats: what it claims to compute with.
        faults: what else is wrong with its answers.
        experts: whether the model is a mixture of experts.
    """
    limits = limits_for(formats, experts=experts)
    if faults:
        return Judgement("wrong", "; ".join(fault.text for fault in faults), None, figures, limits)
    if figures.mean_kl is None and figures.greedy_tokens == 0:
        return Judgement("wrong", "it generated no tokens", None, figures, limits)
    seen = _excess(figures, limits)
    if seen is None:
        return Judgement("faithful", None, None, figures, limits)
    for name, noise in _levels(experts):
        if _excess(figures, _limits(noise)) is None:
            return Judgement("degraded", f"{seen}; {name} would explain it", name, figures, limits)
    return Judgement("wrong", f"{seen}; no number format would explain that", None, figures, limits)


def _excess(figures: FidelityFigures, limits: FidelityLimits) -> str | None:
    """Return in which way the figures go beyond the limits, or None."""
    if figures.mean_kl is not None and figures.mean_kl > limits.mean_kl:
        return (
            f"its next-token distributions are {figures.mean_kl:.2g} nats from the fp32 reference's on "
            f"average, {limits.mean_kl:.2g} is the most that its formats explain"
        )
    if figures.greedy_gap is not None and figures.greedy_gap > limits.greedy_gap:
        return (
            f"it chose a token that the fp32 reference gives {figures.greedy_gap:.2g} nats less than its own "
            f"choice, {limits.greedy_gap:.2g} is the most that its formats explain"
        )
    return None


def _table(experts: bool) -> dict[str, float]:
    return NOISE | (EXPERTS_NOISE if experts else {})


def _levels(experts: bool) -> list[tuple[str, float]]:
    """Return every format and its noise, finest first."""
    caches = {f"an {name} KV cache": noise for name, noise in CACHE_NOISE.items()}
    return sorted((_table(experts) | caches).items(), key=lambda entry: entry[1])


def _limits(noise: float) -> FidelityLimits:
    kl = min(ALLOWANCE * noise, MOST_OF_ANY_FORMAT)
    return FidelityLimits(mean_kl=kl, greedy_gap=GAP_FACTOR * kl**0.5)
