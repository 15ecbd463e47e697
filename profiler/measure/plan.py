"""From a request to a plan: which cases, what each will need, what cannot run, and time for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from profiler.measure.candidate import Candidate, engine_options, spec_of
from profiler.measure.predicted import FEWEST_TRIALS, capacity_tokens, least_seconds, predict, wanted_seconds
from profiler.models.parallel import why_not
from profiler.results.schema import CaseSpec, PlannedCase, Prediction, SkippedCase

__all__ = [
    "Candidate",
    "capacity_tokens",
    "engine_options",
    "least_seconds",
    "plan_cases",
    "predict",
    "share_out",
    "spec_of",
]

FIRST_LOOK_TRIALS = 8
LAST_LOOK_TRIALS = 20


def plan_cases(
    candidates: Sequence[Candidate],
    *,
    free_bytes: dict[str, int | None],
    bandwidth: dict[tuple[str, str], float],
    starts: int,
    budget_s: float,
    seed: int,
    challenge: str | None = None,
) -> tuple[tuple[PlannedCase, ...], tuple[SkippedCase, ...]]:
    """Decide what runs and for how long.

    Args:
        candidates: every combination that was asked for.
        free_bytes: free memory by device key, None where it is not known.
        bandwidth: measured read bandwidth by (device key, engine).
        starts: fresh processes per case.
        budget_s: wall time of the whole sweep.
        seed: seed of the run.
        challenge: of a verifier, or None.

    Returns:
        The cases in the order they will run, and those that cannot, with the reason.
    """
    fitting: list[tuple[CaseSpec, Prediction]] = []
    skipped: list[SkippedCase] = []
    seen: set[str] = set()
    for candidate in candidates:
        spec = spec_of(candidate, seed, challenge)
        if spec.case_id in seen:
            continue  # asked for twice, e.g. the same device under two selectors
        seen.add(spec.case_id)
        prediction = predict(candidate, bandwidth.get((candidate.device.key, candidate.engine.name)))
        refusal = _refusal(candidate, spec, prediction, free_bytes)
        if refusal is not None:
            skipped.append(refusal)
        else:
            fitting.append((spec, prediction))
    planned, too_slow = share_out(fitting, starts, budget_s)
    return planned, (*skipped, *too_slow)


def _refusal(
    candidate: Candidate, spec: CaseSpec, prediction: Prediction, free_bytes: Mapping[str, int | None]
) -> SkippedCase | None:
    architecture = candidate.model.architecture
    reason = candidate.engine.unsupported(architecture, candidate.formats, candidate.device)
    if reason is None and "layers" in candidate.options:
        # The record would pass for one of the whole model.
        reason = "a slice is asked for with --layers, which marks its record; not with --engine-option layers"
    if reason is None and candidate.depth is not None and not getattr(candidate.engine, "runs_slices", False):
        reason = f"engine {candidate.engine.name} cannot run a slice of a model (--layers)"
    reason = _why_not_these_weights(candidate) or reason
    reason = reason or _why_not_parallel(candidate) or _why_not_speculative(candidate)
    if reason is not None:
        return SkippedCase(spec=spec, reason=reason)
    total = candidate.longest or spec.prompt_tokens + spec.output_tokens
    if total > architecture.max_positions:
        reason = f"{total} tokens are more than the {architecture.max_positions} positions of {spec.model}"
        return SkippedCase(spec=spec, reason=reason)
    return _does_not_fit(spec, prediction, free_bytes)


def _does_not_fit(
    spec: CaseSpec, prediction: Prediction, free_bytes: Mapping[str, int | None]
) -> SkippedCase | None:
    """Return the refusal of a case that needs more memory than a device of it has free."""
    known = [(free, key) for key in spec.all_devices if (free := free_bytes.get(key)) is not None]
    free, key = min(known, default=(None, ""))
    several = prediction.device_needed_bytes is not None
    needed = prediction.device_needed_bytes or prediction.needed_bytes
    if free is None or needed <= free:
        return None
    weights = prediction.device_weights_bytes if several else prediction.weights_bytes
    cache = prediction.device_kv_cache_bytes if several else prediction.kv_cache_bytes
    each = " on each device" if several and len(spec.all_devices) > 1 else ""
    lacking = needed - free
    reason = (
        f"does not fit: needs {needed / 1e9:.1f} GB{each} "
        f"(weights {(weights or 0) / 1e9:.1f}, KV cache {(cache or 0) / 1e9:.1f}, the rest reserve), "
        f"{free / 1e9:.1f} GB are free on {key}: {lacking / 1e9:.1f} GB short"
    )
    return SkippedCase(spec=spec, reason=reason, lacking_bytes=lacking)


def _why_not_these_weights(candidate: Candidate) -> str | None:
    """Return why the engine does not read the file that the weights are in, or None."""
    kind, name = candidate.model.weights, candidate.engine.name
    if (
        kind == "random"
        or candidate.engine.simulated
        or kind in getattr(candidate.engine, "reads", ("folder",))
    ):
        return None
    if kind == "file":
        return f"engine {name} reads safetensors, {candidate.model.name} is a GGUF file: --engine llamacpp"
    return f"engine {name} reads GGUF files: give the file, or another engine for {candidate.model.name}"


def _why_not_parallel(candidate: Candidate) -> str | None:
    """Return why a case cannot be spread over devices as asked, or None."""
    if candidate.parallel.is_one:
        return None
    if candidate.depth is not None:
        return "a slice of a model (--layers) runs on one device"
    fault = why_not(candidate.model.architecture, candidate.parallel)
    if fault is not None:
        return f"{candidate.model.name} cannot be spread so: {fault}"
    ask = getattr(candidate.engine, "why_not_parallel", None)
    found: str | None = None if ask is None else ask(candidate.parallel, candidate.device)
    return found


def _why_not_speculative(candidate: Candidate) -> str | None:
    if "speculative" in candidate.options and candidate.model.weights == "random":
        return (
            "speculative decoding with random weights: what is accepted would mean nothing; give --model a "
            "folder of real weights"
        )
    return None


def share_out(
    cases: Sequence[tuple[CaseSpec, Prediction]], starts: int, budget_s: float
) -> tuple[tuple[PlannedCase, ...], tuple[SkippedCase, ...]]:
    """Share the budget over the cases; those for which not even the fewest trials fit are skipped.

    Each case first gets time for its fewest trials, in the order asked for. What is left goes to all
    in proportion to what they still want.
    """
    kept: list[tuple[CaseSpec, Prediction]] = []
    skipped: list[SkippedCase] = []
    left = budget_s
    for spec, prediction in cases:
        least = least_seconds(prediction, starts, served=spec.load is not None)
        if least > left:
            reason = (
                f"needs about {least:.0f} s for {starts} start(s) of {FEWEST_TRIALS} trials, "
                f"{left:.0f} s of the budget were left: give a larger --budget"
            )
            skipped.append(SkippedCase(spec=spec, reason=reason))
            continue
        left -= least
        kept.append((spec, prediction))
    planned = []
    for (spec, prediction), seconds in zip(kept, _seconds(kept, starts, left), strict=True):
        planned.append(PlannedCase(spec=spec, predicted=prediction, seconds=seconds))
    return tuple(planned), tuple(skipped)


def _seconds(cases: Sequence[tuple[CaseSpec, Prediction]], starts: int, left: float) -> list[float]:
    """Add what is left to each case's minimum: first towards the first look, then towards the last."""
    seconds = [least_seconds(one, starts, served=spec.load is not None) for spec, one in cases]
    for trials in (FIRST_LOOK_TRIALS, LAST_LOOK_TRIALS):
        wishes = [
            max(0.0, wanted_seconds(one, starts, trials, served=spec.load is not None) - given)
            for (spec, one), given in zip(cases, seconds, strict=True)
        ]
        total = sum(wishes)
        share = min(1.0, left / total) if total > 0 else 0.0
        seconds = [given + share * wish for given, wish in zip(seconds, wishes, strict=True)]
        left -= share * total
    return seconds
