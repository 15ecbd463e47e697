"""A soak holds one case for long: does it keep the speed that it began with?"""

from __future__ import annotations

import math
from collections.abc import Sequence

from profiler.measure.stats import mean_interval
from profiler.results.schema import Measurement

WINDOW_S = 300.0
FEWEST_TRIALS = 5


def sustained_ratio(times: Sequence[float]) -> Measurement:
    """Return the throughput of the last five minutes over that of the first five.

    Both windows are a third of the soak when it is shorter than a quarter of an hour. The interval is
    that of a ratio of two means with the autocorrelation within each window taken into account (relative
    half-widths added in quadrature, the delta method).

    Args:
        times: seconds of each measured trial, in order, without gaps.
    """
    total = math.fsum(times)
    window = min(WINDOW_S, total / 3)
    first: list[float] = []
    last: list[float] = []
    passed = 0.0
    for seconds in times:
        if passed + seconds <= window:
            first.append(seconds)
        if passed >= total - window:
            last.append(seconds)
        passed += seconds
    if min(len(first), len(last)) < FEWEST_TRIALS:
        reason = f"fewer than {FEWEST_TRIALS} trials fit into {window:.0f} s; soak for longer"
        return Measurement.missing("ratio", reason)
    begin, end = mean_interval(first), mean_interval(last)
    ratio = begin.mean / end.mean
    widths = [estimate.relative_half_width for estimate in (begin, end)]
    half = ratio * math.hypot(*(width for width in widths if width is not None))
    return Measurement(
        value=ratio,
        unit="ratio",
        ci95=(max(0.0, ratio - half), ratio + half),
        n=len(first) + len(last),
        method=f"throughput of the last {window:.0f} s over that of the first {window:.0f} s",
        scope="within_process",
    )
