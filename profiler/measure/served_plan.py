"""The cases of a sweep whose engine serves them: one for each number of users, or rate, on each lane."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial

from profiler.backends.base import Device
from profiler.load.plan import Shape, served_shape
from profiler.load.request import Point
from profiler.measure.candidate import Candidate
from profiler.measure.selection import Selection
from profiler.models.catalogue import ResolvedModel
from profiler.models.formats import Formats
from profiler.results.schema import LoadSpec
from profiler.workload.scenario import Scenario

DEFAULT_USERS = (1, 8)

Lane = Callable[[Point, int], Candidate]
"""From how a server is driven, and how many requests at once it is started for, to the load on one server."""


def longest_request(shape: Shape) -> int:
    """Return the tokens of the longest request that a shape has, prompt and output."""
    if len(shape.prompt_tokens) == len(shape.output_tokens):
        return int((shape.prompt_tokens + shape.output_tokens).max())
    return int(shape.prompt_tokens.max() + shape.output_tokens.max())


def served_lanes(selection: Selection, working: Mapping[tuple[str, str], float]) -> list[Lane]:
    """Return what is served, in the order in which a person wants the answers: small models first.

    Args:
        selection: what to measure, with a server of the engine's own.
        working: measured read bandwidth by (device key, engine).
    """
    (engine,) = selection.engines.values()
    return [
        partial(
            _load, selection, group, model, formats, scenario, served_shape(scenario, selection.request.seed)
        )
        for group in selection.groups
        if (group[0].key, engine.name) in working
        for model in selection.models.values()
        for formats in selection.formats.values()
        for scenario in selection.scenarios
    ]


def served_candidates(selection: Selection, working: Mapping[tuple[str, str], float]) -> list[Candidate]:
    """Return every load, each number of users on every lane of :func:`served_lanes`."""
    users = selection.request.batches or DEFAULT_USERS
    lanes = served_lanes(selection, working)
    return [lane(Point(concurrency=number), number) for lane in lanes for number in users]


def _load(
    selection: Selection,
    group: tuple[Device, ...],
    model: ResolvedModel,
    formats: Formats,
    scenario: Scenario,
    shape: Shape,
    point: Point,
    seats: int,
) -> Candidate:
    (engine,) = selection.engines.values()
    options = selection.options[engine.name]
    load = LoadSpec(
        loop="open" if point.concurrency is None else "closed", **asdict(point), api="completions",
        prompt="token_ids", lengths=shape.kind, speculative=options.get("speculative"),
    )  # fmt: skip
    return Candidate(
        group[0], engine, model, formats, scenario.point("full", seats), options, None,
        selection.request.parallel, group if len(group) > 1 else (), load, longest_request(shape),
    )  # fmt: skip
