"""Slices: which depths are run, and that the factors recover any time that is linear in the layers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from architectures import DEEPSEEK_V3, LLAMA, QWEN3_MOE
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import UsageError
from profiler.models.accounting import weights_bytes
from profiler.models.architecture import Architecture
from profiler.models.catalogue import catalogue
from profiler.models.formats import formats_for
from profiler.models.slices import Depth, factors, slice_depths, sliced, whole_depth

R1 = catalogue()["deepseek-r1"].architecture


def with_layers(architecture: Architecture, dense: int, moe: int) -> Architecture:
    experts = architecture.experts
    if experts is None:
        return replace(architecture, layers=dense)
    return replace(architecture, layers=dense + moe, experts=replace(experts, dense_layers=dense))


@pytest.mark.parametrize(
    ("layers", "depths"),
    [
        (2, [Depth(0, 1), Depth(1, 0), Depth(1, 1)]),
        (4, [Depth(0, 3), Depth(1, 1), Depth(1, 3)]),
        (40, [Depth(1, 38), Depth(2, 19), Depth(2, 38)]),
    ],
)
def test_both_kinds_of_layers_are_told_apart(layers: int, depths: list[Depth]) -> None:
    assert slice_depths(R1, layers, "deepseek-r1") == depths


def test_a_model_of_one_kind_takes_two_depths() -> None:
    assert slice_depths(with_layers(LLAMA, 10, 0), 5, "m") == [Depth(2, 0), Depth(5, 0)]
    assert slice_depths(with_layers(QWEN3_MOE, 0, 10), 5, "m") == [Depth(0, 2), Depth(0, 5)]


@pytest.mark.parametrize(
    ("layers", "words"), [(1, "two layers or more"), (61, "has 61 layers"), (99, "fewer")]
)
def test_a_slice_that_says_nothing_is_refused(layers: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        slice_depths(R1, layers, "deepseek-r1")


@given(
    dense=st.integers(0, 20),
    moe=st.integers(0, 80),
    share=st.floats(0.0, 1.0),
    costs=st.tuples(*[st.floats(0.001, 10.0)] * 3),
)
def test_the_factors_recover_the_time_of_the_whole(
    dense: int, moe: int, share: float, costs: tuple[float, float, float]
) -> None:
    if dense + moe < 3:
        return
    architecture = with_layers(DEEPSEEK_V3, dense, moe)
    layers = 2 + round(share * (dense + moe - 3))
    outside, per_dense, per_moe = costs

    def time(depth: Depth) -> float:
        return outside + depth.dense * per_dense + depth.moe * per_moe

    depths = slice_depths(architecture, layers, "m")
    whole = whole_depth(architecture)
    assert whole == Depth(dense, moe)
    assert all(0 < depth.total <= layers for depth in depths)
    shares = factors(depths, whole)
    assert sum(shares) == pytest.approx(1.0)
    found = sum(share * time(depth) for share, depth in zip(shares, depths, strict=True))
    assert found == pytest.approx(time(whole), rel=1e-9)


def test_bytes_are_linear_in_the_layers_too() -> None:
    """The accounting of slices must add up to that of the whole, exactly."""
    formats = formats_for("bf16")
    depths = slice_depths(R1, 6, "deepseek-r1")
    parts = [weights_bytes(sliced(R1, depth), formats) for depth in depths]
    shares = factors(depths, whole_depth(R1))
    found = sum(share * part for share, part in zip(shares, parts, strict=True))
    assert found == pytest.approx(weights_bytes(R1, formats), rel=1e-12)


def test_depths_that_leave_a_kind_unknown_are_refused() -> None:
    with pytest.raises(ValueError, match="once each"):
        factors([Depth(0, 1), Depth(1, 1)], Depth(3, 58))
    with pytest.raises(ValueError, match="both kinds"):
        factors([Depth(0, 0), Depth(1, 1)], Depth(3, 58))
