"""What the terminal shows of a run: the view model, the table and the progress lines."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from builders import make_case_fields, make_run_record, make_spec, write_example_run
from rich.console import Console

from profiler.measure.events import (
    CaseFinished,
    CaseStarted,
    OutOfBudget,
    Preparing,
    StageEntered,
    SweepStarted,
    TrialFinished,
)
from profiler.render.cells import DASH, cell
from profiler.render.progress import Progress
from profiler.render.table import print_run
from profiler.render.view import run_view
from profiler.results.read import read_run
from profiler.results.schema import Flag, Measurement
from profiler.results.store import RunWriter


@pytest.fixture
def complete(tmp_path: Path) -> Path:
    return write_example_run(tmp_path / "run")


def table(path: Path, width: int = 100) -> str:
    text = io.StringIO()
    print_run(run_view(read_run(path)), Console(file=text, width=width))
    return text.getvalue()


class TestCell:
    def test_value_interval_and_what_is_behind_them(self) -> None:
        shown = cell(
            Measurement(
                value=50.0,
                unit="tokens/s",
                ci95=(49.0, 51.0),
                n=8,
                method="mean of trials",
                scope="within_process",
            )
        )
        assert str(shown) == "50 tokens/s ±2.0%"
        assert shown.title == "95% interval 49 tokens/s to 51 tokens/s; mean of trials; n = 8; within_process"

    def test_what_is_missing_is_a_dash_with_the_reason_never_zero(self) -> None:
        shown = cell(Measurement.missing("W", "no sensor"))
        assert (str(shown), shown.title) == (DASH, "no sensor")

    def test_an_interval_about_zero_is_absolute(self) -> None:
        zero = Measurement(value=0.0, unit="W", ci95=(-2.0, 2.0), method="m", scope="s")
        assert str(cell(zero)) == "0 W ±2.00"

    def test_other_units_are_shown_as_they_are(self) -> None:
        assert (
            str(cell(Measurement(value=0.1234567, unit="J/token", method="m", scope="s"))) == "0.1235 J/token"
        )


class TestRunView:
    def test_headline_counts_everything(self, tmp_path: Path) -> None:
        view = run_view(read_run(write_example_run(tmp_path / "open", close=False)))
        assert view.headline == "1 of 3 cases measured, 1 failed, 1 not measured yet, 1 skipped"

    def test_a_failure_says_kind_stage_and_message(self, complete: Path) -> None:
        rows = [row for group in run_view(read_run(complete)).groups for row in group.rows]
        assert rows[1].failure.startswith("failed (out_of_memory during load): needs 2 GiB more memory")

    def test_what_was_measured_nowhere_is_listed_with_its_reason(self, complete: Path) -> None:
        missing = dict(run_view(read_run(complete)).missing)
        assert missing == {"energy_j": "this machine has no energy counter that can be read"}

    def test_flags_of_some_cases_get_a_letter_and_those_of_all_none(self, tmp_path: Path) -> None:
        one, two = make_spec(), make_spec(batch=8)
        common = Flag(code="one_start", text="one", hint="h")
        with RunWriter.create(tmp_path / "run", make_run_record((one, two))) as writer:
            writer.append(make_case_fields(one, flags=(common,)))
            drift = Flag(code="drift", text="+5%", hint="h")
            writer.append(make_case_fields(two, flags=(common, drift)))
            writer.close()
        view = run_view(read_run(tmp_path / "run"))
        assert [(shown.mark, shown.flag.code) for shown in view.flags] == [("", "one_start"), ("a", "drift")]
        assert [row.marks for row in view.groups[0].rows] == ["", "a"]


class TestTable:
    @pytest.mark.parametrize("width", [60, 80, 140])
    def test_it_holds_the_figures_at_any_width(self, complete: Path, width: int) -> None:
        shown = table(complete, width)
        assert "50 ±1.0%" in shown
        assert "failed" in shown
        assert max(len(line) for line in shown.splitlines()) <= width

    @pytest.mark.parametrize("width", [60, 80])
    def test_energies_stand_per_phase_and_what_is_missing_is_a_dash(self, tmp_path: Path, width: int) -> None:
        def energy(value: float, unit: str = "J/token") -> Measurement:
            ci95 = (value * 0.98, value * 1.02)
            return Measurement(value=value, unit=unit, ci95=ci95, method="counter", scope="board")

        known, unknown = make_spec(), make_spec(batch=8)
        figures = {
            "energy_per_output_token_j": energy(1.85),
            "prefill_energy_per_token_j": energy(0.0724),
            "decode_energy_per_token_j": Measurement.missing("J/token", "too short"),
            "power_mean_w": energy(300.0, "W"),
            "idle_power_w": energy(70.0, "W"),
        }
        with RunWriter.create(tmp_path / "run", make_run_record((known, unknown))) as writer:
            fields = make_case_fields(known)
            writer.append(fields | {"measurements": fields["measurements"] | figures})
            writer.append(make_case_fields(unknown))
            writer.close()
        shown = table(tmp_path / "run", width)
        _, _, block = shown.partition("Energy of the device (board), idle power included\n")
        (row,) = [line for line in block.partition("Memory of")[0].splitlines() if line.startswith("decode")]
        if width >= 80:
            assert row.split()[-9:] == [
                "1.85",
                "±2.0%",
                "0.0724",
                "±2.0%",
                DASH,
                "300",
                "±2.0%",
                "70.0",
                "±2.0%",
            ]
        assert max(len(line) for line in shown.splitlines()) <= width
        (group,) = run_view(read_run(tmp_path / "run")).groups
        assert group.energy is not None
        assert [batch for _, batch, _ in group.energy.rows] == ["1"]

    def test_names_cannot_smuggle_markup(self, tmp_path: Path) -> None:
        spec = make_spec(model="[red]x[/red]")
        with RunWriter.create(tmp_path / "run", make_run_record((spec,))) as writer:
            writer.append(make_case_fields(spec))
        assert "[red]x[/red]" in table(tmp_path / "run")


def test_progress_writes_a_line_per_case_when_it_is_not_a_terminal(complete: Path) -> None:
    text = io.StringIO()
    run = read_run(complete)
    with Progress(Console(file=text, width=200)) as progress:
        progress.show(Preparing("probing"))
        progress.show(SweepStarted("runs/x", run.record, 2, 95.0))
        for number, case in enumerate(run.cases, start=1):
            progress.show(CaseStarted(number, 2, case.spec, 30.0))
            progress.show(StageEntered(0, 1, "trials"))
            progress.show(TrialFinished(0, 1, False, 50.0, 0.02))
            progress.show(CaseFinished(case))
        progress.show(OutOfBudget(3))
    lines = text.getvalue().splitlines()
    assert lines == [
        "probing",
        "2 cases in about 1:35, results go to runs/x",
        "1/2 decode-128 · smollm2-135m · bf16 · batch 1  decode 50 tokens/s ±1.0%  [1 flag]",
        "2/2 decode-128 · smollm2-135m · bf16 · batch 8  failed: out_of_memory during load: "
        "needs 2 GiB more memory; use a smaller batch",
        "the budget is used up, 3 cases were not measured",
    ]


def test_progress_shows_trials_live_in_a_terminal(complete: Path) -> None:
    text = io.StringIO()
    run = read_run(complete)
    with Progress(Console(file=text, width=150, force_terminal=True)) as progress:
        progress.show(SweepStarted("runs/x", run.record, 2, 95.0))
        progress.show(CaseStarted(1, 2, run.cases[0].spec, 30.0))
        progress.show(StageEntered(0, 1, "trials"))
        progress.show(TrialFinished(0, 4, False, 50.0, 0.02))
        assert "trials 4  50 tokens/s ±2.0%" in str(progress._render())


def test_quiet_is_quiet(complete: Path) -> None:
    text = io.StringIO()
    run = read_run(complete)
    with Progress(Console(file=text), quiet=True) as progress:
        progress.show(SweepStarted("runs/x", run.record, 2, 95.0))
        progress.show(CaseFinished(run.cases[0]))
    assert text.getvalue() == ""
