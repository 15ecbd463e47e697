"""A search over a server of the engine's own: the most users, or the highest rate, that keep the limits.

Every point is a case like any other, with starts of the server for itself. For a number of users the server
is started for as many, as somebody would who serves them. A rate does not say how many requests there are at
once; its server has the same seats at every point: those asked for (``max_num_seqs``), or as many as fit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from profiler.errors import UsageError
from profiler.load.course import point_at
from profiler.load.expect import Expected, search_words
from profiler.load.plan import served_shape
from profiler.load.request import Point
from profiler.load.search import POINT_S, Search, requests_wanted
from profiler.load.slo import Slo, parse_slos
from profiler.measure.candidate import Candidate, spec_of
from profiler.measure.plan import plan_cases
from profiler.measure.predicted import least_seconds, predict
from profiler.measure.selection import Selection
from profiler.measure.served_plan import Lane, served_lanes
from profiler.measure.served_requests import search_of
from profiler.measure.served_start import client_cost
from profiler.results.schema import PlannedCase, Prediction, SearchSettings, SkippedCase

MOST_SEATS = 256
"""Requests at once of a server that is driven at a rate: vLLM's own default on most devices."""
CPU_SHARE = 0.5
"""Of the free memory of a box that a server on its CPU may take for as many seats as possible."""
CLIENT_SHARE = 0.8
"""Of what the client can drive here, where a search ends: beyond it every point would be flagged."""
UNITS = {"concurrency": "users", "rate": "requests/s"}


@dataclass(frozen=True)
class SearchPlan:
    """What is looked for, and the case of every point.

    Attributes:
        search: up to what fits.
        slos: the limits.
        seconds: wall time of a point with all its starts.
        lane: from a point and seats to its load.
        seats: requests at once that the servers of a search over rates are started for, None over users.
        spec_args: seed and challenge of the run.
        bandwidth: measured read bandwidth by (device key, engine).
        too_many: the lowest level that cannot be, within what was asked for; None where all of them can.
    """

    search: Search
    slos: tuple[Slo, ...]
    seconds: float
    lane: Lane
    seats: int | None
    spec_args: tuple[int, str | None]
    bandwidth: Mapping[tuple[str, str], float]
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

    @property
    def served_words(self) -> str:
        """For whom a server is started, for people."""
        return "its users" if self.seats is None else f"{self.seats} requests at once"

    @property
    def first(self) -> PlannedCase:
        """The case of the first point."""
        return self.case(point_at(self.search, self.search.level(self.search.low)))

    def case(self, point: Point) -> PlannedCase:
        """Return the case of a point."""
        candidate = self.lane(point, point.concurrency or self.seats or 1)
        return PlannedCase(
            spec=spec_of(candidate, *self.spec_args),
            predicted=_predicted(candidate, self.bandwidth),
            seconds=self.seconds,
        )

    def as_recorded(self, settings: SearchSettings | None, first: PlannedCase) -> SearchPlan:
        """Return the plan with bounds, times and seats of a run that is continued: other may fit today."""
        if settings is None:
            return self
        search = replace(self.search, low=settings.low, high=settings.high)
        seats = None if self.seats is None else first.spec.batch
        return replace(self, search=search, seconds=first.seconds, seats=seats, too_many=None)


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
    """Plan a search up to what fits in memory, and up to what the client can drive.

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
    bounded = _Bounds(selection, lane, working, free_bytes, starts)
    found = bounded.of_users(search) if search.over == "concurrency" else bounded.of_rates(search)
    if isinstance(found, SkippedCase):
        return found
    search, seats, too_many = found
    request, serving = selection.request, selection.serving
    assert serving is not None
    least_s = least_seconds(_predicted(lane(Point(concurrency=1), seats or 1), working), starts, served=True)
    seconds = starts * POINT_S + least_s
    if request.budget_s is not None:
        points = search.most_points()
        seconds = request.budget_s / points
        if seconds < least_s:
            raise UsageError(
                f"--budget: a search from {search.low:g} to {search.high:g} {UNITS[search.over]} has up to "
                f"{points} points of at least {least_s:.0f} s: give {points * least_s:.0f}s, or a narrower "
                "--from, --to"
            )
    slos, spec_args = parse_slos(list(serving.slos)), (request.seed, request.challenge)
    return SearchPlan(search, slos, seconds, lane, seats, spec_args, working, too_many)


_Bounded = tuple[Search, int | None, SkippedCase | None]


@dataclass(frozen=True)
class _Bounds:
    """How far a search can go; arguments as :func:`plan_search` has them."""

    selection: Selection
    lane: Lane
    working: Mapping[tuple[str, str], float]
    free_bytes: dict[str, int | None]
    starts: int

    def of_users(self, search: Search) -> _Bounded | SkippedCase:
        """Return the search up to the users that fit, and the fewest that do not."""

        def refusal(users: int) -> SkippedCase | None:
            return self._refusal(self.lane(Point(concurrency=users), users))

        low, high = int(search.low), int(search.high)
        if (first := refusal(low)) is not None:
            return first
        if refusal(high) is None:
            return search, None, None
        most = _highest(lambda users: refusal(users) is None, low, high)
        return replace(search, high=float(most)), None, refusal(most + 1)

    def of_rates(self, search: Search) -> _Bounded | SkippedCase:
        """Return the search up to what the client can drive, the seats, and the first rate beyond it."""
        point = point_at(search, search.level(search.low))
        asked = self._options.get("max_num_seqs")
        # Its requests may be the longest of all, and all at once.
        if (first := self._refusal(self._filled(point, asked or 1))) is not None:
            return first
        seats = asked or MOST_SEATS
        if asked is None and self._refusal(self._filled(point, MOST_SEATS), spare=True) is not None:
            seats = _highest(
                lambda each: self._refusal(self._filled(point, each), spare=True) is None, 1, MOST_SEATS
            )
        most = self._client_rate()
        if search.high <= most:
            return search, seats, None
        if search.low > most:
            raise UsageError(
                f"--from {search.low:g}: the client can drive {most:.3g} requests/s of this length here, so "
                "that its own delay stays out of the figures"
            )
        beyond, request = point_at(search, search.level(search.high)), self.selection.request
        reason = f"the client can drive {most:.3g} requests/s of this length here: the search ends there"
        spec = spec_of(self.lane(beyond, seats), request.seed, request.challenge)
        return replace(search, high=search.level(most)), seats, SkippedCase(spec=spec, reason=reason)

    @property
    def _options(self) -> Mapping[str, int]:
        (options,) = self.selection.options.values()
        return options

    def _client_rate(self) -> float:
        shape = served_shape(self.selection.scenarios[0], self.selection.request.seed)
        cost, cores = client_cost(shape.nominal[0]), len(os.sched_getaffinity(0))
        return CLIENT_SHARE * cost.requests_per_s(float(shape.output_tokens.mean()), cores)

    def _filled(self, point: Point, seats: int) -> Candidate:
        """Return the load with every seat taken by the longest request."""
        candidate = self.lane(point, seats)
        longest, output = candidate.longest or 0, candidate.point.output_tokens
        prompt = max(candidate.point.prompt_tokens, longest - output)
        return replace(candidate, point=replace(candidate.point, prompt_tokens=prompt))

    def _refusal(self, candidate: Candidate, *, spare: bool = False) -> SkippedCase | None:
        """Return why a load cannot run, or None; with ``spare`` it leaves a CPU's box some memory."""
        free, request = self.free_bytes, self.selection.request
        if spare and candidate.device.backend == "cpu":
            free = {key: None if size is None else int(CPU_SHARE * size) for key, size in free.items()}
        _, skipped = plan_cases(
            [candidate], free_bytes=free, bandwidth=dict(self.working), starts=self.starts,
            budget_s=float("inf"), seed=request.seed, challenge=request.challenge,
        )  # fmt: skip
        return skipped[0] if skipped else None


def _predicted(candidate: Candidate, working: Mapping[tuple[str, str], float]) -> Prediction:
    return predict(candidate, working[candidate.device.key, candidate.engine.name])


def _highest(fits: Callable[[int], bool], low: int, high: int) -> int:
    """Return the highest level that fits, where ``low`` does and ``high`` does not."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
