"""What counts as evidence for a verdict, metric by metric, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import make_prediction
from gate_builders import (
    GIB,
    SPEED,
    STEADY,
    make_case,
    make_device,
    make_failed,
    make_run,
    measured,
    one_line,
    run_with,
    spec_on,
)

from profiler.analysis.decision import start_bounds
from profiler.results.schema import Measurement, SkippedCase


def test_one_start_cannot_decide_unless_the_policy_says_so(tmp_path: Path) -> None:
    case = make_case(spec_on(), (2.0,), flags=("one_start",))
    line = one_line(tmp_path, SPEED % 10, run_with(case))
    assert line.outcome == "undecided"
    assert "1 start, 3 are required; it would pass" in line.why
    assert "--starts 3" in (line.command or "")
    assert one_line(tmp_path, SPEED % 10, run_with(case), head="allow: [one_start]\n").outcome == "pass"
    assert one_line(tmp_path, SPEED % 99, run_with(case), head="allow: [one_start]\n").outcome == "fail"


def test_one_start_cannot_give_more_confidence_than_its_recorded_interval(tmp_path: Path) -> None:
    case = make_case(spec_on(), (2.0,))
    head = "confidence: 0.99\nallow: [one_start, no_interval]\n"
    line = one_line(tmp_path, SPEED % 10, run_with(case), head=head)
    assert line.outcome == "undecided"
    assert "97.5% per side" in line.why


def test_simulated_evidence_cannot_decide_unless_the_policy_says_so(tmp_path: Path) -> None:
    case = make_case(spec_on(), STEADY, simulated=True, flags=("simulated",))
    for limit, would in ((10, "pass"), (99, "fail")):
        line = one_line(tmp_path, SPEED % limit, run_with(case, simulated=True))
        assert line.outcome == "undecided"
        assert f"simulated: no hardware stands behind it; it would {would}" in line.why
        allowed = one_line(tmp_path, SPEED % limit, run_with(case), head="allow: [simulated]\n")
        assert allowed.outcome == would
        assert "simulated" in allowed.labels


def test_simulated_devices_alone_are_enough_to_refuse(tmp_path: Path) -> None:
    """A record may leave out that its case was simulated; its device says so."""
    run = run_with(device=make_device(simulated=True))
    line = one_line(tmp_path, SPEED % 10, run)
    assert line.outcome == "undecided"
    assert "--device" not in (line.command or "")


@pytest.mark.parametrize("flag", ["interference", "drift", "not_steady"])
def test_disturbed_evidence_cannot_decide_by_default(tmp_path: Path, flag: str) -> None:
    case = make_case(spec_on(), STEADY, flags=(flag,))
    line = one_line(tmp_path, SPEED % 10, run_with(case))
    assert line.outcome == "undecided"
    assert f"flag {flag}" in line.why
    assert "do something" in (line.remedy or "")
    free = one_line(tmp_path, SPEED % 10, run_with(case), head="flags: {forbidden: []}\n")
    assert free.outcome == "pass"


def test_an_allow_list_refuses_every_other_flag(tmp_path: Path) -> None:
    case = make_case(spec_on(), STEADY, flags=("few_trials", "throttled"))
    head = "flags: {allowed: [few_trials]}\n"
    line = one_line(tmp_path, SPEED % 10, run_with(case), head=head)
    assert "flag throttled" in line.why
    assert "few_trials" not in line.why


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        ("{min_starts: 5}", "3 starts, 5 are required"),
        ("{min_trials: 6}", "5 trials in a start, 6 are required"),
        ("{min_measured_s: 60}", "measured for 30 s, 60 s are required"),
        ("{sensors: [energy_j]}", "energy_j is required and missing: no energy counter"),
        ("{sensors: [power_max_1s_w]}", "power_max_1s_w is required and missing: not in the record"),
    ],
)
def test_required_evidence(tmp_path: Path, evidence: str, words: str) -> None:
    line = one_line(tmp_path, SPEED % 10, run_with(), head=f"evidence: {evidence}\n")
    assert line.outcome == "undecided"
    assert words in line.why


def test_everything_that_stands_in_the_way_is_said_at_once(tmp_path: Path) -> None:
    case = make_case(spec_on(), (2.0,), simulated=True, flags=("drift",))
    why = one_line(tmp_path, SPEED % 10, run_with(case)).why
    assert all(words in why for words in ("simulated", "flag drift", "1 start, 3 are required"))


def test_energy_and_power_have_a_value_per_start(tmp_path: Path) -> None:
    case = make_case(spec_on(), STEADY, watts=(300.0, 303.0, 297.0))
    line = one_line(tmp_path, "{metric: power_mean_w, at_most: 350}", run_with(case))
    low, high = start_bounds((300.0, 303.0, 297.0), 0.95)
    assert [line.low, line.high] == pytest.approx([low, high])
    assert line.outcome == "pass"
    assert "covers: board" in line.labels
    joules = [w * s / 128 for w, s in zip((300.0, 303.0, 297.0), STEADY, strict=True)]
    line = one_line(tmp_path, "{metric: energy_per_output_token_j, at_most: 4.6}", run_with(case))
    assert line.low == pytest.approx(start_bounds(joules, 0.95)[0])
    assert line.outcome == "undecided"
    none = one_line(tmp_path, "{metric: power_mean_w, at_most: 350}", run_with())
    assert (none.outcome, none.value) == ("undecided", None)
    assert "no energy counter" in none.why
    assert none.command is None


def test_a_power_maximum_that_was_seen_fails_and_otherwise_proves_nothing(tmp_path: Path) -> None:
    extra = {"power_max_1s_w": measured(700.0, "W", scope="board")}
    run = run_with(make_case(spec_on(), STEADY, extra=extra))
    assert one_line(tmp_path, "{metric: power_max_1s_w, at_most: 650}", run).outcome == "fail"
    below = one_line(tmp_path, "{metric: power_max_1s_w, at_most: 750}", run)
    assert below.outcome == "undecided"
    assert "no upper bound; it would pass" in below.why
    allowed = "{metric: power_max_1s_w, at_most: 750, allow: [no_interval]}"
    line = one_line(tmp_path, allowed, run)
    assert line.outcome == "pass"
    assert "no interval" in line.labels


def test_a_soak(tmp_path: Path) -> None:
    ratio = Measurement(
        value=0.97, unit="ratio", ci95=(0.96, 0.98), n=40, method="test", scope="within_process"
    )
    run = run_with(make_case(spec_on(), (2.0,), extra={"sustained_ratio": ratio}))
    required = "{metric: sustained_ratio, at_least: %s, allow: [one_start]}"
    assert one_line(tmp_path, required % 0.95, run).outcome == "pass"
    assert one_line(tmp_path, required % 0.99, run).outcome == "fail"
    assert one_line(tmp_path, required % 0.97, run).outcome == "undecided"
    without = one_line(tmp_path, required % 0.95, run_with())
    assert without.outcome == "undecided"
    assert "--soak 30m" in (without.command or "")


def test_memory_is_exact_and_headroom_is_measured_or_predicted(tmp_path: Path) -> None:
    assert one_line(tmp_path, "{metric: peak_engine_bytes, at_most: 4.0e+9}", run_with()).outcome == "pass"
    assert one_line(tmp_path, "{metric: peak_engine_bytes, at_most: 3.9e+9}", run_with()).outcome == "fail"
    headroom = "{metric: memory_headroom_bytes, at_least: 1.0e+9}"
    predicted = one_line(tmp_path, headroom, run_with())
    assert predicted.outcome == "undecided"
    assert predicted.value == 16 * GIB - make_prediction().needed_bytes
    assert "predicted" in predicted.labels
    assert one_line(tmp_path, headroom, run_with(), head="allow: [predicted]\n").outcome == "pass"
    extra = {"max_sampled_device_bytes": measured(15.5 * GIB, "bytes", scope="device")}
    seen = one_line(tmp_path, headroom, run_with(make_case(spec_on(), STEADY, extra=extra)))
    assert seen.value == pytest.approx(0.5 * GIB)
    assert seen.outcome == "fail"
    unknown = run_with(device=make_device(memory_total_bytes=None))
    assert "how much memory" in one_line(tmp_path, headroom, unknown).why


def test_capacity_is_the_plans_rule_turned_round(tmp_path: Path) -> None:
    predicted = make_prediction()
    head = "allow: [predicted]\n"
    line = one_line(tmp_path, "{metric: kv_capacity_tokens, at_least: 1000}", run_with(), head=head)
    per_token = predicted.kv_cache_bytes / 256
    assert line.value is not None
    needed = (predicted.weights_bytes + line.value * per_token) * 1.05 + 512 * 2**20
    one_more = (predicted.weights_bytes + (line.value + 1) * per_token) * 1.05 + 512 * 2**20
    assert needed == pytest.approx(16 * GIB, rel=1e-3)
    assert needed - 1.05 * (predicted.weights_bytes - 269e6) <= 16 * GIB < one_more + 1e5
    users = "{metric: max_users_at_context, context_tokens: 4096, at_least: %d}"
    found = one_line(tmp_path, users % 100, run_with(), head=head)
    assert found.value == line.value // 4096
    assert "predicted" in found.labels
    assert one_line(tmp_path, users % 100, run_with()).outcome == "undecided"


def test_capacity_that_ran_needs_no_prediction(tmp_path: Path) -> None:
    case = make_case(spec_on(batch=32, prompt_tokens=3000, output_tokens=1000), STEADY)
    users = "{metric: max_users_at_context, context_tokens: %d, at_least: 32}"
    line = one_line(tmp_path, users % 4000, run_with(case))
    assert (line.outcome, line.value) == ("pass", 32)
    assert any("that much ran" in label for label in line.labels)
    assert one_line(tmp_path, users % 4001, run_with(case)).outcome == "undecided"


def test_capacity_that_the_engine_reports_goes_first(tmp_path: Path) -> None:
    extra = {"kv_capacity_tokens": measured(50_000.0, "tokens")}
    run = run_with(make_case(spec_on(batch=32, prompt_tokens=3000), STEADY, extra=extra))
    line = one_line(tmp_path, "{metric: kv_capacity_tokens, at_least: 60000}", run)
    assert (line.outcome, line.value) == ("fail", 50_000)


def test_running_out_of_memory_is_a_fail_and_other_failures_are_not(tmp_path: Path) -> None:
    for kind, outcome in (("out_of_memory", "fail"), ("worker_died", "undecided"), ("timeout", "undecided")):
        line = one_line(tmp_path, SPEED % 10, run_with(make_failed(spec_on(), kind)))
        assert line.outcome == outcome
        assert f"failed: {kind}: needs 2 GiB" in line.why
        assert (line.command is None) == (outcome == "fail")
    simulated = run_with(make_failed(spec_on()), device=make_device(simulated=True))
    assert one_line(tmp_path, SPEED % 10, simulated).outcome == "undecided"


def test_what_does_not_fit_fails_only_where_predictions_count(tmp_path: Path) -> None:
    skipped = SkippedCase(spec=spec_on(), reason="does not fit: 700 GB short", lacking_bytes=700 * GIB)
    run = make_run(skipped=[skipped])
    assert one_line(tmp_path, SPEED % 10, run).outcome == "undecided"
    line = one_line(tmp_path, SPEED % 10, run, head="allow: [predicted]\n")
    assert (line.outcome, line.why) == ("fail", "does not fit: 700 GB short")
    assert "predicted" in line.labels


def test_what_was_not_reached_is_undecided_with_the_command(tmp_path: Path) -> None:
    line = one_line(tmp_path, SPEED % 10, make_run(planned=[spec_on()], complete=False))
    assert line.outcome == "undecided"
    assert "the sweep ended before it" in line.why
    assert line.command is not None


def test_served_and_fidelity_say_what_further_measurement_would_decide(tmp_path: Path) -> None:
    served = "{metric: ttft_s, at_most: 1, percentile: 99, users: 32, case: {scenario: decode-128}}"
    line = one_line(tmp_path, served, run_with())
    assert line.outcome == "undecided"
    assert line.detail == "p99 at 32 users"
    assert "aiprof load URL --scenario decode-128 --concurrency 32 --slo ttft_p99=1s" in (line.remedy or "")
    line = one_line(tmp_path, "{metric: fidelity, verdict: faithful}", run_with())
    assert line.outcome == "undecided"
    assert "fidelity check" in (line.remedy or "")
