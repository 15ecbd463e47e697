"""From a request to a plan: which cases, what each will need, what cannot run, and time for each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from profiler.backends.base import Device
from profiler.engines.base import Engine
from profiler.measure.extrapolate import slice_record
from profiler.measure.steady import MIN_BLOCK_S, MIN_BLOCKS, MIN_WINDOW_BLOCK_LENGTHS
from profiler.models import accounting
from profiler.models.architecture import Architecture
from profiler.models.catalogue import ResolvedModel
from profiler.models.formats import Formats
from profiler.models.slices import Depth, sliced, whole_depth
from profiler.results.schema import CaseSpec, FormatsRecord, PlannedCase, Prediction, SkippedCase, SliceRecord
from profiler.workload.identity import case_id, workload_id
from profiler.workload.scenario import ScenarioPoint

# Activations, the engine's own buffers and what the allocator wastes.
RESERVE_BYTES = 512 * 2**20
RESERVE_FRACTION = 0.05
# Before anything was measured with this engine: half of the read bandwidth in decode, and for
# prefill so many FLOPs per byte of it. Good to a factor of two; used to share out time, never reported.
DECODE_EFFICIENCY = 0.5
FLOPS_PER_BYTE = {"cpu": 12.0}
FLOPS_PER_BYTE_ACCELERATOR = 60.0
# Importing the engine, two probes, ending the process.
START_OVERHEAD_S = 4.0
LOAD_BYTES_PER_S = 3e8
# Share of a start that may go to warm-up.
WARM_UP_SHARE = 0.25
FEWEST_TRIALS = 3  # one to warm up, two to measure
FIRST_LOOK_TRIALS = 8
LAST_LOOK_TRIALS = 20


@dataclass(frozen=True)
class Candidate:
    """A case before it is known whether it can run."""

    device: Device
    engine: Engine
    model: ResolvedModel
    formats: Formats
    point: ScenarioPoint
    options: Mapping[str, Any]
    depth: Depth | None = None

    @property
    def architecture(self) -> Architecture:
        """What runs: the model, or its slice."""
        whole = self.model.architecture
        return whole if self.depth is None else sliced(whole, self.depth)

    @property
    def slice(self) -> SliceRecord | None:
        """The slice as it goes into the record, or None for the whole model."""
        return None if self.depth is None else slice_record(self.depth, whole_depth(self.model.architecture))


def spec_of(candidate: Candidate, seed: int, challenge: str | None = None) -> CaseSpec:
    """Return the case's specification with its identities."""
    point, model = candidate.point, candidate.model
    work = workload_id(
        candidate.architecture,
        prompt_tokens=point.prompt_tokens,
        output_tokens=point.output_tokens,
        batch=point.batch,
    )
    formats = asdict(candidate.formats)
    identity = case_id(
        work,
        engine=candidate.engine.name,
        formats=candidate.formats,
        weights=model.weights,
        weights_digest=model.weights_digest,
        device_key=candidate.device.key,
        seed=seed,
        engine_options={**candidate.options, **engine_options(candidate.slice)},
        nonce=challenge,
    )
    return CaseSpec(
        case_id=identity,
        workload_id=work,
        device_key=candidate.device.key,
        engine=candidate.engine.name,
        model=model.name,
        weights=model.weights,
        weights_digest=model.weights_digest,
        formats=FormatsRecord(**formats),
        scenario=point.scenario.name,
        variant=point.variant,
        prompt_tokens=point.prompt_tokens,
        output_tokens=point.output_tokens,
        batch=point.batch,
        seed=seed,
        slice=candidate.slice,
    )


def engine_options(cut: SliceRecord | None) -> dict[str, Any]:
    """Return what the worker must be told to run a slice; nothing for a whole model."""
    return {} if cut is None else {"layers": [cut.dense, cut.moe]}


def predict(candidate: Candidate, read_bytes_per_s: float | None) -> Prediction:
    """Return what the accounting expects of a case.

    Args:
        candidate: the case.
        read_bytes_per_s: measured read bandwidth of the device, or None when it was not probed.
    """
    architecture, formats, point = candidate.architecture, candidate.formats, candidate.point
    tokens = point.prompt_tokens + point.output_tokens
    weights = accounting.weights_bytes(architecture, formats)
    cache = accounting.kv_cache_bytes(architecture, formats.kv_dtype, tokens, point.batch)
    needed = int((weights + cache) * (1 + RESERVE_FRACTION)) + RESERVE_BYTES
    fits = None
    if candidate.device.memory_total_bytes is not None and candidate.depth is None:
        fits = capacity_tokens(candidate.device.memory_total_bytes, weights, cache / (point.batch * tokens))
    expected = Prediction(
        weights_bytes=weights,
        kv_cache_bytes=cache,
        needed_bytes=needed,
        kv_capacity_tokens=fits,
        max_users_at_context=None if fits is None else fits // tokens,
        trial_s=None,
        basis="accounting of the architecture; the device's bandwidth was not measured",
    )
    if read_bytes_per_s is None:
        return expected
    rate = read_bytes_per_s * FLOPS_PER_BYTE.get(candidate.device.backend, FLOPS_PER_BYTE_ACCELERATOR)
    prefill_s = accounting.prefill_flops(architecture, point.prompt_tokens) * point.batch / rate
    middle = point.prompt_tokens + point.output_tokens // 2
    step = accounting.decode_step_bytes(architecture, formats, point.batch, middle)
    # A batch that is large for the device is limited by arithmetic in decode too.
    step_flops = accounting.decode_flops_per_token(architecture, middle) * point.batch
    step_s = max(step.total / (read_bytes_per_s * DECODE_EFFICIENCY), step_flops / rate)
    trial_s = prefill_s + step_s * (point.output_tokens - 1)
    basis = (
        f"accounting of the architecture at {read_bytes_per_s / 1e9:.1f} GB/s read bandwidth, measured here"
    )
    return expected.model_copy(update={"trial_s": trial_s, "basis": basis})


def capacity_tokens(memory_bytes: int, weights_bytes: float, bytes_per_token: float) -> int | None:
    """Return how many tokens of cache fit beside the weights: the rule of :func:`predict` turned round.

    ``(memory - 512 MiB) / (1 + 5%) - weights`` over the bytes per token, rounded down; never below 0.

    Args:
        memory_bytes: of the device.
        weights_bytes: of the model in its format.
        bytes_per_token: of the cache. None is returned where it is 0.
    """
    if bytes_per_token <= 0:
        return None
    free = (memory_bytes - RESERVE_BYTES) / (1 + RESERVE_FRACTION) - weights_bytes
    return max(0, math.floor(free / bytes_per_token))


def least_seconds(prediction: Prediction, starts: int) -> float:
    """Return the wall time below which a case is not worth starting: load, warm up once, measure twice."""
    return starts * (_load_seconds(prediction) + FEWEST_TRIALS * _trial_seconds(prediction))


def wanted_seconds(prediction: Prediction, starts: int, trials: int) -> float:
    """Return the wall time for ``trials`` measured trials after a warm-up that can be seen to be over.

    Warm-up needs so many blocks and so much time to be judged, and may take a quarter of the whole.
    """
    trial_s = _trial_seconds(prediction)
    warm_up_s = max(MIN_BLOCKS * trial_s, MIN_WINDOW_BLOCK_LENGTHS * MIN_BLOCK_S) + trial_s
    return starts * max(_load_seconds(prediction) + warm_up_s + trials * trial_s, warm_up_s / WARM_UP_SHARE)


def _trial_seconds(prediction: Prediction) -> float:
    return prediction.trial_s if prediction.trial_s is not None else 1.0


def _load_seconds(prediction: Prediction) -> float:
    return START_OVERHEAD_S + prediction.weights_bytes / LOAD_BYTES_PER_S


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
        refusal = _refusal(candidate, spec, prediction, free_bytes.get(candidate.device.key))
        if refusal is not None:
            skipped.append(refusal)
        else:
            fitting.append((spec, prediction))
    planned, too_slow = share_out(fitting, starts, budget_s)
    return planned, (*skipped, *too_slow)


def _refusal(
    candidate: Candidate, spec: CaseSpec, prediction: Prediction, free: int | None
) -> SkippedCase | None:
    architecture = candidate.model.architecture
    reason = candidate.engine.unsupported(architecture, candidate.formats, candidate.device)
    if reason is None and "layers" in candidate.options:
        # The record would pass for one of the whole model.
        reason = "a slice is asked for with --layers, which marks its record; not with --engine-option layers"
    if reason is None and candidate.depth is not None and not getattr(candidate.engine, "runs_slices", False):
        reason = f"engine {candidate.engine.name} cannot run a slice of a model (--layers)"
    if reason is not None:
        return SkippedCase(spec=spec, reason=reason)
    if spec.prompt_tokens + spec.output_tokens > architecture.max_positions:
        total = spec.prompt_tokens + spec.output_tokens
        reason = f"{total} tokens are more than the {architecture.max_positions} positions of {spec.model}"
        return SkippedCase(spec=spec, reason=reason)
    if free is not None and prediction.needed_bytes > free:
        lacking = prediction.needed_bytes - free
        reason = (
            f"does not fit: needs {prediction.needed_bytes / 1e9:.1f} GB "
            f"(weights {prediction.weights_bytes / 1e9:.1f}, KV cache {prediction.kv_cache_bytes / 1e9:.1f}, "
            "the rest reserve), "
            f"{free / 1e9:.1f} GB are free on {spec.device_key}: {lacking / 1e9:.1f} GB short"
        )
        return SkippedCase(spec=spec, reason=reason, lacking_bytes=lacking)
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
        least = least_seconds(prediction, starts)
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
    seconds = [least_seconds(prediction, starts) for _, prediction in cases]
    for trials in (FIRST_LOOK_TRIALS, LAST_LOOK_TRIALS):
        wishes = [
            max(0.0, wanted_seconds(prediction, starts, trials) - given)
            for (_, prediction), given in zip(cases, seconds, strict=True)
        ]
        total = sum(wishes)
        share = min(1.0, left / total) if total > 0 else 0.0
        seconds = [given + share * wish for given, wish in zip(seconds, wishes, strict=True)]
        left -= share * total
    return seconds
