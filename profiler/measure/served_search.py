"""A search over a server of the engine's own: the most users that keep the limits.

Every point is a case like any other, with starts of the server for itself: a server is started for the users
that it gets, as somebody would who serves so many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from profiler.errors import UsageError
from profiler.load.expect import Expected, search_words
from profiler.load.search import POINT_S, Search, requests_wanted
from profiler.load.slo import Slo, parse_slos
from profiler.measure.candidate import Candidate, spec_of
from profiler.measure.plan import plan_cases
from profiler.measure.predicted import least_seconds, predict
from profiler.measure.selection import Selection
from profiler.measure.served_plan import Lane, served_lanes
from profiler.measure.served_requests import search_of
from profiler.results.schema import PlannedCase, Prediction, SearchSettings, SkippedCase


@dataclass(frozen=True)
class SearchPlan:
    """What is looked for, and the case of every point.

    Attributes:
        search: up to what fits.
        slos: the limits.
        seconds: wall time of a point with all its starts.
        case: the case of so many users.
        too_many: the fewest users that do not fit, within what was asked for; None where all of them do.
    """

    search: Search
    slos: tuple[Slo, ...]
    seconds: float
    case: Callable[[int], PlannedCase]
    too_many: SkippedCase | None

    @property
    def settings(self) -> SearchSettings:
        """What is looked for, for the record."""
        return SearchSettings(
            over=self.search.over,
            low=self.search.low,
            high=self.search.high,
            slos=tuple(map(str, self.slos)),
        )

    @property
    def expected(self) -> Expected:
        """How many points there are at most, and how long they take."""
        points = self.search.most_points()
        return Expected(
            points=points,
            seconds_per_point=self.seconds,
            hours=points * self.seconds / 3600,
            requests_first=requests_wanted(self.slos, self.search.low, self.search.over),
            search=search_words(self.search, self.slos),
        )

    def as_recorded(self, settings: SearchSettings | None, seconds: float) -> SearchPlan:
        """Return the plan with bounds and times of a run that is continued: more or less may fit today."""
        if settings is None:
            return self
        search = replace(self.search, low=settings.low, high=settings.high)
        return replace(self, search=search, seconds=seconds, too_many=None)


def asked_search(selection: Selection) -> Search | None:
    """Return the search that a sweep over a server of the engine's own asks for, or None.

    Raises:
        UsageError: what is asked for does not go together.
    """
    serving, users = selection.serving, selection.request.batches
    if serving is None:
        return None
    options = {"search": serving.search, "from": serving.low, "to": serving.high}
    slos = parse_slos(list(serving.slos))
    search = search_of(options, users, slos, selection.scenarios[0])
    axes = {
        "--scenario": selection.scenarios,
        "--model": selection.models,
        "--precision": selection.formats,
        "--device": selection.groups,
    }
    several = [flag for flag, found in axes.items() if len(found) > 1]
    if search is not None and several:
        raise UsageError(f"a search is for one workload on one server: name one {' and one '.join(several)}")
    return search


def plan_search(
    selection: Selection,
    search: Search,
    working: Mapping[tuple[str, str], float],
    free_bytes: dict[str, int | None],
    starts: int,
) -> SearchPlan | SkippedCase:
    """Plan a search up to what fits in memory.

    Args:
        selection: of one workload.
        search: as asked for.
        working: measured read bandwidth by (device key, engine).
        free_bytes: free memory by device key, None where it is not known.
        starts: of the server at each point.

    Returns:
        The plan, or why not even the first point can run.

    Raises:
        UsageError: the budget is too small for so many points.
    """
    (lane,) = served_lanes(selection, working)
    request = selection.request

    def refusal(users: int) -> SkippedCase | None:
        _, skipped = plan_cases(
            [lane(users)], free_bytes=free_bytes, bandwidth=dict(working), starts=starts,
            budget_s=float("inf"), seed=request.seed, challenge=request.challenge,
        )  # fmt: skip
        return skipped[0] if skipped else None

    low, too_many = int(search.low), None
    if (first := refusal(low)) is not None:
        return first
    if refusal(int(search.high)) is not None:
        most = _highest(lambda users: refusal(users) is None, low, int(search.high))
        search, too_many = replace(search, high=float(most)), refusal(most + 1)
    least_s = least_seconds(_predicted(lane(low), working), starts, served=True)
    seconds = starts * POINT_S + least_s
    if request.budget_s is not None:
        points = search.most_points()
        seconds = request.budget_s / points
        if seconds < least_s:
            raise UsageError(
                f"--budget: a search from {search.low:g} to {search.high:g} users has up to {points} points "
                f"of at least {least_s:.0f} s: give {points * least_s:.0f}s, or a narrower --from, --to"
            )
    case = _cases(selection, lane, working, seconds)
    assert selection.serving is not None
    return SearchPlan(search, parse_slos(list(selection.serving.slos)), seconds, case, too_many)


def _cases(
    selection: Selection, lane: Lane, working: Mapping[tuple[str, str], float], seconds: float
) -> Callable[[int], PlannedCase]:
    request = selection.request

    def case(users: int) -> PlannedCase:
        candidate = lane(users)
        return PlannedCase(
            spec=spec_of(candidate, request.seed, request.challenge),
            predicted=_predicted(candidate, working),
            seconds=seconds,
        )

    return case


def _predicted(candidate: Candidate, working: Mapping[tuple[str, str], float]) -> Prediction:
    return predict(candidate, working[candidate.device.key, candidate.engine.name])


def _highest(fits: Callable[[int], bool], low: int, high: int) -> int:
    """Return the highest level that fits, where ``low`` does and ``high`` does not."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
