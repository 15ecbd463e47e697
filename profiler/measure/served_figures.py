"""The figures and flags of a load that follow from the starts of the server, not from the requests."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from profiler.measure.memory import memory_figures
from profiler.measure.speculation import speculation_figures, speculation_flags
from profiler.measure.summary import ONE_START_HINT
from profiler.results.schema import CaseSpec, Flag, Measurement, ServerStart


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
    guessed = speculation_figures(spec, [one.speculation for one in servers])
    return figures | {"server_ready_s": ready} | guessed


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
    return [*found, *speculation_flags(spec)]
