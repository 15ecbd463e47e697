"""The work of one trial: FLOPs and bytes of its prefill and of all its decode steps, for the whole batch."""

from __future__ import annotations

from dataclasses import dataclass

from profiler.models.accounting import decode_flops_per_token, decode_step_bytes, prefill_flops
from profiler.models.architecture import Architecture
from profiler.models.formats import Formats


@dataclass(frozen=True)
class TrialWork:
    """What one trial has to compute and to move at least, whoever does it.

    Attributes:
        prefill_flops: floating-point operations of the prefill, attention and one head included.
        prefill_bytes: weights read once and the cache written; activations are left out.
        decode_flops: floating-point operations of all decode steps, 0 without any.
        decode_bytes: weights and cache read and cache written in all decode steps, 0 without any.
        expected: whether bytes rest on an expected number of distinct experts, for even routing.
    """

    prefill_flops: int
    prefill_bytes: int
    decode_flops: int
    decode_bytes: int
    expected: bool


def trial_work(
    architecture: Architecture, formats: Formats, prompt_tokens: int, output_tokens: int, batch: int
) -> TrialWork:
    """Return the work of a trial with ``batch`` requests of these lengths.

    The first output token belongs to the prefill. Decode step ``i`` (1 to n - 1) runs at a context of
    ``prompt_tokens + i`` tokens; FLOPs and bytes are linear in the context, so all steps together are
    n - 1 times the step at the mean context, taken exactly as the mean of the first and the last.

    Raises:
        UsageError: a format is unknown.
        ValueError: a length or the batch is less than 1.
    """
    # As bytes, a prefill is one step over all prompt tokens; every one of them is written to the cache.
    prefill = decode_step_bytes(architecture, formats, batch * prompt_tokens, 1)
    decode_flops = decode_bytes = 0
    expected = prefill.expected
    steps = output_tokens - 1
    if steps > 0:
        ends = [prompt_tokens + 1, prompt_tokens + steps]
        moved = [decode_step_bytes(architecture, formats, batch, context) for context in ends]
        decode_bytes = steps * sum(step.total for step in moved) // 2
        decode_flops = (
            steps * batch * sum(decode_flops_per_token(architecture, context) for context in ends) // 2
        )
        expected = expected or moved[0].expected
    return TrialWork(
        prefill_flops=batch * prefill_flops(architecture, prompt_tokens),
        prefill_bytes=prefill.weights_read + prefill.kv_written,
        decode_flops=decode_flops,
        decode_bytes=decode_bytes,
        expected=expected,
    )
