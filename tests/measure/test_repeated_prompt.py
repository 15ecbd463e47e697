"""The last prompts once more: caught when much faster than fresh ones, and never by luck alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler.measure.phase_energies import Run
from profiler.measure.repeated_prompt import RepeatedPrompt, repeat_prompt, reserve_s
from profiler.measure.request import SweepRequest
from profiler.measure.sweep import Sweep
from profiler.results.schema import TrialRecord


def trial(prefill_s: float = 0.2, e2e_s: float = 1.0, *, warm_up: bool = False) -> TrialRecord:
    return TrialRecord(
        start=0, index=0, warm_up=warm_up, prefill_s=prefill_s, decode_s=e2e_s - prefill_s, e2e_s=e2e_s
    )


class Engine:
    """Answers with set times, fresh or repeated, remembering the last prompt only."""

    def __init__(self, repeated: tuple[float, float], fresh: tuple[float, float] = (0.2, 1.0)) -> None:
        self.times = {True: repeated, False: fresh}
        self.last = True
        self.asked: list[tuple[bool, int]] = []

    def __call__(self, again: bool, tokens: int) -> Run:
        self.asked.append((again, tokens))
        first, last = self.times[again == self.last]
        self.last = again
        return Run(0, int(first * 1e9), int(last * 1e9))


def test_an_engine_without_a_cache_costs_one_repeat() -> None:
    engine = Engine((0.2, 1.0))
    assert repeat_prompt([trial()] * 5, 128, 100.0, engine) == RepeatedPrompt(1.0)
    assert engine.asked == [(True, 128)]


@pytest.mark.parametrize("repeated", [(0.05, 0.85), (0.2, 0.3), (0.001, 0.002)])
def test_a_cached_prefix_and_a_cached_answer_are_both_seen(repeated: tuple[float, float]) -> None:
    found = repeat_prompt([trial()] * 5, 128, 100.0, Engine(repeated))
    assert found.flag is not None
    assert found.flag.code == "cached_answers"
    assert found.ratio == pytest.approx(min(repeated[0] / 0.2, repeated[1]))


def test_a_device_that_got_faster_is_no_cache() -> None:
    """Only a fresh prompt beside the repeated one tells a cache from a neighbour that went away."""
    engine = Engine((0.1, 0.5), fresh=(0.1, 0.5))
    assert repeat_prompt([trial()] * 5, 128, 100.0, engine) == RepeatedPrompt(1.0)
    assert [again for again, _ in engine.asked] == [True, False, False]


def test_long_answers_are_repeated_up_to_the_first_token_only() -> None:
    engine = Engine((0.05, 0.05))
    found = repeat_prompt([trial()] * 5, 128, 10.0, engine)
    assert {tokens for _, tokens in engine.asked} == {1}
    assert found.flag is not None


def test_what_would_cost_too_much_is_not_judged() -> None:
    engine = Engine((0.0, 0.0))
    assert repeat_prompt([trial()] * 5, 128, 1.0, engine) == RepeatedPrompt(None)
    assert engine.asked == []


def test_warm_up_trials_are_not_what_it_is_held_against() -> None:
    trials = [trial(0.01, 0.02, warm_up=True), *[trial()] * 4]
    assert repeat_prompt(trials, 128, 100.0, Engine((0.15, 0.9))).flag is None


@pytest.mark.parametrize(("seconds", "kept"), [(100.0, 1.0), (10.0, 0.2), (1.0, 0.0)])
def test_the_time_for_it_is_kept_back(seconds: float, kept: float) -> None:
    assert reserve_s(trial(), 128, seconds) == kept


@pytest.mark.parametrize(("cached", "flagged"), [(0.1, True), (1.0, False)])
def test_a_sweep_flags_an_engine_that_caches(tmp_path: Path, cached: float, flagged: bool) -> None:
    request = SweepRequest(
        engines=("fake",),
        engine_options={"cached": str(cached), "noise_cv": "0.01"},
        scenarios=("decode-128",),
        batches=(1,),
    )
    (case,) = Sweep(request, lambda _: None).run(tmp_path / "run").cases
    assert ("cached_answers" in {flag.code for flag in case.flags}) is flagged
    assert case.starts[0].box is not None
    assert case.starts[0].box.repeated_prompt_ratio == pytest.approx(cached, rel=0.1)
