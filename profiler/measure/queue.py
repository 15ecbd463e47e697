"""Which cases of a sweep are still to come: those of its plan, or those that a search chooses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from profiler.load.course import Course
from profiler.load.request import Point
from profiler.measure.served_search import SearchPlan
from profiler.results.schema import CaseRecord, PlannedCase


class Queue(Protocol):
    """The cases that are still to come. Ask :meth:`rest`, measure the first of it, :meth:`note`."""

    def rest(self) -> Sequence[PlannedCase]:
        """Return the next case, and behind it as many as there are still to come at most; none at the end."""

    def note(self, case: CaseRecord) -> None:
        """Take note of the record that the next case has left."""


class PlannedCases:
    """The cases of a plan that are not measured yet, in its order."""

    def __init__(self, cases: Sequence[PlannedCase], done: Sequence[CaseRecord] = ()) -> None:
        finished = {case.spec.case_id for case in done}
        self._rest = [case for case in cases if case.spec.case_id not in finished]

    def rest(self) -> Sequence[PlannedCase]:
        """Return what is left of the plan."""
        return self._rest

    def note(self, case: CaseRecord) -> None:
        """Take the next case off."""
        self._rest = self._rest[1:]


class SearchedCases:
    """The points of a search. What is measured already is asked for once more and only taken note of.

    Args:
        plan: of the search.
        done: records that are there.
    """

    def __init__(self, plan: SearchPlan, done: Sequence[CaseRecord] = ()) -> None:
        self._plan = plan
        self._course = Course((), plan.search)
        self._done = {case.spec.case_id: case for case in done}
        self._left = self._course.most
        self._point: Point | None = None

    def rest(self) -> Sequence[PlannedCase]:
        """Return the next point, as often as there are points to come at most."""
        while (point := self._course.next()) is not None:
            planned, self._point = self._plan.case(point), point
            if planned.spec.case_id not in self._done:
                return [planned] * max(1, self._left)
            self.note(self._done[planned.spec.case_id])
        return []

    def note(self, case: CaseRecord) -> None:
        """Judge the point by its record."""
        assert self._point is not None
        self._course.note_case(self._point, case)
        self._left -= 1
