"""``aiprof gate`` and ``aiprof cost`` as a person or a CI job meets them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from builders import make_prediction
from click.testing import CliRunner, Result
from gate_builders import make_case, make_device, make_run, spec_on

from profiler.analysis.gate import judge
from profiler.analysis.policy_file import load_policy
from profiler.analysis.verdict import Verdict
from profiler.cli import cost, gate
from profiler.errors import AiprofError
from profiler.measure.request import SweepRequest
from profiler.measure.sweep import Sweep
from profiler.render.gate_files import junit_xml, markdown
from profiler.results.read import Run
from profiler.results.schema import FormatsRecord
from profiler.results.store import RunWriter

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
STEADY = (2.0, 2.02, 1.98)
SIMULATED = "\nallow: [simulated]\n"


def run_command(command: Any, *arguments: str | Path) -> tuple[int, Result]:
    """Run a command and return its exit code, that of an error of ours included."""
    result = CliRunner().invoke(command, [str(each) for each in arguments], standalone_mode=False)
    if isinstance(result.exception, AiprofError):
        return result.exception.exit_code, result
    if result.exception is not None:
        raise result.exception
    return int(result.return_value), result


def write_policy(folder: Path, requirements: str = "", head: str = "") -> Path:
    path = folder / "policy.yaml"
    path.write_text(f"policy: 1\nname: A policy\n{head}requirements:\n{requirements}\n")
    return path


def write_run(path: Path, run: Run) -> Path:
    with RunWriter.create(path, run.record) as writer:
        for case in run.cases:
            writer.append(case.model_dump(exclude={"prev_sha256", "schema_version"}))
        writer.close()
    return path


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    return write_run(tmp_path / "measured", make_run(make_case(spec_on(), STEADY)))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a simulated run."""

    def run(**request: Any) -> Path:
        path = tmp_path_factory.mktemp("sweeps") / "run"
        fields: dict[str, Any] = {"preset": "standard", "engines": ("fake",), "budget_s": 3600.0}
        Sweep(SweepRequest(**fields | request), lambda event: None).run(path)
        return path

    return run


def allowing_simulated(folder: Path, example: str) -> Path:
    """Return a copy of an example that accepts simulated evidence."""
    for path in EXAMPLES.glob("*.yaml"):
        (folder / path.name).write_text(path.read_text())
    copy = folder / example
    copy.write_text(copy.read_text().replace("policy: 1\n", "policy: 1" + SIMULATED))
    return copy


def test_the_chat_example_on_a_simulated_run(tmp_path: Path, sweep: Callable[..., Path]) -> None:
    run = sweep(models=("qwen2.5-7b",), scenarios=("chat",), batches=(8,), devices=("fake-h100",))
    code, result = run_command(gate.command, EXAMPLES / "chat-qwen2.5-7b.yaml", run)
    assert code == 3
    assert "SIMULATED" in result.stdout
    assert "simulated: no hardware stands behind it; it would pass" in result.stdout
    code, result = run_command(gate.command, allowing_simulated(tmp_path, "chat-qwen2.5-7b.yaml"), run)
    assert code == 0
    assert result.stdout.splitlines()[-1] == "PASS"


def test_the_reasoning_example_on_a_simulated_run(tmp_path: Path) -> None:
    """No simulated device of ours holds DeepSeek-R1, so this run is made up of records."""
    device = make_device(simulated=True, name="A simulated rack", memory_total_bytes=1_100_000_000_000)
    formats = FormatsRecord(weight_format="fp8-block128", compute_dtype="fp8", kv_dtype="bf16")
    work: dict[str, Any] = {"model": "deepseek-r1", "scenario": "reasoning", "batch": 8, "formats": formats}
    spec = spec_on(device, prompt_tokens=208, output_tokens=792, **work)
    memory = {"weights_bytes": 673 * 10**9, "kv_cache_bytes": 562_000_000, "needed_bytes": 708 * 10**9}
    case = make_case(spec, (40.0, 40.4, 39.6), predicted=make_prediction(**memory))
    run = write_run(tmp_path / "run", make_run(case, device=device))
    policy = allowing_simulated(tmp_path, "reasoning-deepseek-r1.yaml")
    code, result = run_command(gate.command, policy, run, "--json")
    assert code == 3
    (candidate,) = json.loads(result.stdout)["candidates"]
    by_id = {line["requirement"]: line for line in candidate["lines"]}
    assert by_id["whole-model"]["outcome"] == "pass"
    assert by_id["whole-model"]["confidence"] == pytest.approx(0.975)
    assert by_id["distillation"]["outcome"] == "undecided"
    assert by_id["long-answers"]["outcome"] == "pass"
    assert "--soak 30m" in by_id["keeps-its-speed"]["command"]
    assert "aiprof load URL" in by_id["busy-hour"]["remedy"]


def test_the_rack_example_ranks_simulated_boxes(tmp_path: Path, sweep: Callable[..., Path]) -> None:
    runs = [
        sweep(models=("qwen2.5-7b",), scenarios=("batch-offline",), batches=(32,), devices=(device,))
        for device in ("fake-h100", "fake-mi300x")
    ]
    code, result = run_command(gate.command, allowing_simulated(tmp_path, "energy-capped-rack.yaml"), *runs)
    assert code == 3
    assert "one candidate that passes is enough" in result.stdout
    assert "energy_j is required and missing" in " ".join(result.stdout.split())
    assert "Ranking" in result.stdout
    code, result = run_command(cost.command, EXAMPLES / "boxes.yaml", *runs)
    assert code == 0
    assert "is cheaper than" in " ".join(result.stdout.split())
    assert "What it rests on" in result.stdout


def test_the_office_example_on_a_simulated_run(tmp_path: Path) -> None:
    device = make_device(backend="cpu", simulated=True, name="A simulated CPU")
    spec = spec_on(device, model="qwen2.5-1.5b")
    run = write_run(tmp_path / "run", make_run(make_case(spec, (20.0, 20.2, 19.8)), device=device))
    assert run_command(gate.command, EXAMPLES / "office-cpu.yaml", run)[0] == 3
    code, result = run_command(gate.command, allowing_simulated(tmp_path, "office-cpu.yaml"), run)
    assert "reading-aloud: decode_tokens_per_s ≥ 4 tokens/s" in result.stdout
    assert "PASS" in result.stdout
    # This record has no peak of the process, which the policy asks for.
    assert code == 3


@pytest.mark.parametrize(("limit", "code"), [(50, 0), (64, 3), (90, 1)])
def test_exit_codes(tmp_path: Path, measured: Path, limit: int, code: int) -> None:
    policy = write_policy(tmp_path, f"  - {{metric: output_tokens_per_s, at_least: {limit}}}")
    found, result = run_command(gate.command, policy, measured)
    assert found == code
    assert result.stderr == ""


def test_nothing_to_judge_is_4_and_bad_files_are_2(tmp_path: Path, measured: Path) -> None:
    policy = write_policy(tmp_path, "  - {metric: ttft_s, at_most: 1, case: {model: other}}")
    code, result = run_command(gate.command, policy, measured)
    assert code == 4
    assert "NOTHING TO JUDGE" in result.stdout
    assert run_command(gate.command, tmp_path / "none.yaml", measured)[0] == 2
    assert run_command(gate.command, policy, tmp_path / "no-run")[0] == 2
    assert run_command(gate.command, policy, measured, "--json", "--markdown")[0] == 2
    (measured / "run.json").write_text("{}")
    assert run_command(gate.command, policy, measured)[0] == 2


def test_every_line_says_requirement_figure_verdict_why_and_what_would_decide(
    tmp_path: Path, measured: Path
) -> None:
    policy = write_policy(tmp_path, "  - {id: speed, metric: output_tokens_per_s, at_least: 63.7}")
    _, result = run_command(gate.command, policy, measured)
    for words in (
        "UNDECIDED speed: output_tokens_per_s ≥ 63.7 tokens/s",
        "on decode-128 · smollm2-135m · bf16 · batch 1",
        "64 tokens/s (62.94 to 65.1 tokens/s), 3 starts",
        "the limit lies inside the interval",
        "to decide: about",
        "aiprof sweep --preset standard --model smollm2-135m",
    ):
        assert words in result.stdout, words
    wide = [
        line for line in result.stdout.splitlines() if len(line) > 80 and not line.startswith("    aiprof ")
    ]
    assert wide == []
    assert "\x1b" not in result.stdout


def test_many_cases_are_cut_to_what_did_not_pass(tmp_path: Path) -> None:
    cases = [make_case(spec_on(batch=batch), STEADY) for batch in range(1, 31)]
    found = judge(
        load_policy(write_policy(tmp_path, "  - {id: s, metric: output_tokens_per_s, at_least: 150}")),
        [make_run(*cases)],
    )
    text = markdown(found)
    assert "and 18 more cases (18 pass)" in text.replace("\\", "")
    # Batches 1 and 2 are too slow, and nobody overlooks them.
    assert text.count("❌ fail |") == 2
    assert len(list(found.candidates[0].root.lines())) == 30


def test_json_has_everything_and_the_exit_code(tmp_path: Path, measured: Path) -> None:
    policy = write_policy(tmp_path, "  - {id: speed, metric: output_tokens_per_s, at_least: 50}")
    code, result = run_command(gate.command, policy, measured, "--json")
    document = json.loads(result.stdout)
    assert document["exit_code"] == code == 0
    (line,) = document["candidates"][0]["lines"]
    assert line["value"] == pytest.approx(64)
    assert line["outcome"] == "pass"


def hostile_verdict(folder: Path) -> Verdict:
    name = 'x|`]<script>alert(1)</script>\n\x00\x1b[31m"&@all'
    device = make_device(name=name)
    case = make_case(spec_on(device, model=name, scenario=name), STEADY)
    text = (
        "  - {metric: output_tokens_per_s, at_least: 63.7}\n  - {metric: ttft_s, at_most: 0.1}\n"
        "  - {metric: e2e_s, at_most: 9}\n"
        "  - any: [{metric: ttft_s, at_most: 0.1}, {metric: tpot_s, at_most: 9}]"
    )
    return judge(load_policy(write_policy(folder, text)), [make_run(case, device=device, name="a`b|<i>")])


def test_junit_is_valid_and_counts_right(tmp_path: Path, measured: Path) -> None:
    root = ElementTree.fromstring(junit_xml(hostile_verdict(tmp_path)))
    assert root.tag == "testsuites"
    (suite,) = root.findall("testsuite")
    assert [suite.get(name) for name in ("tests", "failures", "errors")] == ["4", "1", "1"]
    kinds = [[child.tag for child in case] for case in suite.findall("testcase")]
    assert kinds == [["error"], ["failure"], ["system-out"], ["system-out"]]
    assert "aiprof sweep" in (suite.findall("testcase")[0][0].text or "")
    policy = write_policy(tmp_path, "  - {metric: ttft_s, at_most: 9}")
    code, _ = run_command(gate.command, policy, measured, "--junit", tmp_path / "junit.xml")
    assert code == 0
    written = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert (written.get("tests"), written.get("failures"), written.get("errors")) == ("1", "0", "0")


def test_junit_of_no_candidate_is_an_error_and_not_an_empty_success(tmp_path: Path) -> None:
    policy = load_policy(write_policy(tmp_path, "  - {metric: ttft_s, at_most: 9}"))
    root = ElementTree.fromstring(junit_xml(judge(policy, [])))
    assert (root.get("tests"), root.get("errors")) == ("1", "1")


def test_names_cannot_break_out_of_markdown(tmp_path: Path) -> None:
    text = markdown(hostile_verdict(tmp_path))
    prose, _, commands = text.partition("```")
    assert "<script>" not in prose
    assert "\x1b" not in text
    assert "\x00" not in text
    # Every row has five cells: no pipe of a name divides one.
    rows = [line for line in prose.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {6}
    # A fence longer than the backticks of the name.
    assert commands.count("```") == 1


def test_markdown_command(tmp_path: Path, measured: Path) -> None:
    policy = write_policy(tmp_path, "  - {id: speed, metric: output_tokens_per_s, at_least: 50}")
    code, result = run_command(gate.command, policy, measured, "--markdown")
    assert code == 0
    assert result.stdout.startswith("## A policy: PASS")
    assert "| ✅ pass | speed: output\\_tokens\\_per\\_s ≥ 50 tokens/s |" in result.stdout


def test_cost_json_and_markdown(tmp_path: Path, measured: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text(
        "costs: 1\nname: '<b>|prices'\nboxes:\n  - name: b\n    match: {device: gpu}\n"
        "    rent_usd_per_hour: 2.304\n    rent_includes_power: true\n    utilisation: 0.5\n"
    )
    code, result = run_command(cost.command, prices, measured, "--json")
    assert code == 0
    (case,) = json.loads(result.stdout)["works"][0]["cases"]
    assert case["usd_per_million_output_tokens"] == pytest.approx(20)
    assert case["ci95"][0] < 20 < case["ci95"][1]
    _, result = run_command(cost.command, prices, measured, "--markdown")
    assert result.stdout.startswith("## Costs: &lt;b&gt;\\|prices")


def test_cost_without_what_it_rests_on_is_4_with_the_reason(tmp_path: Path, measured: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("costs: 1\nname: p\nboxes:\n  - {name: b, match: {device: gpu}, price_usd: 9}\n")
    code, result = run_command(cost.command, prices, measured)
    assert code == 4
    assert "no price without depreciation_years, utilisation, electricity_usd_per_kwh" in " ".join(
        result.stdout.split()
    )
    assert run_command(cost.command, tmp_path / "none.yaml", measured)[0] == 2
    assert run_command(cost.command, prices, measured, "--json", "--markdown")[0] == 2
