"""Slices of a model: some of its layers, to learn from a device that cannot hold the whole.

Layers of one kind cost the same, so the time of a phase is

    outside + dense layers x cost of one + layers with experts x cost of one,

three unknowns for a model with both kinds and two for one with a single kind. So many slices of
different depth are run; the whole follows as a sum of their times with fixed factors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from profiler.errors import UsageError
from profiler.models.architecture import Architecture


@dataclass(frozen=True)
class Depth:
    """How many layers of each kind.

    Attributes:
        dense: with a dense MLP.
        moe: with experts.
    """

    dense: int
    moe: int

    @property
    def total(self) -> int:
        """All layers."""
        return self.dense + self.moe


def whole_depth(architecture: Architecture) -> Depth:
    """Return the layers of the whole model."""
    moe = architecture.experts
    dense = architecture.layers if moe is None else moe.dense_layers
    return Depth(dense, architecture.layers - dense)


def sliced(architecture: Architecture, depth: Depth) -> Architecture:
    """Return what is left of a model when only the first layers of each kind are kept."""
    moe = architecture.experts
    experts = None if moe is None else replace(moe, dense_layers=depth.dense)
    return replace(architecture, layers=depth.total, experts=experts)


def slice_depths(architecture: Architecture, layers: int, model: str) -> list[Depth]:
    """Return the depths to run for ``--layers``, the deepest last.

    The deepest keeps ``layers`` layers, divided as in the whole model with at least one of each kind.
    For each kind there is one more with about half of that kind's layers.

    Args:
        architecture: of the whole model.
        layers: how many to keep at most.
        model: its name, for messages.

    Raises:
        UsageError: there is nothing to learn from so few layers, or nothing left out.
    """
    whole = whole_depth(architecture)
    kinds = sum(count > 0 for count in (whole.dense, whole.moe))
    if layers < 2:
        raise UsageError(f"--layers {layers}: a slice needs two layers or more to tell what one layer costs")
    if layers >= whole.total:
        what = f"{model} has {whole.total} layers; a slice has fewer: leave out --layers for the whole model"
        raise UsageError(f"--layers {layers}: {what}")
    if kinds == 1:
        deepest = Depth(layers, 0) if whole.dense else Depth(0, layers)
    else:
        dense = min(max(round(layers * whole.dense / whole.total), 1), layers - 1, whole.dense)
        deepest = Depth(dense, min(layers - dense, whole.moe))
    shallower = []
    if deepest.dense:
        shallower.append(Depth(deepest.dense // 2, deepest.moe))
    if deepest.moe:
        shallower.append(Depth(deepest.dense, deepest.moe // 2))
    return [*shallower, deepest]


def factors(depths: list[Depth], whole: Depth) -> list[float]:
    """Return the factors with which the times of slices add up to the time of the whole.

    Args:
        depths: as :func:`slice_depths` gives them, the deepest last.
        whole: of the model.

    Returns:
        One factor per depth; they sum to 1, since what is outside the layers is there once.

    Raises:
        ValueError: the depths do not tell the kinds apart.
    """
    deepest = depths[-1]
    found = []
    for depth in depths[:-1]:
        fewer_dense, fewer_moe = deepest.dense - depth.dense, deepest.moe - depth.moe
        if (fewer_dense > 0) == (fewer_moe > 0):
            raise ValueError(f"{depth} and {deepest} differ in both kinds of layers or in none")
        if fewer_dense:
            found.append(-(whole.dense - deepest.dense) / fewer_dense)
        else:
            found.append(-(whole.moe - deepest.moe) / fewer_moe)
    known = (
        [depth for depth in depths[:-1] if depth.dense < deepest.dense],
        [depth for depth in depths[:-1] if depth.moe < deepest.moe],
    )
    for fewer, lacking in zip(known, (whole.dense - deepest.dense, whole.moe - deepest.moe), strict=True):
        if len(fewer) > 1 or (lacking > 0 and not fewer):
            raise ValueError(f"the depths {depths} do not say what a layer of each kind costs, once each")
    return [*found, 1.0 - sum(found)]
