"""Sums and differences of energies that may be made, and the reasons for those that may not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from profiler.backends.base import Unavailable
from profiler.sensors.base import Energy, SensorInfo


def total(parts: Sequence[tuple[SensorInfo, Energy]]) -> Energy:
    """Return the sum over sensors of one scope that cover different things, over one window.

    Args:
        parts: each sensor with its energy; at least one.

    Returns:
        The sum with the sum of bounds; with a reason instead where one part is missing (code of its own),
        scopes differ or sensors overlap (``overlaps``), or windows differ (``not_in_order``).

    Raises:
        ValueError: there are no parts.
    """
    if not parts:
        raise ValueError("there is nothing to add")
    first = parts[0][1]
    t0_ns, t1_ns = first.t0_ns, first.t1_ns
    flags = tuple(dict.fromkeys(flag for _, energy in parts for flag in energy.flags))
    simulated = any(energy.simulated for _, energy in parts)
    methods = {energy.method for _, energy in parts}
    method = first.method if len(methods) == 1 else "power_integral"
    joules = bound_j = 0.0
    reason: Unavailable | None = None
    for info, energy in parts:
        if energy.joules is None or energy.bound_j is None:
            reason = reason or energy.reason
            continue
        joules += energy.joules
        bound_j += energy.bound_j
        if (energy.t0_ns, energy.t1_ns) != (t0_ns, t1_ns):
            text = "the windows of the parts differ; one was widened over a gap"
            reason = reason or Unavailable("not_in_order", text, "repeat the measurement")
        others = {other.key for other, _ in parts if other is not info}
        reason = reason or _overlap(info, energy.scope, first.scope, others)
    return Energy(
        joules=None if reason else joules,
        bound_j=None if reason else bound_j,
        method="none" if reason else method,
        scope=first.scope,
        t0_ns=t0_ns,
        t1_ns=t1_ns,
        n_ticks=min(energy.n_ticks for _, energy in parts),
        tick_s=first.tick_s,
        flags=flags,
        reason=reason,
        simulated=simulated,
    )


def _overlap(info: SensorInfo, scope: str, first: str, others: set[str]) -> Unavailable | None:
    """Return why a sensor is not added to others, or None where it may be."""
    clashing = others & {*info.overlaps, *info.shares_with}
    if not clashing and scope == first and info.key not in others:
        return None
    with_what = sorted(clashing)[0] if clashing else f"a {first}"
    text = f"{info.key} ({scope}) is not added to {with_what}: they cover the same energy in part"
    return Unavailable("overlaps", text)


def net_of_idle(gross: Energy, idle: Energy) -> Energy:
    """Return the energy above idle: gross minus idle power times the length of the window.

    Args:
        gross: energy of the work.
        idle: energy of a window without work on the same sensor.

    Returns:
        The difference with both bounds; with a reason where either is missing, or where nothing is left
        (``below_idle``): work that seems to use less than idling was measured too shortly.
    """
    for energy in (gross, idle):
        if energy.joules is None or energy.bound_j is None:
            return replace(gross, joules=None, bound_j=None, method="none", reason=energy.reason)
    assert gross.joules is not None
    assert gross.bound_j is not None
    assert idle.joules is not None
    assert idle.bound_j is not None
    share = gross.duration_s / idle.duration_s
    joules = gross.joules - idle.joules * share
    bound_j = gross.bound_j + idle.bound_j * share
    if joules <= 0:
        text = f"the window used {-joules:.3g} J less than idling for as long"
        reason = Unavailable("below_idle", text, "measure both for longer")
        return replace(gross, joules=None, bound_j=None, method="none", reason=reason)
    flags = tuple(dict.fromkeys((*gross.flags, *idle.flags)))
    return replace(gross, joules=joules, bound_j=bound_j, flags=flags)
