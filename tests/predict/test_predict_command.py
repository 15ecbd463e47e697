"""``aiprof predict``: what it prints and refuses; scaling from a run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from builders import make_case_fields, make_model, make_run_record, make_spec
from click.testing import CliRunner, Result

from profiler.cli.predict import command
from profiler.errors import UsageError
from profiler.models.catalogue import catalogue
from profiler.results.schema import Measurement
from profiler.results.store import RunWriter

BASE = ("--hardware", "H100-SXM", "--model", "qwen2.5-7b")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def run_json(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.exception
    return json.loads(result.stdout)


def test_a_prediction_says_so_and_has_its_interval() -> None:
    text = run(*BASE, "--concurrency", "16").stdout
    assert text.startswith("Predicted, not measured: qwen2.5-7b in bf16 on 1 x NVIDIA H100 SXM")
    row = next(line for line in text.splitlines() if "output tokens/s" in line)
    assert " to " in row
    assert "no accuracy claimed" in text
    assert "speculative decoding" in text
    assert "thin ground" in text


def test_explain_shows_the_sum_and_what_binds() -> None:
    text = run(*BASE, "--explain").stdout
    assert "decode step:" in text
    assert text.count("<- binds") == 2


def test_json_is_in_base_units_and_marked() -> None:
    document = run_json(*BASE, "--count", "2", "--concurrency", "8")
    assert document["predicted"] is True
    assert document["parallel"]["tensor"] == 2
    for name, figure in document["figures"].items():
        low, high = figure["interval80"]
        assert low < figure["value"] <= high
        assert figure["predicted"] is True
        assert figure["accuracy_claimed"] == ("power" not in name and "energy" not in name)
    terms = document["terms"]["decode"]
    assert set(terms["seconds"]) == {"products", "attention", "launch", "host", "links"}
    assert document["rests_on"]["devices"] >= 2


def test_several_parts_side_by_side() -> None:
    documents = run_json("--hardware", "h100", "--hardware", "h200", "--model", "llama-3.1-8b")
    rates = [document["figures"]["output_tokens_per_s"]["value"] for document in documents]
    assert rates[1] > rates[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "qwen2.5-7b"), "--hardware is missing"),
        (("--hardware", "h1", "--model", "qwen2.5-7b"), "unknown hardware 'h1'; did you mean"),
        (("--hardware", "h100", "--model", "qwen2.5-8b"), "unknown model 'qwen2.5-8b'; did you mean"),
        (("--hardware", "ppu", "--model", "qwen2.5-7b"), "bandwidth unpublished: cannot predict decode"),
        (("--hardware", "a100", "--model", "qwen2.5-7b", "--precision", "fp8-block128"), "no FP8 units"),
        ((*BASE, "--count", "64", "--tensor-parallel", "64"), "only 28 attention heads"),
        ((*BASE, "--count", "4", "--tensor-parallel", "3"), "4 devices cannot be 3 ranks"),
        ((*BASE, "--count", "4", "--tensor-parallel", "2", "--pipeline-parallel", "1"), "not --count 4"),
        (("--hardware", "l4", "--model", "llama-3.1-70b"), "does not fit on 1 x l4"),
        ((*BASE, "--engine", "vlllm"), "unknown engine 'vlllm'; did you mean 'vllm'"),
        ((*BASE, "--count", "1", "--count", "2"), "give one --count"),
        ((*BASE, "--model", "qwen2.5-3b"), "give one --model"),
    ],
)
def test_what_cannot_be_predicted_is_refused(arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert isinstance(result.exception, UsageError), result.output
    assert message in str(result.exception)


def test_fit_lists_users_by_context() -> None:
    document = run_json(
        "--fit", "--hardware", "h200", "--hardware", "ppu", "--model", "llama-3.1-70b", "--count", "2"
    )
    by_part = {row["hardware"]: row for row in document["rows"]}
    users = by_part["h200"]["users"]
    assert by_part["h200"]["fits"] is True
    assert users == sorted(users, reverse=True)
    assert by_part["h200"]["longest_context"] <= 131_072
    assert by_part["t-head-ppu"]["fits"] is True  # its memory is known, only its speed is not
    text = run("--fit", "--hardware", "t4", "--model", "llama-3.1-70b", "--precision", "fp16").stdout
    assert text.count("does not fit") == 4


def test_cost_comes_with_prices_only(tmp_path: Path) -> None:
    assert "usd_per_million_output_tokens" not in run_json(*BASE)["figures"]
    costs = Path(__file__).resolve().parents[2] / "docs" / "examples" / "boxes.yaml"
    figure = run_json(*BASE, "--costs", str(costs))["figures"]["usd_per_million_output_tokens"]
    assert figure["interval80"][0] < figure["value"] < figure["interval80"][1]
    other = run_json("--hardware", "l40s", "--model", "qwen2.5-7b", "--costs", str(costs))
    assert other["figures"]["usd_per_million_output_tokens"]["reason"].startswith("no box of the cost file")


def measured_run(tmp_path: Path, tokens_per_s: float, **changes: Any) -> Path:
    """A run of qwen2.5-7b on a device that no catalogue knows."""
    architecture = asdict(catalogue()["qwen2.5-7b"].architecture)
    spec = make_spec(model="qwen2.5-7b", prompt_tokens=1000, output_tokens=128)
    record = make_run_record(
        (spec,), models=(make_model(name="qwen2.5-7b", architecture=architecture),), **changes
    )

    def measurement(value: float, unit: str) -> Measurement:
        return Measurement(value=value, unit=unit, n=5, method="mean of trials", scope="within_process")

    figures = {
        "prefill_s": measurement(4.0, "s"),
        "decode_tokens_per_s": measurement(tokens_per_s, "tokens/s"),
    }
    with RunWriter.create(tmp_path / "here", record) as writer:
        writer.append(make_case_fields(spec, measurements=figures, samples=None))
        writer.close()
    return tmp_path / "here"


def test_scaling_from_a_run_carries_its_speed_over(tmp_path: Path) -> None:
    slow, fast = (
        run_json(*BASE, "--scale-from", str(measured_run(tmp_path / str(rate), rate))) for rate in (0.5, 1.0)
    )
    steps = [sum(one["terms"]["decode"]["seconds"].values()) for one in (slow, fast)]
    assert steps[0] == pytest.approx(2 * steps[1], rel=1e-6)
    assert any(line.startswith("scaled from run here") for line in slow["assumptions"])
    plain = run_json(*BASE)["figures"]["tpot_s"]
    scaled = fast["figures"]["tpot_s"]
    assert scaled["interval80"][1] / scaled["value"] > plain["interval80"][1] / plain["value"]


def test_a_run_that_cannot_be_scaled_from(tmp_path: Path) -> None:
    simulated = measured_run(tmp_path / "a", 1.0, simulated=True)
    assert "is simulated" in str(run(*BASE, "--scale-from", str(simulated)).exception)
    other = measured_run(tmp_path / "b", 1.0)
    result = run("--hardware", "h100", "--model", "qwen2.5-3b", "--scale-from", str(other))
    assert "no finished case of this model in bf16" in str(result.exception)
