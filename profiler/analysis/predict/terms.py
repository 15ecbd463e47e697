"""The terms of a step: what each part of the work would take at the documented peaks.

A step computes the next token of every running sequence (decode) or a whole prompt (prefill). Its
time is a sum (:func:`step_seconds`):

    products    matrices: the larger of reading weights and activations, and multiplying
    attention   the larger of reading the cache, and scores and mixing
    launch      per layer, and again per layer with experts: kernels cost time however small they are
    host        per step and per sequence: scheduling, sampling, detokenising
    links       waiting for the other ranks, and sending them activations

Here everything is nominal: bytes over peak bandwidth, operations over peak rate, counts times a
fixed unit. What a real engine makes of it is in the calibration, one factor per column.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from profiler.analysis.predict.deployment import Deployment
from profiler.errors import UsageError
from profiler.models.accounting import (
    decode_flops_per_token,
    expected_distinct_experts,
    group_bytes,
    kv_bytes_per_token,
    prefill_flops,
)
from profiler.models.architecture import Architecture
from profiler.models.formats import Formats
from profiler.models.tensors import tensor_groups

COLUMNS = (
    "weights",
    "multiply",
    "cache",
    "scores",
    "layers",
    "expert_layers",
    "step",
    "sequences",
    "waits",
    "traffic",
)
"""The columns of a nominal step; the calibration has a factor for each."""

LAUNCH_UNIT_S = 10e-6
STEP_UNIT_S = 1e-3
SEQUENCE_UNIT_S = 10e-6
WAIT_UNIT_S = 10e-6

# Numbers of the residual stream that norms, rotary embedding and residual additions read and write per
# layer and token, in units of the hidden size; and of the MLP's inner width for its activation.
ACTIVATION_PASSES = 12
INNER_PASSES = 3
ACTIVATION_BYTES = 2

# One direction of PCIe 4.0 x16: what any box has. Taken where a link's rate is not published.
ASSUMED_LINK_BYTES_PER_S = 32e9

# Operations per byte of bandwidth where no rate of matrix products is published: the lowest of the
# catalogue's GPUs. Decode of few sequences hardly depends on it; time to first token is not predicted.
ASSUMED_INTENSITY = 60.0

# How sharply the slower of two overlapping parts wins: 1 adds them, large is a plain maximum.
OVERLAP = 3.0

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Matrices:
    """Bytes and operations of a model's matrices that do not depend on the batch."""

    shared_bytes: float
    routed_bytes: float
    shared_flops: float
    routed_flops: float
    head_flops: float


@cache
def _matrices_cached(key: str, arch_and_formats: _Hashable) -> _Matrices:
    arch, formats = arch_and_formats.arch, arch_and_formats.formats
    shared = routed = shared_parameters = routed_parameters = 0.0
    for group in tensor_groups(arch):
        size = group.count * group_bytes(group, arch, formats)
        if group.part == "routed_experts":
            routed += size
            routed_parameters += group.parameters
        elif group.part != "embedding" or arch.tied_embeddings:
            shared += size
            if group.part in ("attention", "dense_mlp", "shared_experts", "router"):
                shared_parameters += group.parameters
    share = 0.0 if arch.experts is None else arch.experts.per_token / arch.experts.count
    head = 2.0 * arch.vocab_size * arch.hidden_size
    return _Matrices(shared, routed, 2 * shared_parameters, 2 * routed_parameters * share, head)


@dataclass(frozen=True)
class _Hashable:
    """An architecture may hold a dict (rope scaling), so it is hashed by its text."""

    arch: Architecture
    formats: Formats

    def __hash__(self) -> int:
        return hash(repr(self))


def _matrices(arch: Architecture, formats: Formats) -> _Matrices:
    held = _Hashable(arch, formats)
    return _matrices_cached(repr(held), held)


def decode_nominal(deployment: Deployment, sequences: float, context: float) -> Array:
    """Return the columns of one decode step.

    Args:
        deployment: what runs where.
        sequences: running sequences over all replicas.
        context: positions that each attends to, on average.

    Raises:
        UsageError: a peak that the term needs is not known.
    """
    arch, parallel = deployment.architecture, deployment.parallel
    per_rank = max(sequences / parallel.data / parallel.pipeline, 1.0)
    together = max(sequences / parallel.pipeline, 1.0)
    at_context = decode_flops_per_token(arch, max(round(context), 1)) - decode_flops_per_token(arch, 1)
    cache_bytes = per_rank * context * kv_bytes_per_token(arch, deployment.formats.kv_dtype)
    return _nominal(deployment, per_rank, together, per_rank, cache_bytes, per_rank * at_context)


def prefill_nominal(deployment: Deployment, prompts: float, tokens: float) -> Array:
    """Return the columns of the prefill of ``prompts`` prompts of ``tokens`` tokens in one go.

    Raises:
        UsageError: a peak that the term needs is not known.
    """
    arch, parallel = deployment.architecture, deployment.parallel
    length = max(round(tokens), 1)
    per_rank = prompts / parallel.data
    scores = prefill_flops(arch, length) - length * (prefill_flops(arch, 2) - prefill_flops(arch, 1))
    cache_bytes = per_rank * length * kv_bytes_per_token(arch, deployment.formats.kv_dtype)
    return _nominal(
        deployment, per_rank * length, prompts * length, per_rank, cache_bytes, per_rank * max(scores, 0.0)
    )


def _nominal(
    deployment: Deployment,
    tokens: float,
    tokens_of_experts: float,
    sequences: float,
    cache_bytes: float,
    attention_flops: float,
) -> Array:
    arch, parallel, hardware = deployment.architecture, deployment.parallel, deployment.hardware
    bandwidth = hardware.memory_bandwidth_bytes_per_s
    if bandwidth is None:
        raise UsageError(
            f"{hardware.title}: {hardware.why_unknown('memory_bandwidth')}: cannot predict decode"
        )
    matrices = _matrices(arch, deployment.formats)
    used = 0.0
    if arch.experts is not None:
        batch = max(round(tokens_of_experts), 1)
        used = (
            expected_distinct_experts(arch.experts.count, arch.experts.per_token, batch) / arch.experts.count
        )
    expert_share = tokens_of_experts / parallel.expert_ranks
    read = matrices.shared_bytes / parallel.tensor + matrices.routed_bytes * used / parallel.expert_ranks
    dense = tokens * matrices.shared_flops + sequences * matrices.head_flops
    flops = dense / parallel.tensor + expert_share * matrices.routed_flops
    cache_ranks = 1 if arch.latent_attention is not None else min(parallel.tensor, arch.kv_heads)
    waits, sent = _exchange(deployment, tokens)
    link = hardware.scale_up_link
    rate = ASSUMED_LINK_BYTES_PER_S if link is None else link.one_direction_bytes_per_s
    expert_layers = 0 if arch.experts is None else arch.layers - arch.experts.dense_layers
    return np.array(
        [
            (read * deployment.weights_factor + _activation_bytes(deployment, tokens)) / bandwidth.value,
            flops / compute_peak(deployment),
            cache_bytes / cache_ranks / bandwidth.value,
            attention_flops / parallel.tensor / attention_peak(deployment),
            arch.layers * LAUNCH_UNIT_S,
            expert_layers * LAUNCH_UNIT_S,
            STEP_UNIT_S,
            sequences * SEQUENCE_UNIT_S,
            waits * WAIT_UNIT_S,
            sent / rate,
        ]
    )


def _activation_bytes(deployment: Deployment, tokens: float) -> float:
    arch = deployment.architecture
    moe = arch.experts
    inner = arch.intermediate_size if moe is None else moe.intermediate_size * (moe.per_token + moe.shared)
    numbers = ACTIVATION_PASSES * arch.hidden_size + INNER_PASSES * inner / deployment.parallel.tensor
    return tokens * arch.layers * numbers * ACTIVATION_BYTES


def _exchange(deployment: Deployment, tokens: float) -> tuple[float, float]:
    """Waits for other ranks, and bytes that a rank sends: ring all-reduces, all-to-alls, stage borders.

    A tensor rank takes part in two all-reduces per layer, each sending ``2 (t - 1) / t`` of its
    buffer (Shoeybi et al. 2019, arXiv:1909.08053; Patarasuk and Yuan 2009). Experts that are spread
    over replicas take two all-to-alls of the tokens' ``k`` copies.
    """
    arch, parallel = deployment.architecture, deployment.parallel
    buffer = tokens * arch.hidden_size * ACTIVATION_BYTES
    waits = sent = 0.0
    if parallel.tensor > 1:
        waits += 2 * arch.layers
        sent += 2 * arch.layers * buffer * 2 * (parallel.tensor - 1) / parallel.tensor
    if arch.experts is not None and parallel.data > 1 and parallel.expert > 1:
        layers = arch.layers - arch.experts.dense_layers
        waits += 2 * layers
        sent += 2 * layers * buffer * arch.experts.per_token * (parallel.expert - 1) / parallel.expert
    waits += parallel.pipeline - 1
    sent += (parallel.pipeline - 1) * buffer
    return waits, sent


def compute_peak(deployment: Deployment) -> float:
    """Dense operations per second of the matrices, bytes/s times :data:`ASSUMED_INTENSITY` if unpublished.

    Raises:
        UsageError: the part has no units for the dtype.
    """
    hardware, dtype = deployment.hardware, deployment.formats.compute_dtype
    if dtype in hardware.lacks:
        raise UsageError(f"{hardware.title}: no {dtype} rate: {hardware.lacks[dtype]}")
    found = hardware.flops.get(dtype)
    return attention_peak(deployment) if found is None else found.value


def attention_peak(deployment: Deployment) -> float:
    """Dense operations per second of scores and mixing, which stay in 16 bits."""
    flops = deployment.hardware.flops
    sixteen = flops.get("bf16") or flops.get("fp16")
    if sixteen is not None:
        return sixteen.value
    bandwidth = deployment.hardware.memory_bandwidth_bytes_per_s
    return ASSUMED_INTENSITY * (1.0 if bandwidth is None else bandwidth.value)


def step_parts(nominal: Array, factors: Array) -> dict[str, Array]:
    """Return seconds by term; the last axis of both arguments is :data:`COLUMNS`."""
    scaled = nominal * factors

    def column(name: str) -> Array:
        found: Array = scaled[..., COLUMNS.index(name)]
        return found

    return {
        "products": _overlapped(column("weights"), column("multiply")),
        "attention": _overlapped(column("cache"), column("scores")),
        "launch": column("layers") + column("expert_layers"),
        "host": column("step") + column("sequences"),
        "links": column("waits") + column("traffic"),
    }


def step_seconds(nominal: Array, factors: Array) -> Array:
    """Return the seconds of a step."""
    total: Array = sum(step_parts(nominal, factors).values(), start=np.zeros(()))
    return total


def _overlapped(one: Array, other: Array) -> Array:
    larger = np.maximum(np.maximum(one, other), 1e-30)
    joined: Array = larger * ((one / larger) ** OVERLAP + (other / larger) ** OVERLAP) ** (1 / OVERLAP)
    return joined
