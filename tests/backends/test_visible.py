from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.backends.visible import ascend_visible, cuda_visible, rocm_visible

NVIDIA = [("GPU-aaaa1111",), ("GPU-aaaa2222",), ("GPU-bbbb3333", "MIG-GPU-old/1/0")]
AMD = [("GPU-00000000000000aa",), ("GPU-00000000000000ab",), ("GPU-ffffffffffffffff",)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, (0, 1, 2)),
        ("", ()),
        ("2", (2,)),
        ("2, 0", (2, 0)),
        ("0,-1,1", (0,)),
        ("0,9,1", (0,)),
        ("1x,2y", (1, 2)),
        ("none", ()),
        ("0,1,0", ()),
        ("GPU-bbbb", (2,)),
        ("GPU-aaaa2,GPU-aaaa1", (1, 0)),
        ("GPU-aaaa", ()),  # fits two
        ("GPU-bbbb,GPU-bbbb3", ()),  # twice the same
        ("GPU-bbbb,0", (2,)),  # numbers are not taken after UUIDs
        ("MIG-GPU-old/1/0", (2,)),
    ],
)
def test_cuda(value: str | None, expected: tuple[int, ...]) -> None:
    assert cuda_visible(value, NVIDIA).order == expected


def test_what_is_cut_off_is_explained() -> None:
    note = cuda_visible("0,9,1", NVIDIA).note
    assert note is not None
    assert "'9'" in note
    assert "empty" in (cuda_visible("", NVIDIA).note or "")
    assert cuda_visible("1,0", NVIDIA).note is None


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1, 2)),
        ({"ROCR_VISIBLE_DEVICES": ""}, ()),
        ({"HIP_VISIBLE_DEVICES": ""}, (0, 1, 2)),
        ({"ROCR_VISIBLE_DEVICES": "2,0"}, (2, 0)),
        ({"ROCR_VISIBLE_DEVICES": "2,0", "HIP_VISIBLE_DEVICES": "1"}, (0,)),
        ({"ROCR_VISIBLE_DEVICES": "2", "HIP_VISIBLE_DEVICES": "2"}, ()),
        ({"ROCR_VISIBLE_DEVICES": "gpu-FFFF"}, (2,)),
        ({"ROCR_VISIBLE_DEVICES": "GPU-00000000000000a"}, ()),  # fits two
        ({"ROCR_VISIBLE_DEVICES": "1,1,2"}, (1,)),  # a repeated entry ends the list
        ({"HIP_VISIBLE_DEVICES": "1,1,2"}, (1, 2)),  # here it is skipped
        ({"HIP_VISIBLE_DEVICES": "0,01,2"}, (0,)),
        ({"HIP_VISIBLE_DEVICES": "GPU-ffffffffffffffff,0"}, (2, 0)),
        ({"CUDA_VISIBLE_DEVICES": "1"}, (1,)),
        ({"HIP_VISIBLE_DEVICES": "2", "CUDA_VISIBLE_DEVICES": "1"}, (2,)),
    ],
)
def test_rocm(environment: dict[str, str], expected: tuple[int, ...]) -> None:
    assert rocm_visible(environment, AMD).order == expected


NPUS = [0, 1, 2, 5]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, (0, 1, 2, 3)),
        ("1", (1,)),
        ("1,2,5", (1, 2, 3)),
        ("1, 2", (1,)),  # the examples of CANN's manual
        ("1,3,8", (1,)),
        ("0,2x,5", (0, 2)),
        ("", ()),
        ("-1", ()),
        ("2,1", ()),  # only ascending ids are supported
        ("1,1", ()),
        ("0,,1", (0,)),
    ],
)
def test_ascend(value: str | None, expected: tuple[int, ...]) -> None:
    visible = ascend_visible(value, NPUS)
    assert visible.order == expected
    assert (visible.note is None) == (value in (None, "1", "1,2,5"))


@given(st.text(alphabet="0123-,GPUMIabx \u00b2\u0663", max_size=20), st.integers(0, 3))
def test_no_value_shows_a_gpu_twice_or_one_that_is_not_there(value: str, count: int) -> None:
    for order in (
        cuda_visible(value, NVIDIA[:count]).order,
        ascend_visible(value, range(count)).order,
        rocm_visible({"ROCR_VISIBLE_DEVICES": value}, AMD[:count]).order,
        rocm_visible({"ROCR_VISIBLE_DEVICES": "1,0", "HIP_VISIBLE_DEVICES": value}, AMD[:count]).order,
    ):
        assert len(set(order)) == len(order)
        assert all(0 <= position < count for position in order)
