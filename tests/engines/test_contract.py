from __future__ import annotations

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
    ],
)
def test_wrong_values_are_named(changes: dict[str, Any], words: str) -> None:
    assert words in (fault_in("load", LOADED | changes) or "")


def test_what_is_missing_is_named() -> None:
    assert fault_in("run", {"submit_ns": 1}) == "the engine's answer to run lacks first_token_ns"


@pytest.mark.parametrize("rates", [[], [0.0], [-1.0], ["x"]])
def test_a_probe_without_a_rate(rates: list[Any]) -> None:
    assert fault_in("probe", {"bytes_per_s": rates, "method": "m"}) is not None
