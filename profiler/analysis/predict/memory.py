"""Whether a model fits, with how much context and how many users. Never "fits" on thin ice.

Weights and cache are exact. To them come, per device: what the runtime takes, the activations of one
prefill chunk, and the share of the memory that engines leave free. Unequal ranks are judged by the fullest.
"""

from __future__ import annotations

from dataclasses import dataclass

from profiler.analysis.predict.deployment import Deployment
from profiler.analysis.predict.serving import cache_copies
from profiler.analysis.predict.terms import ACTIVATION_BYTES, ACTIVATION_PASSES, INNER_PASSES
from profiler.models.accounting import kv_bytes_per_token, weights_bytes

USABLE_SHARE = 0.9
RUNTIME_BYTES = 2 * 2**30
CHUNK_TOKENS = 8192
# Ranks hold equal shares only if everything divides evenly; norms, routers and borders of stages do not.
UNEVEN = 1.02


@dataclass(frozen=True)
class Fit:
    """How a deployment sits in memory; bytes are of all devices together.

    Attributes:
        weights_bytes: with copies where replicas hold their own.
        reserved_bytes: runtime and activations.
        usable_bytes: what engines use of the memory, None: the memory is not known.
        token_bytes: cache per token, copies included.
        cache_tokens: tokens that fit beside weights and reserve, None: not known; 0: the weights do not
            fit.
        reason: why nothing is known, or an empty string.
    """

    weights_bytes: float
    reserved_bytes: float
    usable_bytes: float | None
    token_bytes: float
    cache_tokens: int | None
    reason: str = ""

    def users_at(self, context: int) -> int | None:
        """Users with ``context`` tokens each that fit at once, None: not known."""
        return None if self.cache_tokens is None else self.cache_tokens // context

    def fits(self, users: int, context: int) -> bool | None:
        """Whether ``users`` with ``context`` tokens each fit, None: not known."""
        at_once = self.users_at(context)
        return None if at_once is None else at_once >= users


def fit(deployment: Deployment) -> Fit:
    """Return how a deployment sits in memory."""
    arch, formats, parallel = deployment.architecture, deployment.formats, deployment.parallel
    copies = parallel.data if parallel.expert == 1 else 1
    weights = weights_bytes(arch, formats) * deployment.weights_factor * copies * UNEVEN
    moe = arch.experts
    inner = arch.intermediate_size if moe is None else moe.intermediate_size * (moe.per_token + moe.shared)
    chunk = CHUNK_TOKENS * (ACTIVATION_PASSES * arch.hidden_size + INNER_PASSES * inner) * ACTIVATION_BYTES
    reserved = parallel.ranks * (RUNTIME_BYTES + chunk / parallel.tensor)
    token = kv_bytes_per_token(arch, formats.kv_dtype) * cache_copies(deployment)
    memory = deployment.hardware.memory_bytes
    if memory is None:
        reason = f"{deployment.hardware.title}: memory {deployment.hardware.why_unknown('memory')}"
        return Fit(weights, reserved, None, token, None, reason)
    usable = parallel.ranks * memory.value * USABLE_SHARE
    tokens = max(int((usable - weights - reserved) // token), 0)
    return Fit(weights, reserved, usable, token, tokens)
