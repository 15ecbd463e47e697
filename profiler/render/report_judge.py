"""Who is ahead, judged over starts: the same statistics as ``aiprof compare``, without its correction."""

from __future__ import annotations

import math

from profiler.analysis.compare_evidence import SPEED_METRICS, Evidence
from profiler.analysis.compare_statistics import welch
from profiler.render.report_answer import OverlapJudge, Ratio
from profiler.render.report_subjects import Entry


class StartsJudge:
    """Compares start means by Welch's interval on their logarithms; what has no starts, by its intervals."""

    note = (
        "Two speeds are called different when the 95% interval of their ratio, over fresh starts of each "
        "box, leaves out 1; other figures when their intervals do not overlap. Figures from one start or one "
        "load are undecided, because one says nothing about the next. There is no correction for the number "
        "of rows here; `aiprof compare` has one."
    )

    def __init__(self) -> None:
        self._fallback = OverlapJudge()

    def ratio(self, metric: str, first: Entry, second: Entry) -> Ratio | None:
        """Return first over second, with its interval over starts where there is one."""
        speed = SPEED_METRICS.get(metric)
        if speed is None or first.spec.load is not None:
            return self._fallback.ratio(metric, first, second)
        sides: list[list[float]] = []
        for entry in (first, second):
            means = _evidence(entry).start_means(speed.phase)
            if isinstance(means, str):
                return None
            sides.append([math.log(speed.value(entry.spec, seconds)) for seconds in means])
        if min(len(side) for side in sides) < 2:
            return self._fallback.ratio(metric, first, second)
        found = welch(sides[1], sides[0])
        low, high = (found.difference if end is None else end for end in (found.low, found.high))
        return Ratio(math.exp(found.difference), math.exp(low), math.exp(high))


def _evidence(entry: Entry) -> Evidence:
    return Evidence(entry.spec, (entry.case,), "", "", entry.case.simulated)
