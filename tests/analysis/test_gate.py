"""Verdicts: how limits, lists and candidates make pass, fail or undecided, and what would decide."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import pytest
from gate_builders import (
    SPEED,
    STEADY,
    judged,
    make_case,
    make_device,
    make_run,
    one_line,
    run_with,
    spec_on,
)
from hypothesis import given
from hypothesis import strategies as st

from profiler.analysis.decision import start_bounds
from profiler.analysis.verdict import CandidateVerdict, Judged
from profiler.results.read import Run


@pytest.mark.parametrize(
    ("limit", "outcome", "code"), [(60, "pass", 0), (64, "undecided", 3), (70, "fail", 1)]
)
def test_the_interval_decides(tmp_path: Path, limit: float, outcome: str, code: int) -> None:
    found = judged(tmp_path, f"  - {SPEED % limit}", run_with())
    assert found.outcome == outcome
    assert found.exit_code == code
    (line,) = found.candidates[0].root.lines()
    low, high = start_bounds(STEADY, 0.95)
    assert line.value == pytest.approx(64.0)
    assert [line.low, line.high] == pytest.approx([128 / high, 128 / low])
    assert (line.remedy is None) == (outcome != "undecided")


def test_lower_is_better_for_times(tmp_path: Path) -> None:
    assert one_line(tmp_path, "{metric: tpot_s, at_most: 0.02}", run_with()).outcome == "pass"
    assert one_line(tmp_path, "{metric: tpot_s, at_most: 0.01}", run_with()).outcome == "fail"
    line = one_line(tmp_path, "{metric: ttft_s, at_most: 0.6}", run_with())
    assert line.value == pytest.approx(0.5)
    assert line.outcome == "pass"


def test_other_confidence_is_worked_out_from_the_starts(tmp_path: Path) -> None:
    line = one_line(tmp_path, SPEED % 62, run_with(), head="confidence: 0.99\n")
    low, high = start_bounds(STEADY, 0.99)
    assert [line.low, line.high] == pytest.approx([128 / high, 128 / low])
    assert line.outcome == "undecided"
    assert one_line(tmp_path, SPEED % 62, run_with(), head="confidence: 0.9\n").outcome == "pass"


def test_undecided_names_the_starts_and_the_command_that_would_decide(tmp_path: Path) -> None:
    line = one_line(tmp_path, SPEED % 63.7, run_with())
    assert line.outcome == "undecided"
    assert line.command is not None
    words = shlex.split(line.command)
    starts = int(words[words.index("--starts") + 1])
    assert f"about {starts} starts" in (line.remedy or "")
    assert starts > 3
    for flag, value in (("--model", "smollm2-135m"), ("--scenario", "decode-128"), ("--device", "GPU-1")):
        assert words[words.index(flag) + 1] == value
    close = one_line(tmp_path, SPEED % 63.999, run_with())
    assert "over 100 starts" in (close.remedy or "")


def test_engine_options_are_part_of_the_command(tmp_path: Path) -> None:
    command = ("--preset", "standard", "--engine-option", "threads=2; rm -rf /", "--python", "/opt/x")
    line = one_line(tmp_path, SPEED % 63.7, run_with(command=command))
    words = shlex.split(line.command or "")
    assert words[words.index("--engine-option") + 1] == "threads=2; rm -rf /"
    assert words[words.index("--python") + 1] == "/opt/x"


def test_no_case_names_the_nearest_and_the_command(tmp_path: Path) -> None:
    required = "{metric: ttft_s, at_most: 1, case: {model: smollm2-135, scenario: decode-182, batch: 4}}"
    found = judged(tmp_path, f"  - {required}\n  - {SPEED % 10}", run_with())
    missing, _ = found.candidates[0].root.lines()
    assert "did you mean 'smollm2-135m'?" in missing.why
    assert "did you mean 'decode-128'?" in missing.why
    assert "--concurrency 4" in (missing.command or "")
    assert found.outcome == "undecided"


def test_nothing_to_judge(tmp_path: Path) -> None:
    required = "  - {metric: ttft_s, at_most: 1, case: {model: another}}"
    assert judged(tmp_path, required, run_with()).exit_code == 4
    assert judged(tmp_path, f"  - {SPEED % 1}").exit_code == 4
    assert judged(tmp_path, f"  - {SPEED % 1}", run_with(), head="backends: [rocm]\n").exit_code == 4


def test_quick_lengths_are_meant_only_when_asked_for(tmp_path: Path) -> None:
    run = run_with(make_case(spec_on(variant="quick"), STEADY))
    assert judged(tmp_path, f"  - {SPEED % 10}", run).exit_code == 4
    assert judged(tmp_path, f"  - {SPEED % 10}", run, head="case: {variant: quick}\n").exit_code == 0


def test_all_matching_cases_must_do_unless_any_will(tmp_path: Path) -> None:
    run = make_run(make_case(spec_on(), STEADY), make_case(spec_on(batch=4), (40.0, 40.4, 39.6)))
    required = "{id: speed, metric: output_tokens_per_s, at_least: 60, matching: %s}"
    assert judged(tmp_path, f"  - {required % 'all'}", run).outcome == "fail"
    found = judged(tmp_path, f"  - {required % 'any'}", run)
    assert found.outcome == "pass"
    lines = list(found.candidates[0].root.lines())
    assert [line.outcome for line in lines] == ["pass", "fail"]
    assert [line.confidence for line in lines] == [pytest.approx(0.975)] * 2


def test_lists_combine_and_share_the_error_where_there_are_several_chances(tmp_path: Path) -> None:
    text = (
        f"  - any:\n      - {SPEED % 99}\n"
        "      - all:\n          - {metric: ttft_s, at_most: 1}\n          - {metric: tpot_s, at_most: 1}\n"
        "  - {metric: e2e_s, at_most: 9}"
    )
    found = judged(tmp_path, text, run_with())
    assert found.outcome == "pass"
    assert [round(line.confidence, 6) for line in found.candidates[0].root.lines()] == [
        0.975,
        0.975,
        0.975,
        0.95,
    ]
    group = found.candidates[0].root.members[0]
    assert isinstance(group, Judged)
    assert [member.outcome for member in group.members] == ["fail", "pass"]


def boxes(*speeds: float) -> list[Run]:
    """One run per box; a box has its own device and takes as many seconds as asked for."""
    runs = []
    for number, seconds in enumerate(speeds):
        device = make_device(key=f"GPU-{number}", name=f"GPU {number}")
        times = tuple(seconds * factor for factor in (1.0, 1.01, 0.99))
        case = make_case(spec_on(device), times)
        runs.append(make_run(case, device=device, name=f"run-{number}"))
    return runs


def test_candidates_all_or_any(tmp_path: Path) -> None:
    runs = boxes(2.0, 4.0)
    strict = judged(tmp_path, f"  - {SPEED % 50}", *runs)
    assert (strict.outcome, strict.exit_code) == ("fail", 1)
    assert strict.basis == "all candidates must pass"
    free = judged(tmp_path, f"  - {SPEED % 50}", *runs, head="candidates: any\n")
    assert (free.outcome, free.exit_code) == ("pass", 0)
    assert [each.outcome for each in free.candidates] == ["pass", "fail"]
    (line,) = free.candidates[0].root.lines()
    assert line.confidence == pytest.approx(0.975)


def test_ranking_is_by_verdict_then_by_score_and_says_when_it_cannot_tell(tmp_path: Path) -> None:
    found = judged(tmp_path, f"  - {SPEED % 50}", *boxes(4.0, 2.0, 1.0, 1.001))
    assert [(rank.place, rank.candidate, rank.tied) for rank in found.ranking] == [
        (1, "GPU 2", True),
        (1, "GPU 3", True),
        (3, "GPU 1", False),
        (4, "GPU 0", False),
    ]
    assert judged(tmp_path, f"  - {SPEED % 50}", *boxes(2.0)).ranking == ()


def test_the_score_is_the_weighted_geometric_mean_of_margins(tmp_path: Path) -> None:
    text = (
        "  - {metric: output_tokens_per_s, at_least: 32, weight: 3}\n"
        "  - {metric: ttft_s, at_most: 0.25, weight: 1}\n"
        "  - {metric: e2e_s, at_most: 1, weight: 0}"
    )
    (candidate,) = judged(tmp_path, text, run_with()).candidates
    assert candidate.score is not None
    assert candidate.score == pytest.approx(2**0.75 * 0.5**0.25)
    assert candidate.score_low is not None
    assert candidate.score_high is not None
    assert candidate.score_low < candidate.score < candidate.score_high
    (without,) = judged(tmp_path, "  - {metric: power_mean_w, at_most: 1}", run_with()).candidates
    assert without.score is None
    assert "no figure for power_mean_w" in (without.unscored or "")


def test_runs_of_one_device_are_evidence_about_one_candidate(tmp_path: Path) -> None:
    chat, soak = run_with(name="a"), run_with(make_case(spec_on(batch=4), STEADY), name="b")
    found = judged(tmp_path, f"  - {SPEED % 10}", chat, soak)
    assert [candidate.runs for candidate in found.candidates] == [("a", "b")]
    pooled = judged(tmp_path, f"  - {SPEED % 10}", run_with(name="a"), run_with(name="b"))
    (line,) = pooled.candidates[0].root.lines()
    assert line.labels == ("6 starts", "2 runs")


def test_costs_come_from_the_policys_file_or_the_callers(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text(
        "costs: 1\nname: p\nboxes:\n  - name: b\n    match: {device: gpu}\n    rent_usd_per_hour: 2.304\n"
        "    rent_includes_power: true\n    utilisation: 0.5\n"
    )
    required = "{metric: usd_per_million_output_tokens, at_most: %s}"
    # 2.304 USD buy half an hour of work: 1800 s * 64 tokens/s.
    line = one_line(tmp_path, required % 25, run_with(), head="costs: prices.yaml\n")
    assert line.value == pytest.approx(20.0)
    assert line.outcome == "pass"
    assert one_line(tmp_path, required % 15, run_with(), head="costs: prices.yaml\n").outcome == "fail"
    other = run_with(device=make_device(name="TPU"))
    line = one_line(tmp_path, required % 25, other, head="costs: prices.yaml\n")
    assert line.outcome == "undecided"
    assert "no box of the cost file matches" in line.why


@given(
    st.lists(st.floats(0.5, 8.0), min_size=3, max_size=6),
    st.floats(10.0, 300.0),
    st.sampled_from([0.8, 0.95, 0.99]),
)
def test_a_pass_always_has_its_whole_interval_on_the_good_side(
    tmp_path_factory: pytest.TempPathFactory, times: list[float], limit: float, confidence: float
) -> None:
    folder = tmp_path_factory.mktemp("policy")
    line = one_line(
        folder, SPEED % repr(limit), run_with(make_case(spec_on(), times)), head=f"confidence: {confidence}\n"
    )
    assert line.low is not None
    assert (line.outcome == "pass") == (line.low >= limit)
    assert (line.outcome == "fail") == (line.high is not None and line.high < limit)
    assert (line.remedy is not None) == (line.outcome == "undecided")


def test_the_verdict_is_plain_data(tmp_path: Path) -> None:
    found = judged(tmp_path, f"  - {SPEED % 10}", run_with())
    document = dataclasses.asdict(found)
    assert document["candidates"][0]["root"]["members"][0]["requirement"] == "speed"
    assert isinstance(found.candidates[0], CandidateVerdict)


def test_a_simulated_device_is_the_same_only_under_the_same_options(tmp_path: Path) -> None:
    device = make_device(simulated=True)
    fast, slow = (
        run_with(device=device, name=name, command=("--engine-option", f"read_bandwidth={name}"))
        for name in ("1e12", "1e11")
    )
    again = run_with(device=device, name="again", command=("--engine-option", "read_bandwidth=1e12"))
    found = judged(tmp_path, f"  - {SPEED % 10}", fast, slow, again)
    assert [candidate.runs for candidate in found.candidates] == [("1e12", "again"), ("1e11",)]
