"""Was the box disturbed? A bandwidth probe before and after each case, held against idle probes."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from profiler.results.schema import Flag

SMALLEST_TOLERANCE = 0.05


def tolerance(idle_bytes_per_s: Sequence[float]) -> float:
    """Return the relative change of bandwidth beyond which a case counts as disturbed.

    max(5%, 3 x median absolute deviation / median) of the idle probes: a box whose bandwidth moves
    by itself cannot be judged more finely than it moves.

    Args:
        idle_bytes_per_s: bandwidth of probes made while nothing else was asked of the box.
    """
    middle = median(idle_bytes_per_s)
    deviation = median(abs(value - middle) for value in idle_bytes_per_s)
    return max(SMALLEST_TOLERANCE, 3.0 * deviation / middle)


def interference_flag(before: float, after: float, idle: float, allowed: float) -> Flag | None:
    """Return the flag of a disturbed start, or None.

    A start is disturbed when the bandwidth changed between its two probes, or when either was
    further below or above the idle median than the box itself moves.

    Args:
        before: bandwidth just before the trials, bytes/s.
        after: bandwidth just after them, bytes/s.
        idle: median of the idle probes, bytes/s.
        allowed: :func:`tolerance`.
    """
    changes = {
        "during the case": after / before - 1.0,
        "from idle to before the case": before / idle - 1.0,
        "from idle to after the case": after / idle - 1.0,
    }
    when, change = max(changes.items(), key=lambda item: abs(item[1]))
    if abs(change) <= allowed:
        return None
    text = (
        f"read bandwidth changed by {change:+.0%} {when} (idle {idle / 1e9:.1f}, before {before / 1e9:.1f}, "
        f"after {after / 1e9:.1f} GB/s; {allowed:.0%} is this box's own movement)"
    )
    hint = "something else used the box, or a neighbour its host: stop other work and measure again"
    return Flag(code="interference", text=text, hint=hint)
