"""A moment of fuzzing for every reader; ``benchmarks/fuzz_readers.py`` does the same for hours."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from fuzz_mutations import damaged_json
from fuzz_readers import fuzz_once
from fuzz_target import Target
from fuzz_targets import TARGETS

from profiler.errors import UsageError


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_is_refused_in_the_readers_own_way(name: str) -> None:
    if name == "safetensors" and importlib.util.find_spec("torch") is None:
        pytest.skip("the worker's reader needs PyTorch")
    outcome = fuzz_once(TARGETS[name](), examples=25)
    assert outcome.tried > 0
    assert outcome.findings == {}


def test_the_fuzzer_finds_what_a_careless_reader_does() -> None:
    import json

    def careless(content: bytes) -> Any:
        try:
            return json.loads(content)["a"]["b"]
        except ValueError:
            raise UsageError("not JSON") from None

    outcome = fuzz_once(Target(damaged_json([{"a": {"b": 1}}]), careless), examples=200)
    assert {place.split()[0] for place in outcome.findings} >= {"KeyError", "TypeError"}
    assert outcome.counts["refused"] > 0
