"""The cases of a sweep whose engine serves them: a closed loop for each number of users."""

from __future__ import annotations

from collections.abc import Mapping

from profiler.load.plan import Shape, served_shape
from profiler.measure.candidate import Candidate
from profiler.measure.selection import Selection
from profiler.results.schema import LoadSpec

DEFAULT_USERS = (1, 8)


def longest_request(shape: Shape) -> int:
    """Return the tokens of the longest request that a shape has, prompt and output."""
    if len(shape.prompt_tokens) == len(shape.output_tokens):
        return int((shape.prompt_tokens + shape.output_tokens).max())
    return int(shape.prompt_tokens.max() + shape.output_tokens.max())


def served_candidates(selection: Selection, working: Mapping[tuple[str, str], float]) -> list[Candidate]:
    """Return every load, in the order in which a person wants the answers: small models first.

    Args:
        selection: what to measure, with a server of the engine's own.
        working: measured read bandwidth by (device key, engine).
    """
    request = selection.request
    (engine,) = selection.engines.values()
    speculative = selection.options[engine.name].get("speculative")
    groups = [group for group in selection.groups if (group[0].key, engine.name) in working]
    found: list[Candidate] = []
    for group in groups:
        for model in selection.models.values():
            for formats in selection.formats.values():
                for scenario in selection.scenarios:
                    shape = served_shape(scenario, request.seed)
                    for users in request.batches or DEFAULT_USERS:
                        load = LoadSpec(
                            loop="closed", concurrency=users, api="completions", prompt="token_ids",
                            lengths=shape.kind, speculative=speculative,
                        )  # fmt: skip
                        candidate = Candidate(
                            group[0], engine, model, formats, scenario.point("full", users),
                            selection.options[engine.name], None, request.parallel,
                            group if len(group) > 1 else (), load, longest_request(shape),
                        )  # fmt: skip
                        found.append(candidate)
    return found
