"""The figures and flags of a load that follow from the starts of the server, not from the requests."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from profiler.engines.server_metrics import ServerMetrics, since
from profiler.measure.memory import memory_figures
from profiler.measure.summary import ONE_START_HINT
from profiler.results.schema import CaseSpec, Flag, Measurement, ServerStart, Speculation


def server_figures(spec: CaseSpec, servers: Sequence[ServerStart]) -> dict[str, Measurement]:
    """Return memory, the time to be ready, and what speculative decoding did; nothing without starts."""
    if not servers:
        return {}
    scope = "within_process" if len(servers) == 1 else "across_starts"
    ready = Measurement(
        value=fmean(one.ready_s for one in servers),
        unit="s",
        n=len(servers),
        method="from its start until it answered; mean of starts",
        scope=scope,
    )
    figures = memory_figures(spec, [one.memory for one in servers], "server's processes")
    return figures | {"server_ready_s": ready} | _speculation(spec, servers, scope)


def _speculation(spec: CaseSpec, servers: Sequence[ServerStart], scope: str) -> dict[str, Measurement]:
    """Return the acceptance of guessed tokens, and tokens per step; nothing without speculation."""
    if spec.speculative is None:
        return {}
    units = {"speculative_acceptance": "ratio", "speculative_tokens_per_step": "tokens"}
    known = [one.speculation for one in servers if one.speculation is not None]
    drafts, guessed = sum(one.drafts for one in known), sum(one.draft_tokens for one in known)
    if len(known) < len(servers) or not drafts or not guessed:
        reason = "the server does not say, or guessed nothing"
        return {name: Measurement.missing(unit, reason) for name, unit in units.items()}
    accepted = sum(one.accepted_tokens for one in known)
    values = (accepted / guessed, 1 + accepted / drafts)
    return {
        name: Measurement(value=value, unit=unit, n=drafts, method="counted by the server", scope=scope)
        for (name, unit), value in zip(units.items(), values, strict=True)
    }


def speculation_between(
    method: str | None, before: ServerMetrics, after: ServerMetrics
) -> Speculation | None:
    """Return what speculative decoding did between two looks, None without any or where it is not said."""
    if method is None:
        return None
    drafts, guessed = since(before.drafts, after.drafts), since(before.draft_tokens, after.draft_tokens)
    accepted = since(before.accepted_tokens, after.accepted_tokens)
    if drafts is None or guessed is None or accepted is None:
        return None
    return Speculation(method=method, drafts=drafts, draft_tokens=guessed, accepted_tokens=accepted)


def server_flags(spec: CaseSpec, servers: Sequence[ServerStart]) -> list[Flag]:
    """Return what of the starts limits what the figures are good for."""
    found: list[Flag] = []
    if len(servers) == 1:
        text = "one start of the server: nothing says how much starts differ"
        found.append(Flag(code="one_start", text=text, hint=ONE_START_HINT))
    if any(one.dummy_weights for one in servers):
        text = "the engine made up weights of its own (load_format=dummy)"
        hint = "good for throughput only: leave the option out for the weights of every engine"
        found.append(Flag(code="dummy_weights", text=text, hint=hint))
    thrown_out = sum(one.preemptions or 0 for one in servers)
    if thrown_out:
        text = f"{thrown_out} times a request was thrown out of the cache and computed again"
        hint = "more memory for the cache (gpu_memory_utilization), or fewer requests at once"
        found.append(Flag(code="preempted", text=text, hint=hint))
    cached = sum(one.cached_tokens or 0 for one in servers)
    if cached:
        text = f"the server took {cached} prompt tokens from its prefix cache, which was asked to be off"
        hint = "find out which option of the engine turned it on"
        found.append(Flag(code="prefix_cache", text=text, hint=hint))
    return found
