"""From the seconds of steps to what a user sees: throughput, time per token, time to first token.

With ``d`` seconds for a decode step of all running sequences, ``p`` for the prefill of one prompt, ``n``
output tokens and ``N`` sequences in flight, a sequence lives ``N p + n d`` in the steady state: while it
makes ``n`` tokens, all N prompts that take part pass through the same devices. Throughput follows:
``N n / (N p + n d)``. How the ``N p`` divides between waiting for the first token and stalls between
tokens depends on the engine: one that interleaves prompts with decoding (chunked prefill) stalls
tokens, one that finishes prompts first lets them wait. The share that goes into stalls is
``interleave / (1 + interleave)``, fitted per engine. Speculative decoding and cached prefixes are
left out. All functions take floats or arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from profiler.analysis.predict.deployment import Deployment
from profiler.analysis.predict.terms import COLUMNS, Array, decode_nominal, prefill_nominal, step_seconds
from profiler.models.accounting import kv_bytes_per_token, weights_bytes

EXTRA = ("prefill", "drain", "interleave")
"""Factors beside those of the columns: on prefill among decoding, on draining a queue, and see above."""

FACTORS = COLUMNS + EXTRA

Kind = Literal["static", "closed", "drain", "single"]

# What engines leave of the memory when they size their cache, and what the runtime takes per rank.
# This is about speed; whether a model fits is judged more carefully (memory.py).
CACHE_SHARE = 0.95
RUNTIME_BYTES = 0.7e9


@dataclass(frozen=True)
class Load:
    """What is asked of the deployment.

    Attributes:
        kind: ``static``: one batch, all start together and end together; ``closed``: users who ask
            again as soon as they have their answer; ``drain``: all requests at once; ``single``: one
            stream, prefill and decode measured apart.
        prompt: tokens per prompt, mean.
        output: tokens per answer, mean.
        users: batch, users or requests.
        limit: most sequences that the engine runs at once per replica, 0: as many as fit.
    """

    kind: Kind
    prompt: float
    output: float
    users: float
    limit: float = 0.0


@dataclass(frozen=True)
class Steps:
    """The nominal steps of a load on a deployment.

    Attributes:
        decode: columns of the mean decode step with ``running`` sequences.
        prefill: columns of one prefill: the whole batch for ``static``, one prompt otherwise.
        running: sequences that run at once.
    """

    decode: Array
    prefill: Array
    running: float


def cache_tokens(deployment: Deployment) -> float:
    """Tokens whose keys and values fit beside the weights, for speed; infinite if memory is unknown."""
    memory, arch, parallel = deployment.hardware.memory_bytes, deployment.architecture, deployment.parallel
    if memory is None:
        return float("inf")
    copies = parallel.data if parallel.expert == 1 else 1
    weights = weights_bytes(arch, deployment.formats) * deployment.weights_factor * copies
    left = parallel.ranks * (memory.value * CACHE_SHARE - RUNTIME_BYTES) - weights
    return left / (kv_bytes_per_token(arch, deployment.formats.kv_dtype) * cache_copies(deployment))


def cache_copies(deployment: Deployment) -> float:
    """How often each cached token is stored: latent caches and fewer KV heads than ranks repeat it."""
    parallel, arch = deployment.parallel, deployment.architecture
    if arch.latent_attention is not None:
        return parallel.tensor
    return max(1.0, parallel.tensor / arch.kv_heads)


def running_sequences(deployment: Deployment, load: Load) -> float:
    """Sequences that run at once: as many as are asked for, allowed and fit."""
    growing = 0.75 if load.kind == "static" else 0.5  # a batch is admitted before its answers have grown
    seats = cache_tokens(deployment) / (load.prompt + load.output * growing)
    allowed = load.limit * deployment.parallel.data if load.limit else float("inf")
    return max(min(load.users, seats, allowed), 1.0)


def nominal_steps(deployment: Deployment, load: Load) -> Steps:
    """Return the nominal steps.

    Raises:
        UsageError: a peak that a term needs is not known.
    """
    running = running_sequences(deployment, load)
    prompts = running if load.kind == "static" else 1.0
    return Steps(
        decode_nominal(deployment, running, load.prompt + load.output / 2),
        prefill_nominal(deployment, prompts, load.prompt),
        running,
    )


@dataclass(frozen=True)
class Served:
    """What users see, base units.

    Attributes:
        output_tokens_per_s: of all users together.
        tpot_s: mean time per output token after the first.
        ttft_s: mean time to first token.
        prefill_tokens_per_s: of one prompt alone.
        decode_s: one decode step.
        prefill_s: one prefill.
    """

    output_tokens_per_s: Array
    tpot_s: Array
    ttft_s: Array
    prefill_tokens_per_s: Array
    decode_s: Array
    prefill_s: Array


def served(
    kind: NDArray[np.str_],
    decode: Array,
    prefill: Array,
    running: Array,
    factors: Array,
    *,
    prompt: Array,
    output: Array,
    users: Array,
) -> Served:
    """Return what users see; ``factors`` has :data:`FACTORS` on its last axis, ``kind`` is text."""
    columns = factors[..., : len(COLUMNS)]
    step, first = step_seconds(decode, columns), step_seconds(prefill, columns)
    extra = {name: factors[..., len(COLUMNS) + place] for place, name in enumerate(EXTRA)}
    among = first * extra["prefill"]
    stalls = extra["interleave"] / (1 + extra["interleave"])
    rounds = np.maximum(users / running, 1.0)
    rest = np.maximum(output - 1, 0.0)
    life = running * among + output * step
    batch_s = (first + rest * step) * rounds
    others = np.maximum(running - 1, 0.0) * among
    static, drain, single = kind == "static", kind == "drain", kind == "single"
    rate = np.select(
        [static, drain, single],
        [users * output / batch_s, running * output / life / extra["drain"], 1 / step],
        running * output / life,
    )
    waiting = first + step + (1 - stalls) * others + (rounds - 1) * life
    return Served(
        output_tokens_per_s=rate,
        tpot_s=np.where(static | single, step, step + stalls * others / output),
        ttft_s=np.where(static | single, first, waiting),
        prefill_tokens_per_s=prompt / first,
        decode_s=step,
        prefill_s=first,
    )
