"""Policy files: what they may say, and every fault with its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from profiler.analysis.figure_metrics import METRICS
from profiler.analysis.policy import DEFAULT_FORBIDDEN, Requirement, RequirementGroup
from profiler.analysis.policy_file import load_policy
from profiler.errors import InputFileError

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
POLICIES = sorted(path for path in EXAMPLES.glob("*.yaml") if path.name != "boxes.yaml")
HEAD = "policy: 1\nname: test\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "policy.yaml"
    path.write_text(text)
    return path


def faults(folder: Path, text: str) -> str:
    with pytest.raises(InputFileError) as caught:
        load_policy(write(folder, text))
    return "\n".join(caught.value.faults)


def one(folder: Path, requirement: str, head: str = HEAD) -> Requirement:
    policy = load_policy(write(folder, f"{head}requirements:\n  - {requirement}\n"))
    (found,) = policy.requirements()
    return found


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_every_example_can_be_read(path: Path) -> None:
    policy = load_policy(path)
    ids = [requirement.id for requirement in policy.requirements()]
    assert len(ids) >= 3
    assert len(set(ids)) == len(ids)


def test_there_is_an_example_for_each_buyer() -> None:
    assert {path.stem for path in POLICIES} == {
        "chat-qwen2.5-7b",
        "chat-slo",
        "reasoning-deepseek-r1",
        "office-cpu",
        "energy-capped-rack",
    }


def test_defaults_are_strict(tmp_path: Path) -> None:
    found = one(tmp_path, "{metric: ttft_s, at_most: 1}")
    assert found.evidence.min_starts == 3
    assert found.allow == frozenset()
    assert found.flags.forbidden == DEFAULT_FORBIDDEN
    assert found.case.variant == "full"
    assert load_policy(tmp_path / "policy.yaml").confidence == 0.95


def test_a_requirement_adds_to_what_the_policy_says_about_all(tmp_path: Path) -> None:
    head = HEAD + "case: {model: qwen2.5-7b, batch: 8}\nallow: [simulated]\nevidence: {min_trials: 5}\n"
    found = one(
        tmp_path,
        "{metric: ttft_s, at_most: 1, case: {batch: 1, precision: [bf16, fp16]}, allow: [predicted], "
        "evidence: {min_starts: 5}}",
        head,
    )
    assert (found.case.model, found.case.batch, found.case.precision) == ("qwen2.5-7b", 1, ("bf16", "fp16"))
    assert found.allow == {"simulated", "predicted"}
    assert (found.evidence.min_trials, found.evidence.min_starts) == (5, 5)


def test_allowing_one_start_in_one_place_does_not_need_another_minimum(tmp_path: Path) -> None:
    head = HEAD + "evidence: {min_starts: 5}\n"
    found = one(tmp_path, "{metric: sustained_ratio, at_least: 0.9, allow: [one_start]}", head)
    assert found.evidence.min_starts == 1
    assert one(tmp_path, "{metric: ttft_s, at_most: 1}", head).evidence.min_starts == 5


def test_lists_nest_and_ids_are_unique(tmp_path: Path) -> None:
    text = HEAD + (
        "requirements:\n"
        "  - metric: ttft_s\n    at_most: 1\n"
        "  - any:\n"
        "      - {metric: ttft_s, at_most: 2}\n"
        "      - all:\n"
        "          - {id: ttft_s-2, metric: ttft_s, at_most: 3}\n"
        "          - {metric: tpot_s, at_most: 1}\n"
    )
    policy = load_policy(write(tmp_path, text))
    assert [each.id for each in policy.requirements()] == ["ttft_s", "ttft_s-3", "ttft_s-2", "tpot_s"]
    group = policy.root.members[1]
    assert isinstance(group, RequirementGroup)
    assert group.combine == "any"
    assert isinstance(group.members[1], RequirementGroup)


@pytest.mark.parametrize(
    ("requirement", "words"),
    [
        (
            "{metric: ttft_ms, at_most: 500}",
            "requirements[0].metric: unknown metric 'ttft_ms'; did you mean 'ttft_s'?",
        ),
        ("{metric: ttft_s, at_most: 500 ms}", "must be a number in s, not '500 ms'; write 0.5"),
        (
            "{metric: memory_headroom_bytes, at_least: 2 GiB}",
            "in bytes, not '2 GiB'; write 2147483648",
        ),
        ("{metric: power_mean_w, at_most: 0.7 kW}", "number in W, not '0.7 kW'; write 700"),
        ("{metric: power_mean_w, at_most: much}", "number in W, not 'much'"),
        ("{metric: ttft_s, at_most: 1, unit: ms}", "unit: ttft_s is in s, not 'ms'"),
        ("{metric: ttft_s, at_least: 1}", "ttft_s: lower is better, so use at_most"),
        ("{metric: decode_tokens_per_s, at_most: 1}", "higher is better, so use at_least"),
        ("{metric: decode_tokens_per_s}", "at_least is missing"),
        ("{metric: ttft_s, at_most: -1}", "must be at least 0"),
        ("{metric: ttft_s, at_most: .nan}", "numbers must be finite"),
        ("{metric: ttft_s, at_most: 1, percentile: 99}", "percentile needs users"),
        (
            "{metric: decode_tokens_per_s, at_least: 1, users: 3}",
            "users does not go with decode",
        ),
        ("{metric: slo_attainment, at_least: 0.9, slo: {ttft_s: 1}}", "slo_attainment needs users"),
        ("{metric: slo_attainment, at_least: 99, users: 3, slo: {ttft_s: 1}}", "0.99 for 99%"),
        ("{metric: slo_attainment, at_least: 0.9, users: 3}", "slo (ttft_s, tpot_s or e2e_s) goes with"),
        ("{metric: max_users_at_context, at_least: 4}", "context_tokens goes with"),
        ("{metric: kv_capacity_tokens, at_least: 4, context_tokens: 5}", "context_tokens goes with"),
        ("{metric: sustained_ratio, at_least: 95}", "0.95 allows a loss of 5%"),
        ("{metric: fidelity, at_least: 1}", "verdict: faithful"),
        ("{metric: ttft_s, at_most: 1, verdict: faithful}", "verdict goes with metric: fidelity"),
        ("{metric: usd_per_million_output_tokens, at_most: 1}", "costs is missing"),
        ("{metric: ttft_s, at_most: 1, evidence: {min_starts: 1}}", "min_starts: 1 needs allow: [one_start]"),
        ("{metric: ttft_s, at_most: 1, evidence: {sensors: [energy]}}", "did you mean 'energy_j'?"),
        ("{metric: ttft_s, at_most: 1, allow: [one-start]}", "did you mean 'one_start'?"),
        ("{metric: ttft_s, at_most: 1, case: {precision: bf61}}", "did you mean 'bf16'?"),
        ("{metric: ttft_s, at_most: 1, case: {precision: bf16, kv_dtype: fp8}}", "give it or them"),
        ("{metric: ttft_s, at_most: 1, case: {modell: x}}", "unknown key; did you mean 'model'?"),
        ("{metric: ttft_s, at_most: 1, weigth: 2}", "unknown key; did you mean 'weight'?"),
        ("{any: []}", "must have at least one entry"),
        ("{any: [{metric: ttft_s, at_most: 1}], metric: ttft_s, at_most: 1}", "exactly one of metric"),
        ("{any: [{metric: ttft_s, at_most: 1}], weight: 2}", "weight: belongs to the single requirements"),
        ("{note: nothing}", "exactly one of metric"),
        ("{id: 'x y', metric: ttft_s, at_most: 1}", "id: must be text that matches"),
        ("!!python/object/apply:os.system ['true']", "tag"),
    ],
)
def test_faults_in_a_requirement_say_what_to_write(tmp_path: Path, requirement: str, words: str) -> None:
    said = faults(tmp_path, f"{HEAD}requirements:\n  - {requirement}\n")
    assert words in said
    assert "policy.yaml:" in said


def test_all_faults_come_at_once_with_their_lines(tmp_path: Path) -> None:
    text = (
        "policy: 2\nname: test\nconfidense: 0.9\nrequirements:\n"
        "  - {metric: ttft_ms, at_most: 1}\n"
        "  - metric: tpot_s\n    at_most: 50 ms\n"
    )
    said = faults(tmp_path, text).splitlines()
    assert [line.split(":")[1] for line in said] == ["1", "3", "5", "7"]
    assert "did you mean 'confidence'?" in said[1]


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("confidence: 95\n", "confidence: must be at most 0.9999"),
        ("confidence: 0.5\n", "confidence: must be at least 0.6"),
        ("candidates: some\n", "must be 'all' or 'any'"),
        ("flags: {forbidden: [drift], allowed: [drift]}\n", "'drift' is both forbidden and allowed"),
        ("costs: ../prices.yaml\n", "must lie in the policy's folder"),
        ("costs: a/../../prices.yaml\n", "must lie in the policy's folder"),
        ("costs: /etc/prices.yaml\n", "costs: must be text that matches"),
        ("costs: /etc/passwd\n", "costs: must be text that matches"),
        ("costs: prices.yaml\n", "prices.yaml: no such file"),
        ("case: {weight_format: bf16}\n", "precision and single formats come together"),
    ],
)
def test_faults_in_the_head(tmp_path: Path, head: str, words: str) -> None:
    text = f"{HEAD}{head}requirements:\n  - {{metric: ttft_s, at_most: 1, case: {{precision: bf16}}}}\n"
    assert words in faults(tmp_path, text)


def test_a_cost_file_behind_a_link_out_of_the_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret.yaml").write_text("password: hunter2\n")
    (tmp_path / "buyer").mkdir()
    (tmp_path / "buyer" / "prices.yaml").symlink_to(tmp_path / "secret.yaml")
    text = HEAD + "costs: prices.yaml\nrequirements:\n  - {metric: ttft_s, at_most: 1}\n"
    said = faults(tmp_path / "buyer", text)
    assert "leads out of the policy's folder" in said
    assert "hunter2" not in said


def test_endless_nesting_and_floods_are_refused_in_one_line(tmp_path: Path) -> None:
    deep = "{any: [" * 60 + "{metric: ttft_s, at_most: 1}" + "]}" * 60
    assert "nested more than" in faults(tmp_path, f"{HEAD}requirements:\n  - {deep}\n")
    flood = "  - {metric: ttft_s, at_most: 1}\n" * 1001
    assert "1001 requirements; at most 1000" in faults(tmp_path, f"{HEAD}requirements:\n{flood}")


def test_ids_must_be_unique(tmp_path: Path) -> None:
    text = HEAD + "requirements:\n" + "  - {id: a, metric: ttft_s, at_most: 1}\n" * 2
    assert "id 'a' is there twice" in faults(tmp_path, text)


def test_the_policy_in_the_documentation_is_one(tmp_path: Path) -> None:
    text = (EXAMPLES.parent / "gate.md").read_text()
    policy, costs = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "boxes.yaml").write_text(costs)
    found = load_policy(write(tmp_path, policy))
    assert found.costs is not None
    assert [box.lacking for box in found.costs.boxes] == [()]
    assert len(list(found.requirements())) == 3


def test_every_metric_is_documented() -> None:
    text = (EXAMPLES.parent / "gate.md").read_text()
    assert {name for name in METRICS if f"`{name}`" not in text} == set()
