"""Which layers a slice is made of."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from architectures import LLAMA, QWEN3_MOE
from hypothesis import given
from hypothesis import strategies as st

from profiler.models.catalogue import catalogue
from profiler.worker.protocol import EngineError
from profiler.worker.slices import layer_slice

R1 = dataclasses.asdict(catalogue()["deepseek-r1"].architecture)  # 3 dense layers, 58 with experts
LAYERS = 61


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (1, [3]),
        (2, [0, 3]),
        (4, [0, 3, 4, 5]),
        (31, [0, 1, *range(3, 32)]),
        ([1, 1], [0, 3]),
        ([3, 1], [0, 1, 2, 3]),
        ([1, 3], [0, 3, 4, 5]),
        ([0, 2], [3, 4]),
        ([2, 0], [0, 1]),
        (61, None),
        ([3, 58], None),
        (None, None),
    ],
    ids=str,
)
def test_slices_of_deepseek_r1(asked: Any, expected: list[int] | None) -> None:
    assert layer_slice(R1, asked) == expected


def test_a_dense_model_has_only_one_kind() -> None:
    arch = dataclasses.asdict(dataclasses.replace(LLAMA, layers=9))
    assert layer_slice(arch, 3) == [0, 1, 2]
    assert layer_slice(arch, [3, 0]) == [0, 1, 2]


@given(st.integers(1, 60), st.integers(0, 60), st.data())
def test_a_number_keeps_the_proportion(total: int, dense: int, data: st.DataObject) -> None:
    dense = min(dense, total)
    assert QWEN3_MOE.experts is not None
    moe = dataclasses.replace(QWEN3_MOE.experts, dense_layers=dense)
    arch = dataclasses.asdict(dataclasses.replace(QWEN3_MOE, layers=total, experts=moe))
    asked = data.draw(st.integers(1, total))
    layers = layer_slice(arch, asked)
    if asked == total:
        assert layers is None
        return
    assert layers is not None
    assert len(set(layers)) == len(layers) == asked
    assert layers == sorted(layers)
    assert max(layers) < total
    found = sum(layer < dense for layer in layers)
    assert abs(found - asked * dense / total) <= 1
    if asked > 1 and 0 < dense < total:
        assert 0 < found < asked


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (0, "between 1 and 61, not 0"),
        (62, "not 62"),
        (True, "not True"),
        ("4", "not '4'"),
        ([0, 0], "not"),
        ([1], "not"),
        ([1, -1], "not"),
        ([4, 1], "4 dense layers and 1 with experts of a model that has 3 and 58"),
        ([1, 59], "1 dense layers and 59"),
    ],
    ids=str,
)
def test_what_the_model_does_not_have_is_refused(asked: Any, named: str) -> None:
    with pytest.raises(EngineError, match=named) as caught:
        layer_slice(R1, asked)
    assert caught.value.kind == "bad_request"
