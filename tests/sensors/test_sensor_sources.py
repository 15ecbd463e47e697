"""What every registered source keeps to, on whatever machine the tests run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from profiler import registry
from profiler.backends.base import Unavailable
from profiler.sensors.base import READ_FAILURES, SensorInfo, failure_number


@pytest.mark.parametrize("name", registry.BUILT_IN["sensors"])
class TestSource:
    def test_it_knows_its_name_and_can_be_made_again_from_its_options(self, name: str) -> None:
        source: Any = registry.load("sensors", name)
        options = json.loads(json.dumps(dict(source.options())))
        again: Any = registry.load("sensors", name, **options)
        assert source.name == again.name == name
        assert again.options() == source.options()

    def test_it_always_answers_and_says_why_there_is_nothing(self, name: str) -> None:
        sensors: list[SensorInfo] = registry.load("sensors", name).probe()
        assert sensors
        keys = [info.key for info in sensors]
        assert len(set(keys)) == len(keys)
        for info in sensors:
            assert info.key.startswith(f"{name}:")
            if info.unavailable is not None:
                assert info.unavailable.code
                assert info.unavailable.text

    def test_a_key_that_it_does_not_have_is_refused(self, name: str) -> None:
        key = f"{name}:GPU-ffffffff/energy"
        opened = registry.load("sensors", name).open([key])[key]
        answer = opened if isinstance(opened, Unavailable) else opened()
        assert isinstance(answer, Unavailable)


def test_failures_have_numbers_and_unknown_ones_too() -> None:
    assert all(failure_number(code) == at for at, code in enumerate(READ_FAILURES))
    assert READ_FAILURES[failure_number("something new")] == "unknown"
