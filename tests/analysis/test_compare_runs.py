"""Comparing runs: what is matched, what is not and why, and the words for what is found."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from builders import make_case_fields, make_fidelity, make_measurements, make_spec
from comparisons import make_box, make_case, make_run, make_start, steady
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.analysis.compare import Comparison, MetricComparison, PairComparison, compare_runs
from profiler.analysis.compare_match import MAX_PAIRS_PER_CASE
from profiler.analysis.compare_statistics import holm, welch
from profiler.analysis.compare_threshold import judge_threshold
from profiler.errors import UsageError
from profiler.results.read import Run
from profiler.results.schema import (
    CaseRecord,
    Failure,
    FormatsRecord,
    Measurement,
    SkippedCase,
)

FP8 = FormatsRecord(weight_format="fp8-block128", compute_dtype="bf16", kv_dtype="bf16")


def _pair(*runs: Run, **options: Any) -> PairComparison:
    (pair,) = compare_runs(runs, **options).pairs
    return pair


def _metric(pair: PairComparison, name: str = "output_tokens_per_s") -> MetricComparison:
    (case,) = pair.cases
    found = case.metric(name)
    assert found is not None
    return found


def _reasons(pair: PairComparison) -> list[tuple[str, str]]:
    return [(case.kind, case.reason) for case in pair.unmatched]


def test_a_clear_difference_is_said_with_its_size_and_interval() -> None:
    pair = _pair(make_box({1: 2.0}, "a"), make_box({1: 1.0}, "b"))
    speed, time = _metric(pair), _metric(pair, "e2e_s")
    assert speed.verdict == time.verdict == "different"
    assert speed.faster == time.faster == "candidate"
    assert speed.ratio == pytest.approx(2, rel=0.05)
    assert speed.words.startswith("B faster by ")
    assert speed.words == time.words
    assert speed.ratio is not None
    assert time.ratio == pytest.approx(1 / speed.ratio)
    assert speed.ratio_ci95 is not None
    assert time.ratio_ci95 == pytest.approx((1 / speed.ratio_ci95[1], 1 / speed.ratio_ci95[0]))
    assert speed.reason is None


def test_the_slower_candidate_makes_the_baseline_the_faster_one() -> None:
    speed = _metric(_pair(make_box({1: 1.0}, "a"), make_box({1: 2.0}, "b")))
    assert speed.faster == "baseline"
    assert speed.words.startswith("A faster by ")
    assert speed.ratio == pytest.approx(0.5, rel=0.05)


def test_boxes_that_scatter_round_the_same_time_are_not_distinguishable() -> None:
    left = make_run([make_case(times=[[1.0], [1.02], [0.99]])])
    right = make_run([make_case(times=[[1.01], [0.98], [1.02]])])
    assert _metric(_pair(left, right)).words == "not distinguishable"


def test_figures_are_those_of_welch_on_the_logarithms_of_start_means() -> None:
    left, right = [[1.0, 1.2], [1.3, 1.3], [1.05, 1.15]], [[0.9, 0.9], [1.0, 0.8]]
    found = _metric(_pair(make_run([make_case(times=left)]), make_run([make_case(times=right)])))
    logs = [[-math.log(sum(start) / 2) for start in side] for side in (left, right)]
    expected = welch(*logs)
    assert found.log_ratio == pytest.approx(expected.difference)
    assert found.df == expected.df
    assert found.p_value == pytest.approx(expected.p_value)
    assert found.baseline == pytest.approx(128 / ((1.1 + 1.3 + 1.1) / 3))
    assert (found.baseline_starts, found.candidate_starts) == (3, 2)


def test_replaced_starts_and_warm_up_count_for_nothing() -> None:
    times = steady(1.0, starts=3, seed=1)
    case = make_case(times=[*times, [50.0, 50.0]])
    starts = (*case.starts[:3], make_start(3, used=False))
    disturbed = make_run([case.model_copy(update={"starts": starts})])
    other = make_run([make_case(times=steady(1.0, seed=2))])
    plain = make_run([make_case(times=times)])
    assert _metric(_pair(disturbed, other)) == _metric(_pair(plain, other))


@pytest.mark.parametrize(("left", "right", "where"), [(1, 3, "A"), (3, 1, "B"), (1, 1, "A and B")])
def test_one_start_decides_nothing_however_large_the_difference(left: int, right: int, where: str) -> None:
    speed = Measurement(
        value=100.0, unit="tokens/s", ci95=(99.0, 101.0), n=5, method="m", scope="within_process"
    )
    found = {"output_tokens_per_s": speed}
    slow = make_case(times=steady(9.0, left), measurements=found)
    fast = make_case(
        times=steady(1.0, right),
        measurements={"output_tokens_per_s": speed.model_copy(update={"value": 900.0, "ci95": (891, 909)})},
    )
    metric = _metric(_pair(make_run([slow]), make_run([fast])))
    assert metric.words == "undecided (one start)"
    assert metric.verdict == "undecided"
    assert metric.ratio == pytest.approx(9, rel=0.05)
    assert metric.ratio_ci95 is None
    assert metric.recorded_scope == "within_process"
    assert metric.ratio_ci95_recorded is not None
    assert metric.ratio_ci95_recorded[0] < 9 < metric.ratio_ci95_recorded[1]
    assert metric.reason is not None
    assert f"one start on {where}" in metric.reason


def test_starts_without_any_spread_decide_nothing() -> None:
    metric = _metric(
        _pair(make_run([make_case(times=[[2.0]] * 3)]), make_run([make_case(times=[[1.0]] * 3)]))
    )
    assert (metric.verdict, metric.words, metric.ratio_ci95) == ("undecided", "undecided (no spread)", None)
    assert metric.ratio == pytest.approx(2)


def test_words_are_corrected_for_the_number_of_comparisons_and_intervals_are_not() -> None:
    times = dict.fromkeys(range(1, 41), 1.0)
    left, right = make_box(times, "a", spread=0.02), make_box(times, "b", spread=0.02)
    pair = _pair(left, right)
    assert pair.tests == 3 * 40
    phases = [
        metric
        for case in pair.cases
        for metric in case.metrics
        if metric.metric in ("prefill_tokens_per_s", "decode_tokens_per_s", "output_tokens_per_s")
    ]
    adjusted = holm([metric.p_value or 0.0 for metric in phases])
    assert [metric.p_adjusted for metric in phases] == adjusted
    chance = [metric for metric in phases if metric.p_value is not None and metric.p_value < 0.05]
    assert chance  # of 40 cases some are off by chance
    for metric in chance:
        assert metric.words == "undecided (not after correction for 120 comparisons)"
        assert metric.ratio_ci95 is not None
        assert not metric.ratio_ci95[0] <= 1 <= metric.ratio_ci95[1]


def test_fewer_metrics_are_fewer_comparisons() -> None:
    left, right = make_box({1: 1.0, 2: 1.0}, "a"), make_box({1: 1.0, 2: 1.0}, "b")
    pair = _pair(left, right, metrics=("decode_tokens_per_s", "tpot_s"))
    assert pair.tests == 2
    assert {metric.metric for case in pair.cases for metric in case.metrics} == {
        "decode_tokens_per_s",
        "tpot_s",
    }
    with pytest.raises(UsageError, match="did you mean 'tpot_s'"):
        compare_runs([left, right], metrics=("tpots",))


@pytest.mark.parametrize(
    ("changes", "kind", "reason"),
    [
        (
            {"formats": FP8},
            "formats",
            "B has it only with formats fp8-block128 weights, bf16 compute, bf16 cache instead of bf16",
        ),
        ({"batch": 8}, "batch", "B has it only with batch 8 instead of 1"),
        (
            {"prompt_tokens": 512, "variant": "quick"},
            "lengths",
            "B has it only with lengths 512 + 128 tokens instead of 128 + 128 tokens",
        ),
        ({"seed": 7}, "seed", "B has it only with seed 7 instead of 0"),
        ({"scenario": "mine"}, "scenario", "B has it only with scenario mine instead of decode-128"),
        (
            {"weights": "folder", "weights_digest": "abc"},
            "weights",
            "B has it only with weights folder abc instead of random",
        ),
        (
            {"workload_id": "f" * 64},
            "architecture",
            f"B has it only with architecture {'f' * 12} instead of {make_spec().workload_id[:12]}",
        ),
        (
            {"seed": 7, "formats": FP8},
            "several",
            "B has this model only with other formats, seed",
        ),
        ({"model": "other"}, "not_planned", "B did not measure this model"),
    ],
)
def test_every_case_left_over_says_why(changes: dict[str, Any], kind: str, reason: str) -> None:
    left = make_run([make_case(times=steady(1.0))])
    right = make_run([make_case(make_spec(**changes), times=steady(1.0))])
    pair = _pair(left, right)
    assert not pair.cases
    assert _reasons(pair)[0] == (kind, reason)
    assert [case.measured_on for case in pair.unmatched] == ["A", "B"]
    assert [case.kind for case in pair.unmatched] == [kind, kind]


def test_a_name_alone_does_not_keep_equal_work_apart() -> None:
    spec = make_spec()
    renamed = spec.model_copy(update={"model": "my-folder", "case_id": "a" * 64, "engine": "vllm"})
    pair = _pair(
        make_run([make_case(spec, steady(1.0))]), make_run([make_case(renamed, steady(1.0, seed=1))])
    )
    assert pair.cases[0].notes == (
        "engine: torch 2.13.0 against vllm",
        "name of the model: smollm2-135m against my-folder",
    )


def test_what_failed_was_skipped_or_never_ran_says_so() -> None:
    specs = {batch: make_spec(batch=batch) for batch in (1, 2, 3)}
    left = make_box(dict.fromkeys(specs, 1.0), "a")
    failure = Failure(kind="out_of_memory", stage="load", message="2 GiB short")
    failed = make_case(specs[1], status="failed", failure=failure, starts=(), trials=())
    skipped = (SkippedCase(spec=specs[2], reason="does not fit"),)
    right = make_run([failed], "b", never_ran=[specs[3]], skipped=skipped)
    assert _reasons(_pair(left, right)) == [
        ("failed", "failed on B (out_of_memory in load: 2 GiB short)"),
        ("skipped", "skipped on B (does not fit)"),
        ("not_run", "not run on B: its sweep ended before it"),
    ]
    both = _pair(right, right)
    assert both.unmatched[0].measured_on == "none"
    assert both.unmatched[0].reason.count("out_of_memory") == 2


def test_a_case_counts_as_it_ended() -> None:
    spec = make_spec()
    failure = Failure(kind="timeout", stage="trials", message="no answer")
    failed = make_case(spec, status="failed", failure=failure, starts=(), trials=())
    again = make_run([failed, make_case(spec, steady(1.0))])
    assert len(_pair(again, make_box({1: 1.0})).cases) == 1


def test_each_device_and_engine_meets_its_own_kind() -> None:
    def box(*parts: tuple[str, str]) -> Run:
        return make_run(
            [
                make_case(make_spec(device_key=device, engine=engine), steady(1.0, seed=(device, engine)))
                for device, engine in parts
            ]
        )

    def pairs(left: Run, right: Run) -> set[tuple[str, str, str, str]]:
        return {
            (c.baseline.device_key, c.baseline.engine, c.candidate.device_key, c.candidate.engine)
            for c in _pair(left, right).cases
        }

    assert pairs(box(("x", "torch")), box(("y", "vllm"))) == {("x", "torch", "y", "vllm")}
    assert pairs(box(("x", "torch"), ("x", "vllm")), box(("y", "vllm"))) == {("x", "vllm", "y", "vllm")}
    assert pairs(box(("x", "torch")), box(("x", "torch"), ("y", "torch"))) == {("x", "torch", "x", "torch")}
    assert len(pairs(box(("x", "t"), ("y", "t")), box(("v", "t"), ("w", "t")))) == 4
    left = _pair(box(("x", "torch"), ("x", "vllm")), box(("y", "vllm")))
    assert [case.kind for case in left.unmatched] == ["other_engine"]
    left = _pair(box(("x", "torch")), box(("x", "torch"), ("y", "torch")))
    assert [case.kind for case in left.unmatched] == ["other_device"]


def test_too_many_devices_for_one_case_are_refused_in_words() -> None:
    many = make_run(
        [make_case(make_spec(device_key=f"d{i}"), steady(1.0)) for i in range(MAX_PAIRS_PER_CASE + 1)]
    )
    pair = _pair(make_box({1: 1.0}), many)
    assert not pair.cases
    assert [case.kind for case in pair.unmatched] == ["ambiguous"]


def test_memory_and_power_are_plain_ratios() -> None:
    def box(watts: float, scope: str) -> Run:
        power = Measurement(value=watts, unit="W", n=3, method="counter", scope=scope)
        memory = Measurement(value=10 * watts, unit="bytes", n=3, method="peak", scope="engine")
        found = {"power_mean_w": power, "peak_engine_bytes": memory}
        return make_run([make_case(times=steady(1.0, seed=watts), measurements=found)])

    pair = _pair(box(100.0, "board"), box(250.0, "board"))
    power = _metric(pair, "power_mean_w")
    assert (power.ratio, power.words, power.ratio_ci95) == (2.5, "ratio only", None)
    assert pair.cases[0].metric("energy_per_output_token_j") is None
    other = _metric(_pair(box(100.0, "board"), box(250.0, "package")), "power_mean_w")
    assert other.ratio is None
    assert other.reason == "not the same quantity: board against package"


def test_what_only_one_side_has_says_why_the_other_has_not() -> None:
    with_reason = make_case(times=steady(1.0), measurements=make_measurements())
    energy = Measurement(value=3.0, unit="J", n=1, method="counter", scope="board")
    other = make_case(times=steady(1.0, seed=1), measurements={"energy_per_output_token_j": energy})
    found = _metric(_pair(make_run([with_reason]), make_run([other])), "energy_per_output_token_j")
    assert found.ratio is None
    assert found.reason == "no value on A: not measured in this case"


def test_a_scenario_without_decode_has_no_decode_figures() -> None:
    spec = make_spec(output_tokens=1)
    sides = []
    for seed in (1, 2):
        case = make_case(spec, steady(1.0, seed=seed))
        trials = tuple(replace(trial, decode_s=None) for trial in case.trials)
        sides.append(make_run([case.model_copy(update={"trials": trials})]))
    pair = _pair(*sides)
    assert _metric(pair, "tpot_s").reason == "the scenario generates one token: there is no decode phase"
    assert pair.tests == 2


def test_the_baseline_comes_first_and_the_others_follow_in_order() -> None:
    runs = [make_box({1: 1.0}, name) for name in ("x", "y", "z")]
    comparison = compare_runs(runs, baseline=1)
    assert [(side.letter, side.runs) for side in comparison.sides] == [
        ("A", ("y",)),
        ("B", ("x",)),
        ("C", ("z",)),
    ]
    assert [(pair.baseline, pair.candidate) for pair in comparison.pairs] == [("A", "B"), ("A", "C")]
    assert comparison.side("C").runs == ("z",)


def test_letters_go_on_after_z() -> None:
    comparison = compare_runs([make_box({1: 1.0})] * 28)
    assert [side.letter for side in comparison.sides][24:] == ["Y", "Z", "AA", "AB"]
    assert "AB is a copy of A: the same measurements, not a second box" in comparison.notes


def test_simulated_evidence_is_labelled() -> None:
    real, fake = make_box({1: 1.0}, "a"), make_box({1: 1.0}, "b", simulated=True)
    comparison = compare_runs([real, fake])
    assert comparison.simulated
    assert comparison.notes == ("simulated: no hardware stands behind B",)
    assert [side.simulated for side in comparison.sides] == [False, True]
    assert not comparison.pairs[0].cases[0].baseline.simulated
    assert comparison.pairs[0].cases[0].candidate.simulated


def test_several_runs_of_one_box_can_be_pooled() -> None:
    quick = [make_box({1: 1.0}, f"a{number}", starts=1) for number in range(3)]
    other = make_box({1: 0.5}, "b", device_key="other")
    other = make_run(
        list(other.cases),
        "b",
        devices=tuple(
            device.model_copy(update={"key": "other"}) for device in make_box({1: 1}).record.devices
        ),
    )
    comparison = compare_runs([*quick, other], pool=True)
    assert [side.runs for side in comparison.sides] == [("a0", "a1", "a2"), ("b",)]
    metric = _metric(comparison.pairs[0])
    assert (metric.baseline_starts, metric.candidate_starts) == (3, 3)
    assert len(comparison.pairs[0].cases[0].baseline.case_ids) == 3
    with pytest.raises(UsageError, match="is a copy of another of the runs"):
        compare_runs([quick[0], quick[0], other], pool=True)
    with pytest.raises(UsageError, match="not 3 runs of one box, pooled"):
        compare_runs(quick, pool=True)


def _judged(seconds: float, verdict: str | None, formats: FormatsRecord) -> CaseRecord:
    case = make_case(make_spec(formats=formats), steady(seconds, seed=(seconds, verdict)))
    return case.model_copy(update={"fidelity": None if verdict is None else make_fidelity(verdict)})


def test_the_fastest_faithful_format_of_each_box_is_compared() -> None:
    bf16 = make_spec().formats
    int8 = FormatsRecord(weight_format="w8a8-int8", compute_dtype="int8", kv_dtype="bf16")
    int4 = FormatsRecord(weight_format="w4a16-g128", compute_dtype="fp16", kv_dtype="fp16")
    left = make_run([_judged(2.0, "faithful", bf16), _judged(1.0, "faithful", FP8)])
    right = make_run([_judged(1.5, "faithful", int8), _judged(0.5, "degraded", int4)])
    comparison = compare_runs([left, right], match="same-fidelity")
    (case,) = comparison.pairs[0].cases
    assert (case.baseline.weight_format, case.candidate.weight_format) == ("fp8-block128", "w8a8-int8")
    assert case.notes == (
        "formats: fp8-block128 weights, bf16 compute, bf16 cache against "
        "w8a8-int8 weights, int8 compute, bf16 cache",
    )
    assert comparison.pairs[0].unmatched == ()
    assert any("formats of the two sides may differ" in note for note in comparison.notes)


@pytest.mark.parametrize("verdict", ["wrong", "degraded"])
def test_what_an_unfaithful_engine_did_is_not_compared_however_fast_it_was(verdict: str) -> None:
    formats = make_spec().formats
    left, right = make_run([_judged(2.0, "faithful", formats)]), make_run([_judged(0.5, verdict, formats)])
    comparison = compare_runs([left, right])
    (pair,) = comparison.pairs
    assert pair.cases == ()
    (case,) = pair.unmatched
    assert (case.kind, case.measured_on) == ("unfaithful", "A")
    assert f"on B the engine computes something else ({verdict}: {verdict} for a test)" in case.reason
    (judgement,) = judge_threshold(comparison, 0.03).judgements
    assert judgement.status == "regression"


@pytest.mark.parametrize("verdict", ["faithful", "not_checked", None])
def test_what_nobody_refuted_is_compared(verdict: str | None) -> None:
    formats = make_spec().formats
    runs = [make_run([_judged(seconds, verdict, formats)]) for seconds in (2.0, 1.0)]
    (pair,) = compare_runs(runs).pairs
    assert len(pair.cases) == 1


def test_records_without_fidelity_say_so_for_every_case() -> None:
    left, right = make_box({1: 1.0, 2: 1.0}, "a"), make_box({1: 1.0, 2: 1.0}, "b")
    pair = _pair(left, right, match="same-fidelity")
    assert not pair.cases
    assert [case.kind for case in pair.unmatched] == ["no_fidelity"] * 2
    for case in pair.unmatched:
        assert "bf16: no fidelity verdict in the record" in case.reason
        assert "sweep again with a fidelity check" in case.reason


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_runs_are_refused(count: int) -> None:
    with pytest.raises((UsageError, IndexError)):
        compare_runs([make_box({1: 1.0})] * count)


def test_an_unknown_match_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown match 'x'"):
        compare_runs([make_box({1: 1.0})] * 2, match="x")  # type: ignore[arg-type]


HOSTILE_TIMES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -1.0, 1e308, -1e308, 5e-324, 1e-9, 1e9, 1.0]),
)


def _all_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list | tuple):
        return all(_all_finite(item) for item in value)
    return not hasattr(value, "__dict__") or all(_all_finite(item) for item in vars(value).values())


def _every_metric_is_whole(comparison: Comparison) -> None:
    for metric in (m for pair in comparison.pairs for case in pair.cases for m in case.metrics):
        assert metric.ratio is not None or metric.reason
        assert (metric.verdict == "different") == (metric.faster is not None)
        assert _all_finite(metric)


@settings(max_examples=60)
@given(
    st.lists(st.lists(HOSTILE_TIMES, min_size=1, max_size=3), min_size=1, max_size=4),
    st.lists(st.lists(HOSTILE_TIMES, min_size=1, max_size=3), min_size=1, max_size=4),
    HOSTILE_TIMES,
)
def test_no_number_in_a_record_makes_another_infinite(
    left: list[list[float]], right: list[list[float]], value: float
) -> None:
    odd = Measurement(value=value, unit="W", ci95=(-1e308, 1e308), n=1, method="m", scope="board")
    odd = odd if value <= 1e308 else odd.model_copy(update={"ci95": (value, value)})
    found = {"power_mean_w": odd, "output_tokens_per_s": odd, "load_s": odd}
    runs = [make_run([make_case(times=times, measurements=found)]) for times in (left, right)]
    comparison = compare_runs(runs)
    _every_metric_is_whole(comparison)


def test_an_impossible_time_is_named() -> None:
    odd = make_run([make_case(times=[[1e308, 1e308], [1.0]])])
    metric = _metric(_pair(odd, make_box({1: 1.0})))
    assert metric.ratio is None
    assert metric.reason == "no value on A: a whole time in the record is 1e+308 s, which cannot be true"


def test_a_case_without_trials_says_so() -> None:
    fields = make_case_fields() | {"trials": ()}
    empty = make_run([CaseRecord(prev_sha256="0" * 64, **fields)])
    metric = _metric(_pair(empty, make_box({1: 1.0})))
    assert metric.reason == "no value on A: the record holds no measured trial of a start that counts"
