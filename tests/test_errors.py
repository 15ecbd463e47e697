from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import nearest, unknown

PRECISIONS = ("bf16", "fp16", "fp32", "fp8-block128")


@pytest.mark.parametrize(
    ("name", "meant"),
    [("bf61", "bf16"), ("fp8", "fp8-block128"), ("FP32", "fp32"), ("f", None), ("zzz", None)],
)
def test_the_nearest_name(name: str, meant: str | None) -> None:
    assert nearest(name, PRECISIONS) == ("" if meant is None else f"; did you mean '{meant}'?")


def test_unknown_names_everything_that_is_known() -> None:
    assert unknown("engine", "x", ()) == "unknown engine 'x' (known: none)"
    assert unknown("engine", "torhc", ("torch", "fake")) == (
        "unknown engine 'torhc'; did you mean 'torch'? (known: fake, torch)"
    )


@given(st.text(), st.lists(st.text(min_size=1), max_size=5))
def test_any_text_gets_an_answer(name: str, known: list[str]) -> None:
    assert isinstance(nearest(name, known), str)
