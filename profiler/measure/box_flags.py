"""What changed on the box while trials ran, and what that says against them.

Pure functions of two looks (:mod:`profiler.measure.box_state`). Every flag says what was seen, what it
does to the figures, and what to do about it. What could not be read is named instead of judged.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from profiler.measure.box_state import BoxState
from profiler.results.schema import BoxReadings, Flag

FOREIGN_SHARE = 0.05
"""Part of the CPUs' time beyond which other processes count as a disturbance."""

BUSY_SHARE = 0.8
"""Beside an accelerator, other processes matter when the CPUs are busier than this."""

STEAL_SHARE = 0.02
THROTTLED_SHARE = 0.01
THROTTLED_PERIODS = 0.05
SWAP_BYTES_PER_S = 1e6
FAULTS_PER_S = 10.0
SHORTEST_S = 0.5
"""Processor time comes in ticks of 10 ms: in less than this too few of them pass."""

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Verdict:
    """What two looks say.

    Attributes:
        flags: disturbances.
        readings: the figures behind them, for the record.
    """

    flags: list[Flag] = field(default_factory=list)
    readings: BoxReadings = field(default_factory=BoxReadings)


def judge(before: BoxState, after: BoxState, *, on_cpu: bool) -> Verdict:
    """Hold two looks against each other.

    Args:
        before: just before the measured trials.
        after: just after them.
        on_cpu: whether the device under test is the CPU.
    """
    seconds = (after.stamp_ns - before.stamp_ns) / 1e9
    verdict = Verdict()
    readings: dict[str, float] = {}
    missing: list[str] = []
    for name, judgement in _JUDGEMENTS.items():
        found = judgement(before, after, seconds, on_cpu)
        if found is None:
            missing.append(name)
            continue
        flag, figures = found
        readings |= figures
        if flag is not None:
            verdict.flags.append(flag)
    verdict.readings = BoxReadings(**readings, seconds=max(0.0, seconds), not_judged=tuple(missing))
    return verdict


def unreadable(state: BoxState) -> list[str]:
    """Return in words what can never be judged on this box, whatever happens."""
    parts = {
        "use of the CPU by others and by the hypervisor": state.cpu,
        "a CPU quota": state.throttling,
        "swapping": state.swapped_pages,
        "the CPU's clock limits": state.clock_limits,
        "the clock source": state.clock_source,
        "debuggers": state.traced,
    }
    return [words for words, value in parts.items() if value is None]


_Judged = tuple[Flag | None, dict[str, float]] | None


def _steal(before: BoxState, after: BoxState, seconds: float, on_cpu: bool) -> _Judged:
    if before.cpu is None or after.cpu is None or seconds < SHORTEST_S:
        return None
    stolen = max(0, after.cpu.stolen - before.cpu.stolen)
    wanted = stolen + max(0, after.cpu.busy - before.cpu.busy)
    share = stolen / wanted if wanted else 0.0
    figures = {"steal_share": share}
    if share <= STEAL_SHARE:
        return None, figures
    text = (
        f"the hypervisor took {share:.0%} of the processor time that was wanted: "
        "trials were slower than this machine is when it has its processors to itself"
    )
    hint = "measure on a host that is not shared, or with processors of its own"
    return Flag(code="cpu_steal", text=text, hint=hint), figures


def _foreign(before: BoxState, after: BoxState, seconds: float, on_cpu: bool) -> _Judged:
    if before.cpu is None or after.cpu is None or seconds < SHORTEST_S:
        return None
    if before.our_ticks is None or after.our_ticks is None:
        return None
    whole = after.cpu.cpus * seconds / _TICK_S
    busy = after.cpu.busy - before.cpu.busy
    # A process that has ended can take its time along before its parent has counted it.
    ours = max(0, after.our_ticks - before.our_ticks)
    share = min(1.0, max(0.0, (busy - ours) / whole))
    load = min(1.0, max(0.0, busy / whole))
    figures = {"foreign_cpu_share": share, "busy_cpu_share": load}
    if share <= FOREIGN_SHARE or not (on_cpu or load > BUSY_SHARE):
        return None, figures
    text = (
        f"other processes used {share:.0%} of the {after.cpu.cpus} processors: they take time, cache and "
        "memory bandwidth from the trials, which are slower and scatter more"
    )
    return Flag(code="foreign_cpu", text=text, hint="stop other work and measure again"), figures


def _quota(before: BoxState, after: BoxState, seconds: float, on_cpu: bool) -> _Judged:
    if before.throttling is None or after.throttling is None or seconds <= 0:
        return None
    periods = after.throttling.periods - before.throttling.periods
    throttled = after.throttling.throttled - before.throttling.throttled
    held_s = after.throttling.seconds - before.throttling.seconds
    cpus = after.cpu.cpus if after.cpu is not None else 1
    share = max(0.0, held_s) / (seconds * cpus)
    figures = {"throttled_share": share}
    often = periods > 0 and throttled / periods > THROTTLED_PERIODS
    if throttled <= 0 or not (often or share > THROTTLED_SHARE):
        return None, figures
    text = (
        f"a CPU quota held the processes back in {throttled} of {periods} periods ({held_s:.1f} s over all "
        "processors): the figures are those of the quota, not of the machine"
    )
    hint = "raise or remove the container's CPU limit, or use fewer threads"
    return Flag(code="cpu_quota", text=text, hint=hint), figures


def _swap(before: BoxState, after: BoxState, seconds: float, on_cpu: bool) -> _Judged:
    figures: dict[str, float] = {}
    seen: list[str] = []
    if before.swapped_pages is not None and after.swapped_pages is not None:
        swapped = float(max(0, after.swapped_pages - before.swapped_pages) * _PAGE_BYTES)
        figures["swapped_bytes"] = swapped
        if swapped > SWAP_BYTES_PER_S * seconds:
            seen.append(f"{swapped / 1e6:.0f} MB went to or came from swap")
    if before.major_faults is not None and after.major_faults is not None:
        faults = float(max(0, after.major_faults - before.major_faults))
        figures["major_faults"] = faults
        if faults > max(FAULTS_PER_S, FAULTS_PER_S * seconds):
            seen.append(f"the worker waited {faults:.0f} times for a page from disk")
    if not figures:
        return None
    if not seen:
        return None, figures
    text = " and ".join(seen) + ": trials waited for a disk"
    hint = "free memory, or take a smaller model; weights and cache must stay in memory"
    return Flag(code="swapping", text=text, hint=hint), figures


def _limits(before: BoxState, after: BoxState, seconds: float, on_cpu: bool) -> _Judged:
    if before.clock_limits is None or after.clock_limits is None:
        return None
    if before.clock_limits == after.clock_limits:
        return None, {}
    was, became = (
        ", ".join(sorted(one - other))
        for one, other in (
            (before.clock_limits, after.clock_limits),
            (after.clock_limits, before.clock_limits),
        )
    )
    text = (
        f"the CPU's clock limits went from {was or 'none'} to {became or 'none'}: trials are of two machines"
    )
    return Flag(code="cpu_limits_changed", text=text, hint="fix them and measure again"), {}


def _clock_source(before: BoxState, after: BoxState, seconds: float, on_cpu: bool) -> _Judged:
    if before.clock_source is None or after.clock_source is None:
        return None
    if before.clock_source == after.clock_source:
        return None, {}
    text = (
        f"the kernel changed its clock source from {before.clock_source} to {after.clock_source} because it "
        "mistrusts the first: times may be wrong"
    )
    hint = "see the kernel log; measure again after a restart"
    return Flag(code="clock_source_changed", text=text, hint=hint), {}


def _traced(before: BoxState, after: BoxState, seconds: float, on_cpu: bool) -> _Judged:
    if before.traced is None or after.traced is None:
        return None
    traced = before.traced | after.traced
    if not traced:
        return None, {}
    text = (
        f"a debugger or tracer was attached to the {' and the '.join(sorted(traced))}: it slows trials down"
    )
    return Flag(code="profiler_attached", text=text, hint="detach it and measure again"), {}


def _suspended(before: BoxState, after: BoxState, seconds: float, on_cpu: bool) -> _Judged:
    if before.suspended_ns is None or after.suspended_ns is None:
        return None
    slept = (after.suspended_ns - before.suspended_ns) / 1e9
    # Two clocks are read one after the other; no sleep is that short.
    if slept < 0.1:
        return None, {}
    text = f"the machine slept for {slept:.1f} s between trials: they began on a device that had cooled down"
    hint = "keep the machine awake and measure again"
    return Flag(code="machine_suspended", text=text, hint=hint), {}


_JUDGEMENTS: dict[str, Callable[[BoxState, BoxState, float, bool], _Judged]] = {
    "cpu_steal": _steal,
    "foreign_cpu": _foreign,
    "cpu_quota": _quota,
    "swapping": _swap,
    "cpu_limits_changed": _limits,
    "clock_source_changed": _clock_source,
    "profiler_attached": _traced,
    "machine_suspended": _suspended,
}
