from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import UsageError
from profiler.measure.request import PRESETS, SweepRequest
from profiler.models.catalogue import catalogue
from profiler.models.formats import formats_for
from profiler.workload.scenario import scenarios

words = st.from_regex(r"[a-z][a-z0-9.]{3,12}", fullmatch=True)

requests = st.builds(
    SweepRequest,
    preset=st.sampled_from(list(PRESETS)),
    models=st.lists(words, max_size=3).map(tuple),
    scenarios=st.lists(words, max_size=3).map(tuple),
    engines=st.lists(words, max_size=2).map(tuple),
    devices=st.lists(words, max_size=2).map(tuple),
    precisions=st.lists(words, max_size=2).map(tuple),
    batches=st.lists(st.integers(1, 512), max_size=3).map(tuple),
    budget_s=st.none() | st.integers(1, 100_000).map(float),
    soak_s=st.none() | st.integers(1, 100_000).map(float),
    starts=st.none() | st.integers(1, 9),
    seed=st.integers(-(2**40), 2**40),
    python=st.none() | words,
    engine_options=st.dictionaries(words, words, max_size=3),
)


@given(requests)
def test_a_request_comes_back_from_its_command(request_: SweepRequest) -> None:
    assert SweepRequest.from_arguments(request_.to_arguments()) == request_


def test_the_command_of_a_record_holds_no_home_path_and_still_works() -> None:
    folder = str(Path.home() / "models" / "qwen")
    arguments = SweepRequest(models=(folder,)).to_arguments()
    assert str(Path.home()) not in " ".join(arguments)
    assert SweepRequest.from_arguments(arguments).models == (folder,)


@pytest.mark.parametrize("arguments", [("--dance", "1"), ("--starts",), ("--starts", "many")])
def test_a_command_that_aiprof_did_not_write(arguments: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="cannot be understood"):
        SweepRequest.from_arguments(arguments)


def test_flags_override_their_part_of_the_preset_only() -> None:
    filled, preset = SweepRequest(models=("llama-3.1-8b",)).with_preset()
    assert filled.models == ("llama-3.1-8b",)
    assert filled.scenarios == preset.scenarios
    assert filled.engines == ("torch",)


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'quick'"):
        SweepRequest(preset="quik").with_preset()


def test_differences_are_named_by_flag() -> None:
    run = SweepRequest(models=("qwen2.5-0.5b",), seed=1)
    assert run.differences(SweepRequest(models=("qwen2.5-0.5b",)), only=("models",)) == []
    (line,) = run.differences(SweepRequest(seed=2), only=("seed",))
    assert line == "--seed: the run has 1, asked for 2"


@pytest.mark.parametrize("name", PRESETS)
def test_everything_that_a_preset_names_exists(name: str) -> None:
    preset = PRESETS[name]
    assert set(preset.models) <= catalogue().keys()
    assert set(preset.scenarios) <= scenarios().keys()
    assert all(formats_for(precision) for precision in preset.precisions)
