"""``aiprof models``: what it prints, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from profiler.cli.models import command
from profiler.errors import UsageError
from profiler.models.catalogue import catalogue
from profiler.models.config import to_config


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def run_json(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_table_has_a_row_for_every_entry() -> None:
    result = run()
    assert result.exit_code == 0
    for name in catalogue():
        assert f"\n{name} " in result.stdout
    row = next(line for line in result.stdout.splitlines() if line.startswith("qwen3-30b-a3b "))
    assert row.split() == ["qwen3-30b-a3b", "30.5B", "3.35B", "56.9", "GiB", "96", "KiB", "48", "40,960"]
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_output_into_a_pipe_has_no_colours_and_is_not_cut() -> None:
    assert "\x1b" not in run().stdout
    assert "…" not in run("deepseek-r1").stdout


def test_json_of_the_catalogue_is_in_base_units() -> None:
    document = run_json("--precision", "fp32")
    assert document["precision"] == "fp32"
    by_name = {entry["name"]: entry for entry in document["models"]}
    entry = by_name["qwen2.5-0.5b"]
    assert entry["parameters"] == entry["published_parameters"] == 494_032_768
    assert entry["weights_bytes"] == 4 * 494_032_768
    assert entry["kv_bytes_per_token"] == 24 * 1024
    assert entry["published_parameters_source"]
    deepseek = by_name["deepseek-r1"]
    assert deepseek["parameters"] + deepseek["routing_bias"] == deepseek["published_parameters"]


def test_json_of_one_model() -> None:
    document = run_json("Qwen3-30B-A3B", "--context", "100", "--batch", "4")
    assert (document["name"], document["weights"]) == ("qwen3-30b-a3b", "random")
    assert document["parameters"]["total"] == 30_532_122_624
    step = document["decode_step_bytes"]
    assert step["expected"] is True
    assert step["total"] == step["weights_read"] + step["kv_read"] + step["kv_written"]
    assert document["kv_cache_bytes"] == 400 * document["kv_bytes_per_token"] == step["kv_read"]
    flops = 4 * document["decode_flops_per_token"]
    assert document["decode_flops_per_byte"] == pytest.approx(flops / step["total"])
    assert document["distinct_experts_expected"] == pytest.approx(128 * (1 - (120 / 128) ** 4))


def test_dense_models_expect_nothing() -> None:
    document = run_json("llama-3.2-1b")
    assert document["decode_step_bytes"]["expected"] is False
    assert document["distinct_experts_expected"] is None
    assert "expected" not in run("llama-3.2-1b").stdout
    assert "(expected" in run("qwen3-30b-a3b").stdout


def test_one_model_for_people() -> None:
    text = run("qwen3-8b", "--precision", "q4_0").stdout
    assert "8,190,735,360" in text
    assert "4.44 GiB (4.77 GB)" in text
    assert "weight_format q4_0, compute_dtype int8, kv_dtype fp16" in text


def test_a_folder(tmp_path: Path) -> None:
    arch = catalogue()["llama-3.2-1b"].architecture
    (tmp_path / "config.json").write_text(json.dumps(to_config(arch)), encoding="utf-8")
    document = run_json(str(tmp_path))
    assert document["source"] == f"folder {tmp_path.name}"
    assert document["parameters"]["total"] == 1_235_814_400


@pytest.mark.parametrize("arguments", [("qwen4-8b",), ("--precision", "bf17")])
def test_unknown_names_are_usage_errors(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert isinstance(result.exception, UsageError)
    assert "did you mean" in str(result.exception)


@pytest.mark.parametrize("option", ["--context", "--batch"])
def test_sizes_are_at_least_one(option: str) -> None:
    assert run("qwen3-8b", option, "0").exit_code == 2
