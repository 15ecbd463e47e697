"""From the flags of a sweep to the loads that a server is driven with, one for each scenario."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from profiler.errors import UsageError
from profiler.load.endpoint import Endpoint
from profiler.load.plan import arrivals_of, served_shape
from profiler.load.request import LoadRequest, Point
from profiler.load.search import POINT_S, Search, search_for
from profiler.load.slo import Slo, parse_slos
from profiler.measure.fidelity_server import Claim
from profiler.measure.selection import Selection
from profiler.workload.scenario import Scenario

DEFAULT_USERS = (1, 8)


def load_requests(
    selection: Selection, options: Mapping[str, Any], endpoints: tuple[Endpoint, ...]
) -> list[LoadRequest]:
    """Return the load of each scenario.

    Args:
        selection: what the sweep is asked for, with one model and one format.
        options: of the engine, parsed.
        endpoints: the server.

    Raises:
        UsageError: what is asked for does not go together.
    """
    request = selection.request
    (model,) = selection.models.values()
    (formats,) = selection.formats_of(model)
    slos = parse_slos([text for text in options.get("slo", "").split(",") if text])
    searches = [search_of(options, request.batches, slos, scenario) for scenario in selection.scenarios]
    if any(searches) and len(searches) > 1:
        raise UsageError("a search is for one workload: name one --scenario")
    users = request.batches or DEFAULT_USERS
    points = () if any(searches) else tuple(Point(concurrency=each) for each in users)
    number = sum(len(points) if search is None else search.most_points() for search in searches)
    if request.budget_s is not None:
        seconds = request.budget_s / number
    else:
        seconds = POINT_S if any(searches) else selection.preset.seconds_per_case
    known = model if model.real_weights is not None else None
    return [
        LoadRequest(
            endpoints=endpoints,
            model=options.get("served_model"),
            api=options.get("api", "completions"),
            shape=served_shape(scenario, request.seed),
            points=points,
            requests=options.get("requests"),
            seconds=seconds,
            warm_up=options.get("warm_up"),
            slos=slos,
            search=search,
            seed=request.seed,
            speculative=options.get("speculative"),
            vocab_size=model.architecture.vocab_size,
            claim=None if request.no_fidelity else Claim(known, formats, request.seed),
        )
        for scenario, search in zip(selection.scenarios, searches, strict=True)
    ]


def search_of(
    options: Mapping[str, Any], users: Sequence[int], slos: Sequence[Slo], scenario: Scenario
) -> Search | None:
    """Return the search that the limits ask for, or None where users are given or nothing has to hold.

    Args:
        options: with ``search``, ``from`` and ``to`` where they are given.
        users: that are given.
        slos: the limits.
        scenario: whose arrivals a rate has.

    Raises:
        UsageError: what is asked for does not go together.
    """
    over, low, high = (options.get(name) for name in ("search", "from", "to"))
    if over is None and (users or not any(slo.percentile is not None for slo in slos)):
        if low is not None or high is not None:
            raise UsageError("--from and --to go with --search")
        return None
    if users:
        raise UsageError("--search chooses the load itself; leave out --concurrency")
    return search_for(over, slos, low, high, arrivals_of(scenario))
