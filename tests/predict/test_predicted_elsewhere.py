"""Predictions beside measurements: in the report marked and apart, in the gate only where allowed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from builders import make_model, make_run_record, make_spec
from click.testing import CliRunner

from profiler.analysis.gate import judge
from profiler.analysis.policy_file import load_policy
from profiler.analysis.predict.candidate import candidate, case_figures, elsewhere, selected
from profiler.cli.gate import command as gate
from profiler.cli.report import command as report
from profiler.errors import UsageError
from profiler.models.catalogue import catalogue
from profiler.results.find import read_runs
from profiler.results.store import RunWriter

POLICY = """
policy: 1
name: fast enough
case: {{model: qwen2.5-7b}}
allow: [{allow}]
candidates: any
requirements:
  - {{metric: tpot_s, at_most: {limit}}}
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    architecture = asdict(catalogue()["qwen2.5-7b"].architecture)
    specs = tuple(make_spec(model="qwen2.5-7b", batch=batch, engine="vllm") for batch in (1, 8))
    record = make_run_record(specs[:1], models=(make_model(name="qwen2.5-7b", architecture=architecture),))
    RunWriter.create(tmp_path / "here", record).close()
    return tmp_path / "here"


def outcome_of(run: Path, tmp_path: Path, allow: str, limit: float) -> tuple[str, str]:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY.format(allow=allow, limit=limit))
    (loaded,), _ = read_runs([run])
    verdict = judge(load_policy(path), [loaded], predicted=[candidate([loaded], "H200:1")])
    predicted = next(one for one in verdict.candidates if one.backend == "predicted")
    (line,) = predicted.root.lines()
    return predicted.outcome, line.why


def test_a_prediction_decides_nothing_by_default(run: Path, tmp_path: Path) -> None:
    outcome, why = outcome_of(run, tmp_path, "", 10.0)
    assert outcome == "undecided"
    assert "predicted, not measured" in why


def test_a_prediction_counts_where_the_policy_allows_it(run: Path, tmp_path: Path) -> None:
    assert outcome_of(run, tmp_path, "predicted", 10.0)[0] == "undecided"  # no 95% interval yet
    assert outcome_of(run, tmp_path, "predicted, no_interval", 10.0)[0] == "pass"
    assert outcome_of(run, tmp_path, "predicted, no_interval", 1e-6)[0] == "fail"


def test_the_command_says_predicted(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY.format(allow="", limit=10.0))
    result = CliRunner().invoke(gate, [str(path), str(run), "--predict", "MI300X:1"], standalone_mode=False)
    assert result.exception is None
    assert "predicted" in result.output


def test_the_report_marks_what_is_predicted(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = CliRunner().invoke(
        report, [str(run), "--out", str(page), "--predict", "H200:1", "--predict", "ppu"]
    )
    assert result.exception is None
    text = page.read_text()
    section = text[text.index('<section id="predicted"') :].split("</section>")[0]
    assert "Predicted, not measured: 1 x NVIDIA H200" in section
    assert section.count("≈ ") >= 4
    assert "bandwidth unpublished" in section
    assert "≈ " not in text.replace(section, "")
    CliRunner().invoke(report, [str(run), "--out", str(page)])
    assert '<section id="predicted"' not in page.read_text()


def test_figures_have_the_names_of_measured_ones(run: Path) -> None:
    (loaded,), _ = read_runs([run])
    (one,) = elsewhere([loaded], *selected("h100:2"))
    assert one.forecast is not None
    figures = case_figures(one.forecast)
    assert set(figures) == {"output_tokens_per_s", "tpot_s", "decode_tokens_per_s", "ttft_s", "prefill_s"}
    assert figures["decode_tokens_per_s"].value == pytest.approx(1 / figures["tpot_s"].value)
    assert figures["decode_tokens_per_s"].low80 < figures["decode_tokens_per_s"].high80


@pytest.mark.parametrize("text", ["h100:", "h100:1"])
def test_one_is_enough_said(text: str) -> None:
    assert selected(text)[1] == 1


@pytest.mark.parametrize("text", ["h100:0", "h100:two", "h1001"])
def test_a_selector_that_names_nothing(text: str) -> None:
    with pytest.raises(UsageError):
        selected(text)
