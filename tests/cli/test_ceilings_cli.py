"""``aiprof ceilings`` as a user runs it, on simulated devices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from profiler.cli.ceilings import command
from profiler.errors import AiprofError, NothingMeasuredError, UsageError
from profiler.measure.request import SweepRequest
from profiler.measure.sweep import Sweep
from profiler.models.catalogue import catalogue
from profiler.models.formats import formats_for
from profiler.models.work import trial_work


def run(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "140", "NO_COLOR": "1"}).invoke(
        command, arguments, standalone_mode=False
    )


def fake(*arguments: str) -> Result:
    return run("--engine", "fake", *arguments)


def document(result: Result) -> dict[str, Any]:
    assert result.exception is None
    loaded: dict[str, Any] = json.loads(result.stdout)
    return loaded


def test_the_table_says_what_was_measured_and_what_was_not() -> None:
    result = fake("--device", "fake-h100")
    assert result.return_value == 0
    for words in (
        "SIMULATED",
        "read bandwidth",
        "3.0",
        "bf16 products",
        "host to device",
        "fp8 products: not measured: the fake engine has no such probe",
        "no datasheet value: the catalogue of hardware has no 'simulated H100-like device'",
    ):
        assert words in result.stdout
    assert result.stderr == "measuring simulated H100-like device\n"


def test_the_bounds_of_a_model_are_those_of_its_work() -> None:
    arguments = (
        "--device",
        "fake-0",
        "--model",
        "qwen2.5-7b",
        "--scenario",
        "decode-128",
        "--concurrency",
        "4",
    )
    found = document(fake(*arguments, "--json"))
    ceilings = {one["name"]: one["measurement"]["value"] for one in found["devices"][0]["ceilings"]}
    (bound,) = found["bounds"]
    work = trial_work(catalogue()["qwen2.5-7b"].architecture, formats_for("bf16"), 128, 128, 4)
    moving, computing = (
        work.decode_bytes / ceilings["read_bandwidth"],
        work.decode_flops / ceilings["matrix_flops:bf16"],
    )
    assert bound["decode_attainable_tokens_per_s"] == pytest.approx(4 * 127 / max(moving, computing))
    assert bound["binding_ceilings"]["decode"] == "read_bandwidth"
    assert bound["fits"] is True
    text = fake(*arguments).stdout
    assert "Upper bounds: qwen2.5-7b" in text
    assert "decode-128" in text


def test_all_scenarios_and_their_own_batches_by_default() -> None:
    found = document(fake("--model", "qwen2.5-0.5b", "--json"))
    named = {(bound["scenario"], bound["batch"]) for bound in found["bounds"]}
    assert {("chat", 1), ("chat", 32), ("batch-offline", 128)} <= named
    prefill_only = next(bound for bound in found["bounds"] if bound["scenario"] == "prefill-512")
    assert prefill_only["decode_attainable_tokens_per_s"] is None
    assert "decode" not in prefill_only["binding_ceilings"]


def test_a_model_that_does_not_fit_is_marked() -> None:
    arguments = ("--device", "fake-h100", "--model", "deepseek-r1", "--scenario", "chat")
    assert "does not fit" in fake(*arguments).stdout
    assert not any(bound["fits"] for bound in document(fake(*arguments, "--json"))["bounds"])


def test_a_lacking_ceiling_is_named_instead_of_a_bound() -> None:
    arguments = ("--model", "qwen2.5-7b", "--precision", "fp8-block128", "--scenario", "chat")
    found = document(fake(*arguments, "--json"))
    assert found["bounds"] == []
    assert found["no_bounds"][0]["reason"] == "matrix_flops:fp8 is lacking: the fake engine has no such probe"
    assert "none: matrix_flops:fp8 is lacking" in fake(*arguments).stdout


def test_the_ceilings_of_a_run_are_used_without_measuring(tmp_path: Path) -> None:
    request = SweepRequest(engines=("fake",), scenarios=("decode-128",), batches=(1,))
    record = Sweep(request, lambda _: None).run(tmp_path / "run").record
    result = run("--run", str(tmp_path / "run"), "--model", "qwen2.5-0.5b", "--scenario", "chat", "--json")
    found = document(result)
    assert result.stderr == ""
    assert found["source"] == "as run run measured it"
    shown = found["devices"][0]["ceilings"]
    assert [one["measurement"] for one in shown] == [
        one.measurement.model_dump(mode="json") for one in record.ceilings
    ]
    assert len(found["bounds"]) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("--model", "qwen9", "--precision", "f", "--scenario", "x"),
            ["model 'qwen9'", "precision 'f'", "scenario 'x'"],
        ),
        (("--run", "there-is-none"), ["no such run"]),
        (("--run", "x", "--device", "cpu"), ["--run measures nothing"]),
        (("--scenario", "chat"), ["name one with --model"]),
        (("--engine", "fake", "--device", "nope"), ["fits no device"]),
        (("--engine", "nope"), ["unknown engine 'nope'"]),
    ],
)  # fmt: skip
def test_bad_input_is_said_in_one_go(arguments: tuple[str, ...], words: list[str]) -> None:
    error = run(*arguments).exception
    assert isinstance(error, UsageError)
    assert all(word in str(error) for word in words)


def test_nothing_measured_has_its_own_exit_code() -> None:
    result = run("--engine", "torch", "--device", "fake-0", "--python", "/nonexistent/python")
    assert isinstance(result.exception, NothingMeasuredError)
    assert isinstance(result.exception, AiprofError)
    assert result.exception.exit_code == 4
    assert "/nonexistent/python cannot be started" in result.stderr
