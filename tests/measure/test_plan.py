from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from builders import make_prediction, make_spec
from hypothesis import given
from hypothesis import strategies as st

from profiler.backends.base import Device
from profiler.engines.fake import FakeEngine
from profiler.measure.plan import (
    Candidate,
    least_seconds,
    plan_cases,
    predict,
    share_out,
    spec_of,
)
from profiler.measure.predicted import wanted_seconds
from profiler.models.catalogue import resolve_model
from profiler.models.formats import formats_for
from profiler.models.slices import Depth
from profiler.workload.scenario import find_scenario

DEVICE = Device(
    key="fake-0", backend="fake", ordinal=0, name="x", memory_total_bytes=64 * 2**30, simulated=True
)


def candidate(scenario: str = "decode-128", batch: int = 1, model: str = "qwen2.5-0.5b") -> Candidate:
    point = find_scenario(scenario).point("full", batch)
    return Candidate(DEVICE, FakeEngine(), resolve_model(model), formats_for("bf16"), point, {})


def plan(
    candidates: list[Candidate], free: int | None = None, budget_s: float = 1e4
) -> tuple[list[str], list[str]]:
    cases, skipped = plan_cases(
        candidates,
        free_bytes={"fake-0": free},
        bandwidth={("fake-0", "fake"): 100e9},
        starts=1,
        budget_s=budget_s,
        seed=0,
    )
    return [f"{case.spec.scenario}/{case.spec.batch}" for case in cases], [case.reason for case in skipped]


def test_prediction_of_a_decode_is_bytes_over_bandwidth() -> None:
    """494,032,768 parameters in two bytes each, all read once per step at half of the bandwidth."""
    predicted = predict(candidate(), 100e9)
    assert predicted.weights_bytes == 2 * 494_032_768
    # 24 layers x 2 (k, v) x 2 heads x 64 x 2 bytes = 12,288 bytes per token.
    assert predicted.kv_cache_bytes == 12_288 * 256
    assert predicted.trial_s == pytest.approx(127 * 2 * 494_032_768 / 50e9, rel=0.2)


def test_without_a_bandwidth_there_is_no_time() -> None:
    assert predict(candidate(), None).trial_s is None


def test_what_does_not_fit_is_skipped_with_the_bytes_it_lacks() -> None:
    needed = predict(candidate(), None).needed_bytes
    assert plan([candidate()], free=needed)[1] == []
    kept, (reason,) = plan([candidate()], free=needed - 10**9)
    assert kept == []
    assert "1.0 GB short" in reason


def test_a_context_longer_than_the_model_allows_is_skipped() -> None:
    model = resolve_model("qwen2.5-0.5b")
    short = replace(model, architecture=replace(model.architecture, max_positions=100))
    _, (reason,) = plan([replace(candidate(), model=short)])
    assert reason == "256 tokens are more than the 100 positions of qwen2.5-0.5b"


def test_what_an_engine_cannot_do_is_skipped_with_its_reason() -> None:
    class Picky(FakeEngine):
        def unsupported(self, *_: object) -> str | None:
            return "picky does not like it"

    assert plan([replace(candidate(), engine=Picky())]) == ([], ["picky does not like it"])


def test_a_slice_is_not_recorded_as_the_whole_model() -> None:
    kept, (reason,) = plan([replace(candidate(), options={"layers": 4})])
    assert kept == []
    assert "asked for with --layers" in reason


def test_an_engine_that_knows_no_slices_is_not_given_one() -> None:
    class Whole(FakeEngine):
        runs_slices = False

    kept, (reason,) = plan([replace(candidate(), engine=Whole(), depth=Depth(4, 0))])
    assert kept == []
    assert reason == "engine fake cannot run a slice of a model (--layers)"


def test_a_slice_is_predicted_as_what_it_is_and_has_an_identity_of_its_own() -> None:
    whole, cut = candidate(), replace(candidate(), depth=Depth(4, 0))
    assert predict(cut, None).kv_cache_bytes * 6 == predict(whole, None).kv_cache_bytes
    assert str(spec_of(cut, 0).slice) == "4 of 24 layers"
    assert spec_of(whole, 0).slice is None
    ids = {(spec.case_id, spec.workload_id) for spec in (spec_of(whole, 0), spec_of(cut, 0))}
    assert len(ids) == 2


def test_a_case_asked_for_twice_is_planned_once() -> None:
    assert plan([candidate(), candidate()])[0] == ["decode-128/1"]


def test_case_ids_differ_in_everything_that_results_may_differ_in(tmp_path: Path) -> None:
    one = candidate()
    others = [
        candidate(batch=2),
        candidate("prefill-512"),
        candidate(model="qwen2.5-1.5b"),
        replace(one, formats=formats_for("fp32")),
        replace(one, options={"fault": "oom"}),
        replace(one, device=replace(DEVICE, key="fake-1")),
    ]
    ids = {spec_of(item, 0).case_id for item in [one, *others]} | {spec_of(one, 1).case_id}
    assert len(ids) == len(others) + 2


def test_too_small_a_budget_skips_cases_and_says_what_they_need() -> None:
    kept, reasons = plan([candidate(), candidate(batch=8)], budget_s=20.0)
    assert kept == ["decode-128/1"]
    assert "give a larger --budget" in reasons[0]


@given(
    trials=st.lists(st.floats(0.01, 20.0), min_size=1, max_size=8),
    starts=st.integers(1, 5),
    budget_s=st.floats(10.0, 5000.0),
)
def test_shares_keep_the_budget_and_give_everyone_the_least(
    trials: list[float], starts: int, budget_s: float
) -> None:
    cases = [
        (make_spec(batch=number + 1), make_prediction(trial_s=trial)) for number, trial in enumerate(trials)
    ]
    planned, skipped = share_out(cases, starts, budget_s)
    assert len(planned) + len(skipped) == len(cases)
    assert sum(case.seconds for case in planned) <= budget_s * (1 + 1e-9)
    for case in planned:
        assert case.predicted is not None
        assert case.seconds >= least_seconds(case.predicted, starts) * (1 - 1e-9)
        assert case.seconds <= wanted_seconds(case.predicted, starts, 20) * (1 + 1e-9)
