"""What the accounting expects of a case: memory, and time to share out the budget by."""

from __future__ import annotations

import math

from profiler.measure.candidate import Candidate
from profiler.measure.steady import MIN_BLOCK_S, MIN_BLOCKS, MIN_WINDOW_BLOCK_LENGTHS
from profiler.models import accounting
from profiler.models.parallel import DeviceShare, device_share, why_not
from profiler.results.schema import Prediction

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
# The same, and starting a server: some 30 s for vLLM's on a CPU.
SERVER_OVERHEAD_S = 45.0
LOAD_BYTES_PER_S = 3e8
# Share of a start that may go to warm-up.
WARM_UP_SHARE = 0.25
FEWEST_TRIALS = 3  # one to warm up, two to measure


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
    share = _device_share(candidate, tokens)
    needed = _with_reserve(weights + cache)
    of_devices: dict[str, int] = {}
    if share is not None:
        # The ranks of a CPU are on one device, which holds what all of them hold.
        ranks = candidate.parallel.devices
        beside = ranks if candidate.device.backend == "cpu" else 1
        of_devices = {
            "device_weights_bytes": beside * share.weights_bytes,
            "device_kv_cache_bytes": beside * share.kv_cache_bytes,
            "device_needed_bytes": beside * _with_reserve(share.weights_bytes + share.kv_cache_bytes),
        }
        needed = ranks * _with_reserve(share.weights_bytes + share.kv_cache_bytes)
        if read_bytes_per_s is not None and candidate.device.backend != "cpu":
            # Stages wait for each other; only the devices within one work on a token together.
            read_bytes_per_s *= candidate.parallel.tp * candidate.parallel.dp
    fits = None
    if candidate.device.memory_total_bytes is not None and candidate.depth is None and share is None:
        fits = capacity_tokens(candidate.device.memory_total_bytes, weights, cache / (point.batch * tokens))
    expected = Prediction(
        weights_bytes=weights,
        kv_cache_bytes=cache,
        needed_bytes=needed,
        kv_capacity_tokens=fits,
        max_users_at_context=None if fits is None else fits // tokens,
        trial_s=None,
        basis="accounting of the architecture; the device's bandwidth was not measured",
        **of_devices,
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


def _device_share(candidate: Candidate, tokens: int) -> DeviceShare | None:
    """Return what the fullest of several devices holds, None for one device and where it cannot be spread."""
    parallel, architecture = candidate.parallel, candidate.architecture
    if parallel.is_one or why_not(architecture, parallel) is not None:
        return None
    return device_share(architecture, candidate.formats, parallel, tokens=tokens, batch=candidate.point.batch)


def _with_reserve(size: int) -> int:
    return int(size * (1 + RESERVE_FRACTION)) + RESERVE_BYTES


def least_seconds(prediction: Prediction, starts: int, *, served: bool = False) -> float:
    """Return the wall time below which a case is not worth starting: load, warm up once, measure twice.

    Args:
        prediction: of the case.
        starts: of the worker, or of the server.
        served: whether a server is started.
    """
    return starts * (_load_seconds(prediction, served) + FEWEST_TRIALS * _trial_seconds(prediction))


def wanted_seconds(prediction: Prediction, starts: int, trials: int, *, served: bool = False) -> float:
    """Return the wall time for ``trials`` measured trials after a warm-up that can be seen to be over.

    Warm-up needs so many blocks and so much time to be judged, and may take a quarter of the whole.
    """
    trial_s = _trial_seconds(prediction)
    warm_up_s = max(MIN_BLOCKS * trial_s, MIN_WINDOW_BLOCK_LENGTHS * MIN_BLOCK_S) + trial_s
    return starts * max(
        _load_seconds(prediction, served) + warm_up_s + trials * trial_s, warm_up_s / WARM_UP_SHARE
    )


def _trial_seconds(prediction: Prediction) -> float:
    return prediction.trial_s if prediction.trial_s is not None else 1.0


def _load_seconds(prediction: Prediction, served: bool) -> float:
    overhead = SERVER_OVERHEAD_S if served else START_OVERHEAD_S
    # Devices load their shares at the same time.
    loaded = prediction.device_weights_bytes or prediction.weights_bytes
    return overhead + loaded / LOAD_BYTES_PER_S
