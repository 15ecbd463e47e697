"""How long a load will take, before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from profiler.load.request import LoadRequest
from profiler.load.search import Search, requests_wanted
from profiler.load.slo import Slo


@dataclass(frozen=True)
class Expected:
    """What a load comes to.

    Attributes:
        points: how many there are; of a search at most.
        seconds_per_point: for how long requests are sent in each, or None where a number of requests decides.
        hours: all points together, at most, without the answers that are still to come when sending ends;
            None where a number of requests decides.
        requests_first: requests that the first point of a search wants, or None without a search.
        search: what is looked for, in words; empty without a search.
    """

    points: int
    seconds_per_point: float | None
    hours: float | None
    requests_first: int | None
    search: str

    def document(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    def words(self) -> str:
        """Return it for people."""
        if self.hours is None or self.seconds_per_point is None:
            return f"{self.points} point(s) of a fixed number of requests: how long depends on the server"
        most = "at most " if self.search else ""
        lines = [
            f"{most}{self.points} point(s) of {most}{self.seconds_per_point:.0f} s: "
            f"{most}{self.hours:.2f} h, and the time of the last answers of each"
        ]
        if self.search:
            lines.insert(0, self.search)
            lines.append(
                f"a point ends early after the requests that its percentiles need: {self.requests_first} for "
                "the first; one whose budget ends before is judged by what there is"
            )
        return "\n".join(lines)


def search_words(search: Search, slos: Sequence[Slo]) -> str:
    """Return what a search looks for, for people."""
    unit = "users" if search.over == "concurrency" else "requests/s"
    limits = ", ".join(str(slo) for slo in slos)
    return f"search for the highest {unit} from {search.low:g} to {search.high:g} that keep {limits}"


def expected(request: LoadRequest) -> Expected:
    """Return how many points a load has and how long they take at most."""
    search, seconds = request.search, request.seconds
    if search is None:
        points, first, words = len(request.points), None, ""
    else:
        points = search.most_points()
        first = request.requests or requests_wanted(request.slos, search.low, search.over)
        words = search_words(search, request.slos)
    if request.trace is not None and len(request.trace.at_s):
        seconds = min(float(request.trace.at_s[-1]), seconds or float("inf"))
    hours = None if seconds is None else points * seconds / 3600
    return Expected(points, seconds, hours, first, words)
