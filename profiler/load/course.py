"""Which points a load takes, one after the other: those asked for, or those that a search chooses."""

from __future__ import annotations

from collections.abc import Sequence

from profiler.load.request import Point
from profiler.load.search import Search, Verdict, overall
from profiler.load.slo import Slo
from profiler.results.schema import CaseRecord, SearchSettings


class Course:
    """The points of a load in their order. Ask :meth:`next`, measure, :meth:`note`.

    Args:
        points: those asked for; with a search none.
        search: chooses points by what was found before, or None.
    """

    def __init__(self, points: Sequence[Point], search: Search | None) -> None:
        self.search = search
        self._points = tuple(points)
        self._done = 0
        self._known: dict[float, Verdict] = {}

    @property
    def planned(self) -> tuple[Point, ...]:
        """The points that are known beforehand: all, or the first of a search."""
        if self.search is None:
            return self._points
        level = self.search.next({})
        return () if level is None else (point_at(self.search, level),)

    @property
    def most(self) -> int:
        """How many points there are at most."""
        return len(self._points) if self.search is None else self.search.most_points()

    def settings(self, slos: Sequence[Slo]) -> SearchSettings | None:
        """Return what the search looks for, for the record; None without one."""
        if self.search is None:
            return None
        limits = tuple(map(str, slos))
        return SearchSettings(over=self.search.over, low=self.search.low, high=self.search.high, slos=limits)

    def next(self) -> Point | None:
        """Return the point to measure now, or None at the end."""
        if self.search is None:
            return self._points[self._done] if self._done < len(self._points) else None
        level = self.search.next(self._known)
        return None if level is None else point_at(self.search, level)

    def note(self, point: Point, verdict: Verdict = "undecided") -> None:
        """Take note of how the point that was measured is judged."""
        self._done += 1
        level = point.rate_per_s if point.concurrency is None else point.concurrency
        if self.search is not None and level is not None:
            self._known[float(level)] = verdict

    def note_case(self, point: Point, case: CaseRecord) -> None:
        """Take note of the record that the point has left."""
        judged = () if case.served is None else case.served.judgements
        self.note(point, "fails" if case.status == "failed" else overall(judged))


def point_at(search: Search, level: float) -> Point:
    """Return how a server is driven at a level of a search."""
    if search.over == "concurrency":
        return Point(concurrency=int(level))
    return Point(process=search.process, rate_per_s=level, cv=search.cv)
