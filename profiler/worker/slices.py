"""Which layers to load when only a slice of a model is asked for."""

from __future__ import annotations

from typing import Any

from .protocol import EngineError


def layer_slice(architecture: dict[str, Any], asked: Any) -> list[int] | None:
    """Return the numbers of the layers to load, or None for the whole model.

    Args:
        architecture: fields of ``profiler.models.architecture.Architecture`` as a dict.
        asked: None; a number of layers; or ``[dense, moe]``, the numbers of layers with a dense MLP
            and with experts, with which the cost of each kind can be told apart. Of each kind the
            first ones are loaded. A number is divided as the whole model is, with at least one layer
            of each kind that it has, from two layers on.

    Raises:
        EngineError: ``bad_request``, when the model does not have as many.
    """
    if asked is None:
        return None
    total, moe = architecture["layers"], architecture["experts"]
    dense_total = total if moe is None else moe["dense_layers"]
    if _count(asked) and 0 < asked <= total:
        dense = _in_proportion(asked, dense_total, total)
        routed = asked - dense
    elif isinstance(asked, list) and len(asked) == 2 and all(map(_count, asked)) and sum(asked) > 0:
        dense, routed = asked
    else:
        raise EngineError("bad_request", f"option layers must be between 1 and {total}, not {asked!r}")
    if dense > dense_total or routed > total - dense_total:
        raise EngineError(
            "bad_request",
            f"option layers asks for {dense} dense layers and {routed} with experts of a model that has "
            f"{dense_total} and {total - dense_total}",
        )
    if dense + routed == total:
        return None
    return [*range(dense), *range(dense_total, dense_total + routed)]


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _in_proportion(asked: int, dense: int, total: int) -> int:
    """Return how many of the layers asked for have a dense MLP."""
    share = round(asked * dense / total)
    if asked < 2 or dense in (0, total):
        return share
    return min(max(share, 1), asked - 1)
