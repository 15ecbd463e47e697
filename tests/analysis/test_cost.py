"""Prices per million tokens: the arithmetic, its intervals, break-even and what changes the order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from builders import make_fidelity
from gate_builders import make_case, make_device, make_run, spec_on
from hypothesis import given
from hypothesis import strategies as st

from profiler.analysis.cost import capital_usd_per_year, cost_figure, hourly_cost, with_price
from profiler.analysis.cost_compare import CostReport, WorkCosts, cost_report
from profiler.analysis.cost_sensitivity import interval_95
from profiler.analysis.cost_types import ApiPrice, Box, Costs
from profiler.analysis.decision import start_bounds
from profiler.results.read import Run

STEADY = (2.0, 2.02, 1.98)
BOX = Box(
    name="box",
    device="gpu",
    price_usd=40_000.0,
    residual_value_usd=4_000.0,
    depreciation_years=4.0,
    other_fixed_usd_per_year=1_200.0,
    utilisation=0.5,
    electricity_usd_per_kwh=0.15,
    pue=1.3,
    load_power_w=1_000.0,
    idle_power_w=250.0,
)
# By hand: (36,000 / 4 + 1,200) / 8760 h, and 625 W * 1.3 * 0.15 USD/kWh.
USD_PER_HOUR = 10_200 / 8760 + 0.625 * 1.3 * 0.15


def run_of(times: Sequence[float] = STEADY, name: str = "A GPU", key: str = "GPU-1", **more: Any) -> Run:
    device = make_device(name=name, key=key)
    return make_run(make_case(spec_on(device), times, **more), device=device, name=f"run-{key}")


def report_of(*boxes: Box, runs: Sequence[Run] | None = None, **changes: Any) -> CostReport:
    return cost_report(Costs("test", boxes, **changes), runs or [run_of()])


def work_of(*boxes: Box, **changes: Any) -> WorkCosts:
    (work,) = report_of(*boxes, **changes).works
    return work


def test_an_hour_by_hand() -> None:
    hourly = hourly_cost(BOX, None)
    assert hourly.total_usd == pytest.approx(USD_PER_HOUR)
    assert hourly.energy_usd == pytest.approx(0.121875)
    assert hourly.load_w == 1_000


def test_a_million_tokens_by_hand() -> None:
    (case,) = work_of(BOX).cases
    tokens_per_hour = 0.5 * 3600 * 64
    assert case.output.value == pytest.approx(USD_PER_HOUR / tokens_per_hour * 1e6)
    assert case.output_tokens_per_usd == pytest.approx(tokens_per_hour / USD_PER_HOUR)
    assert case.input.value is None
    assert "all cost is on output tokens" in (case.input.reason or "")


def test_annuity_is_the_textbooks_capital_recovery() -> None:
    # 10,000 over 5 years at 8%: capital recovery factor 0.250456.
    box = replace(
        BOX,
        price_usd=10_000.0,
        residual_value_usd=None,
        depreciation_years=5.0,
        depreciation_method="annuity",
        interest_rate_per_year=0.08,
    )
    assert capital_usd_per_year(box) == pytest.approx(2504.56, abs=0.01)
    straight = replace(box, depreciation_method="straight_line")
    assert capital_usd_per_year(straight) == pytest.approx(2000)


def test_rent_replaces_price_and_may_include_power() -> None:
    rented = Box(name="r", device="gpu", rent_usd_per_hour=2.0, rent_includes_power=True, utilisation=0.5)
    assert hourly_cost(rented, None).total_usd == pytest.approx(2.0)
    (case,) = work_of(rented).cases
    assert case.output.value == pytest.approx(2.0 / (0.5 * 3600 * 64) * 1e6)
    without = replace(rented, rent_includes_power=False)
    assert "electricity_usd_per_kwh" in " ".join(without.lacking)


@pytest.mark.parametrize(
    ("gone", "name"),
    [
        ("price_usd", "price_usd or rent_usd_per_hour"),
        ("utilisation", "utilisation"),
        ("electricity_usd_per_kwh", "electricity_usd_per_kwh"),
        ("depreciation_years", "depreciation_years"),
        ("load_power_w", "load_power_w (or power: measured)"),
    ],
)
def test_there_is_no_figure_without_what_it_rests_on(gone: str, name: str) -> None:
    change: dict[str, Any] = {gone: None}
    (case,) = work_of(replace(BOX, **change)).cases
    assert case.output.value is None
    assert case.hourly is None
    assert f"no price without {name} of box 'box'" == case.output.reason


def test_everything_that_is_lacking_is_named_at_once() -> None:
    assert len(Box(name="empty", device="gpu").lacking) == 4


def test_what_was_left_out_is_named() -> None:
    nothing: dict[str, Any] = dict.fromkeys(
        ("residual_value_usd", "other_fixed_usd_per_year", "pue", "idle_power_w")
    )
    bare = replace(BOX, devices_per_box=8, **nothing)
    said = " ".join(bare.left_out)
    for name in ("residual_value_usd", "other_fixed_usd_per_year", "pue", "idle_power_w", "8 devices"):
        assert name in said
    assert BOX.left_out == ()


def test_idle_hours_cost_what_they_draw_and_load_power_when_nothing_is_said() -> None:
    silent = hourly_cost(replace(BOX, idle_power_w=None), None)
    assert silent.energy_usd == pytest.approx(1.0 * 1.3 * 0.15)


def test_the_interval_is_that_of_the_time_per_trial() -> None:
    (case,) = work_of(BOX).cases
    ends = interval_95(case)
    assert ends is not None
    low, high = start_bounds(STEADY, 0.975)
    scale = (case.output.value or 0) / 2.0
    assert list(ends) == pytest.approx([low * scale, high * scale])


def test_measured_watts_count_per_start_with_the_rest_of_the_box() -> None:
    watts = (300.0, 330.0, 270.0)
    box = replace(BOX, power="measured", load_power_w=None, idle_power_w=None, rest_of_box_power_w=200.0)
    (case,) = work_of(box, runs=[run_of(watts=watts)]).cases
    fixed = 10_200 / 8760
    per_start = [
        (fixed + (w + 200) / 1000 * 1.3 * 0.15) / (0.5 * 3600) * seconds / 128 * 1e6
        for w, seconds in zip(watts, STEADY, strict=True)
    ]
    assert list(case.output.per_start) == pytest.approx(per_start)
    ends = interval_95(case)
    assert list(ends or ()) == pytest.approx(start_bounds(per_start, 0.975))
    assert "covers: board" in case.output.note


def test_missing_watts_give_no_figure_and_say_what_to_state() -> None:
    box = replace(BOX, power="measured", load_power_w=None, rest_of_box_power_w=0.0)
    (case,) = work_of(box).cases
    assert case.output.value is None
    assert "no energy counter" in (case.output.reason or "")
    assert "state load_power_w" in (case.output.reason or "")


def test_one_start_has_the_interval_of_its_throughput_and_says_so() -> None:
    (case,) = work_of(BOX, runs=[run_of((2.0,))]).cases
    assert "one start" in case.labels
    assert interval_95(case) is not None


@given(st.floats(0.01, 0.99))
def test_a_split_never_counts_anything_twice(share: float) -> None:
    (whole,) = work_of(BOX).cases
    (split,) = work_of(BOX, output_share=share).cases
    assert split.usd_per_trial == pytest.approx(whole.usd_per_trial)
    assert split.output.value == pytest.approx(share * (whole.output.value or 0))
    # As many prompt as output tokens, so that the two prices add up to the whole.
    total = (split.output.value or 0) + (split.input.value or 0)
    assert total == pytest.approx(whole.output.value)


@pytest.mark.parametrize("verdict", ["wrong", "degraded"])
def test_tokens_of_another_computation_have_no_price(verdict: str) -> None:
    (case,) = work_of(BOX, runs=[run_of(fidelity=make_fidelity(verdict))]).cases
    assert case.output.value is None
    assert f"computes something else ({verdict}: " in str(case.output.reason)
    (faithful,) = work_of(BOX, runs=[run_of(fidelity=make_fidelity("faithful"))]).cases
    assert faithful.output.value is not None


def test_a_device_must_match_exactly_one_box() -> None:
    (case,) = work_of(BOX, replace(BOX, name="other")).cases
    assert "several boxes" in (case.output.reason or "")
    (case,) = work_of(replace(BOX, device="TPU")).cases
    assert "no box of the cost file matches" in (case.output.reason or "")
    by_key = replace(BOX, device=None, device_key="gpu-1")
    assert work_of(by_key).cases[0].output.value is not None
    by_run = replace(BOX, device=None, run="run-GPU-1")
    assert work_of(by_run).cases[0].output.value is not None


def two_boxes() -> tuple[list[Run], Box, Box]:
    runs = [run_of(name="fast GPU", key="F"), run_of((4.0, 4.04, 3.96), name="slow GPU", key="S")]
    return (
        runs,
        replace(BOX, name="fast", device="fast"),
        replace(BOX, name="slow", device="slow", price_usd=9_000.0),
    )


def test_at_the_break_even_price_both_cost_the_same() -> None:
    runs, fast, slow = two_boxes()
    work = work_of(fast, slow, runs=runs)
    assert len(work.break_even) == 2
    for entry in work.break_even:
        assert entry.price is not None
        assert entry.low is not None
        assert entry.high is not None
        assert entry.low < entry.price < entry.high
        own, other = (fast, slow) if entry.candidate == "fast GPU" else (slow, fast)
        again = work_of(with_price(own, entry.price), other, runs=runs)
        first, second = again.cases
        assert first.output.value == pytest.approx(second.output.value)
        assert entry.ratio == pytest.approx(entry.price / (other.price_usd or 0))


def test_no_price_is_low_enough_when_running_costs_alone_are_more() -> None:
    runs, fast, slow = two_boxes()
    work = work_of(fast, replace(slow, load_power_w=90_000.0), runs=runs)
    assert next(entry for entry in work.break_even if entry.candidate == "slow GPU").price is None


def test_whether_the_cheapest_is_really_cheaper() -> None:
    runs, fast, slow = two_boxes()
    assert work_of(fast, slow, runs=runs).distinguishable is True
    alike = [run_of(name="fast GPU", key="F"), run_of((2.01, 1.99, 2.02), name="slow GPU", key="S")]
    same = replace(slow, price_usd=fast.price_usd)
    assert work_of(fast, same, runs=alike).distinguishable is False
    assert work_of(fast, runs=runs[:1]).distinguishable is None


@given(st.floats(0.02, 5.0), st.floats(0.05, 0.95))
def test_at_the_break_even_utilisation_a_box_costs_what_the_service_asks(asked: float, busy: float) -> None:
    api = ApiPrice("api", usd_per_million_input_tokens=asked, usd_per_million_output_tokens=4 * asked)
    box = replace(BOX, utilisation=busy)
    (entry,) = work_of(box, api_prices=(api,)).against_api
    (case,) = work_of(box).cases
    per_trial = 128 * 5 * asked / 1e6
    assert entry.ratio == pytest.approx(per_trial / (case.usd_per_trial or 1))
    if entry.utilisation is None:
        (always,) = work_of(replace(BOX, utilisation=1.0)).cases
        assert (always.usd_per_trial or 0) > per_trial * (1 - 1e-9)
    else:
        (just,) = work_of(replace(BOX, utilisation=entry.utilisation)).cases
        assert just.usd_per_trial == pytest.approx(per_trial)


def test_sensitivity_finds_what_changes_the_order() -> None:
    runs, fast, slow = two_boxes()
    fast = replace(fast, ranges={"price_usd": (10_000.0, 90_000.0)})
    work = work_of(fast, slow, runs=runs)
    price = next(e for e in work.sensitivity if e.assumption == "price_usd" and e.of == ("fast GPU",))
    assert price.stated_range
    assert price.changes_ranking
    assert (price.cheapest_at_low, price.cheapest_at_high) == ("fast GPU", "slow GPU")
    pue = next(e for e in work.sensitivity if e.assumption == "pue" and e.of == ("fast GPU",))
    assert [pue.low, pue.high] == pytest.approx([1.04, 1.56])
    assert not pue.stated_range


def test_sensitivity_changes_a_common_assumption_for_all_at_once() -> None:
    runs, fast, slow = two_boxes()
    shared = frozenset({"utilisation"})
    work = work_of(replace(fast, common=shared), replace(slow, common=shared), runs=runs)
    entries = [entry for entry in work.sensitivity if entry.assumption == "utilisation"]
    assert [(entry.shared, set(entry.of)) for entry in entries] == [(True, {"fast GPU", "slow GPU"})]


def test_sensitivity_is_what_pricing_again_gives() -> None:
    for entry in work_of(BOX).sensitivity:
        change: dict[str, Any] = {entry.assumption: entry.high}
        (again,) = work_of(replace(BOX, **change)).cases
        assert again.output.value == pytest.approx(entry.usd_at_high[0]), entry.assumption


def test_boxes_are_set_against_each_other_on_the_same_work_and_formats_only() -> None:
    device = make_device()
    runs = [
        make_run(
            make_case(spec_on(device), STEADY), make_case(spec_on(device, batch=2), STEADY), device=device
        )
    ]
    assert len(report_of(BOX, runs=runs).works) == 2


def test_times_that_cannot_be_true_give_no_price() -> None:
    case = make_case(spec_on(), STEADY)
    trials = tuple(replace(trial, e2e_s=1e308) for trial in case.trials)
    run = make_run(case.model_copy(update={"trials": trials, "measurements": {}}), device=make_device())
    (priced,) = work_of(BOX, runs=[run]).cases
    assert priced.output.value is None
    assert "cannot be true" in (priced.output.reason or "")


def test_extreme_assumptions_give_no_infinity() -> None:
    huge = replace(BOX, price_usd=1e12, utilisation=1e-300)
    (case,) = work_of(huge).cases
    assert case.output.value is None
    assert case.output.reason


def test_a_cost_needs_a_box() -> None:
    from profiler.analysis.candidates import candidates_of

    (candidate,) = candidates_of([run_of()])
    figure = cost_figure("usd_per_million_output_tokens", candidate.cases[0], "no file", 1.0)
    assert (figure.value, figure.reason) == (None, "no file")
