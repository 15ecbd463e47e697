from __future__ import annotations

import math
from typing import Any

import pytest

from profiler.engines.contract import fault_in

LOADED: dict[str, Any] = {
    "weights_bytes": 1,
    "kv_cache_bytes": 1,
    "load_s": 0.5,
    "compile_s": None,
    "details": {},
}


def test_an_answer_as_agreed() -> None:
    assert fault_in("load", LOADED) is None
    assert fault_in("unload", {}) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"load_s": "fast"}, "load_s = 'fast', which is not int or float"),
        ({"weights_bytes": True}, "weights_bytes = 'True', which is not int"),
        ({"compile_s": []}, "not int or float or null"),
        ({"load_s": math.inf}, "load_s = inf, which cannot be true"),
        ({"load_s": math.nan}, "load_s = nan, which cannot be true"),
        ({"weights_bytes": 10**400}, "which cannot be true"),
        ({"weights_bytes": -1}, "weights_bytes = -1, which cannot be true"),
    ],
)
def test_wrong_values_are_named(changes: dict[str, Any], words: str) -> None:
    assert words in (fault_in("load", LOADED | changes) or "")


def test_what_is_missing_is_named() -> None:
    assert fault_in("run", {"submit_ns": 1}) == "the engine's answer to run lacks first_token_ns"


@pytest.mark.parametrize("rates", [[], [0.0], [-1.0], ["x"], [math.nan], [math.inf], [True]])
def test_a_probe_without_a_rate(rates: list[Any]) -> None:
    assert fault_in("probe", {"bytes_per_s": rates, "method": "m"}) is not None


@pytest.mark.parametrize("steps", [["x"], [None], [1.5], [True], [10**40]])
def test_stamps_that_are_no_times(steps: list[Any]) -> None:
    stamps = {"submit_ns": 1, "first_token_ns": 2, "last_token_ns": 3, "output_sha256": "0"}
    assert "step_ns" in (fault_in("run", {**stamps, "step_ns": steps}) or "")


@pytest.mark.parametrize("engine", [{}, {"version": "1"}, {"version": [], "details": {}}])
def test_an_engine_that_does_not_say_what_it_is(engine: dict[str, Any]) -> None:
    hello = {"engine": engine, "devices": [], "simulated": True, "python": "3.9"}
    assert "version or details" in (fault_in("hello", hello) or "")
    assert "python" in (fault_in("hello", hello | {"python": "3" * 201}) or "")
