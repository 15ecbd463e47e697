"""Runs as data frames: what the rows are, stable dtypes, damaged runs, and finding runs by name."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from builders import (
    make_case_fields,
    make_failed_fields,
    make_prediction,
    make_run_record,
    make_spec,
    write_example_run,
)

import profiler
from profiler.errors import InputFileError, UsageError
from profiler.results.find import find_runs, read_runs, resolve_run
from profiler.results.load import RUN_COLUMNS, TRIAL_COLUMNS, RunWarning
from profiler.results.store import RunWriter

GOLDEN = Path(__file__).parent / "data" / "run-schema-1"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with three runs in ./runs: complete, incomplete and damaged."""
    folder = tmp_path / "runs"
    write_example_run(folder / "complete")
    write_example_run(folder / "incomplete", close=False)
    write_example_run(folder / "damaged")
    (folder / "damaged" / "run.json").write_text("{")
    (folder / "notes").mkdir()
    (folder / "notes.txt").write_text("not a run")
    monkeypatch.chdir(tmp_path)
    return folder


def _dtypes(frame: pd.DataFrame) -> dict[str, str]:
    return {str(name): str(dtype) for name, dtype in frame.dtypes.items()}


def test_a_measured_case_has_a_row_for_each_metric(runs: Path) -> None:
    frame = profiler.load_runs(runs / "complete")
    ok = frame[(frame["status"] == "ok") & ~frame["predicted"]].set_index("metric")
    assert list(ok.index) == ["decode_tokens_per_s", "prefill_s", "energy_j"]
    speed = ok.loc["decode_tokens_per_s"]
    assert (speed["value"], speed["unit"], speed["ci_low"], speed["ci_high"]) == (
        50.0,
        "tokens/s",
        49.5,
        50.5,
    )
    assert (speed["device"], speed["backend"], speed["engine_version"]) == ("A CPU", "cpu", "2.13.0")
    assert (speed["run"], speed["n"], speed["flags"]) == ("complete", 3, "one_start,few_trials")
    assert speed["created_utc"] == pd.Timestamp("2026-01-31T12:00:00Z")


def test_a_missing_value_is_missing_with_its_reason_and_not_zero(runs: Path) -> None:
    frame = profiler.load_runs(runs / "complete")
    energy = frame[frame["metric"] == "energy_j"].iloc[0]
    assert pd.isna(energy["value"])
    assert energy["reason"] == "this machine has no energy counter that can be read"


def test_predictions_of_memory_are_rows_of_their_own(runs: Path) -> None:
    frame = profiler.load_runs(runs / "complete")
    predicted = frame[frame["predicted"]].set_index("metric")
    expected = make_prediction()
    assert predicted["value"].to_dict() == {
        "weights_bytes": expected.weights_bytes,
        "kv_cache_bytes": expected.kv_cache_bytes,
        "needed_bytes": expected.needed_bytes,
    }
    assert set(predicted["n"]) == {0}


def test_cases_without_a_result_have_one_row_each_that_says_why(runs: Path) -> None:
    with pytest.warns(RunWarning, match="incomplete"):
        frame = profiler.load_runs(runs / "incomplete")
    without = frame[frame["metric"].isna()].set_index("status")
    assert without["reason"].to_dict() == {
        "failed": "out_of_memory in load: needs 2 GiB more memory; use a smaller batch",
        "skipped": "needs 3.0 GiB more memory",
        "not_run": "planned, but the sweep ended before it",
    }
    assert without["batch"].to_dict() == {"failed": 8, "skipped": 512, "not_run": 16}
    assert without["value"].isna().all()
    assert set(frame["case_id"]) == {
        case.case_id for case in [make_spec(batch=batch) for batch in (1, 8, 16, 512)]
    }


def test_a_case_measured_again_after_a_failure_keeps_both_records(tmp_path: Path) -> None:
    spec = make_spec()
    with RunWriter.create(tmp_path, make_run_record((spec,))) as writer:
        writer.append(make_failed_fields(spec))
        writer.append(make_case_fields(spec))
        writer.close()
    assert set(profiler.load_runs(tmp_path)["status"]) == {"failed", "ok"}


def test_dtypes_are_the_documented_ones_also_when_there_is_no_row(runs: Path) -> None:
    for frame in (profiler.load_runs([]), profiler.load_runs(runs / "complete")):
        assert _dtypes(frame) == RUN_COLUMNS
    for frame in (profiler.load_trials([]), profiler.load_trials(runs / "complete")):
        assert _dtypes(frame) == TRIAL_COLUMNS


def test_integers_keep_every_digit(tmp_path: Path) -> None:
    spec = make_spec(seed=2**63 - 1, batch=2**53 - 1)
    with RunWriter.create(tmp_path, make_run_record((spec,))) as writer:
        writer.append(make_case_fields(spec))
        writer.close()
    row = profiler.load_runs(tmp_path).iloc[0]
    assert (int(row["seed"]), int(row["batch"])) == (2**63 - 1, 2**53 - 1)


def test_a_run_of_any_year_can_be_loaded(tmp_path: Path) -> None:
    for year in ("0001", "9999"):
        record = make_run_record(created_utc=f"{year}-12-31T23:59:59+00:00")
        RunWriter.create(tmp_path / year, record).close()
        assert profiler.load_runs(tmp_path / year)["created_utc"].iloc[0].year == int(year)


def test_a_device_or_engine_that_the_run_does_not_describe_is_missing(tmp_path: Path) -> None:
    RunWriter.create(tmp_path, make_run_record(devices=(), engines=())).close()
    row = profiler.load_runs(tmp_path).iloc[0]
    assert row[["device", "backend", "engine_version"]].isna().all()
    assert row["engine"] == "torch"


def test_anything_simulated_marks_its_rows(tmp_path: Path) -> None:
    spec = make_spec()
    with RunWriter.create(tmp_path / "case", make_run_record((spec,))) as writer:
        writer.append(make_case_fields(spec, simulated=True))
        writer.close()
    with RunWriter.create(tmp_path / "run", make_run_record((spec,), simulated=True)) as writer:
        writer.append(make_case_fields(spec))
        writer.close()
    RunWriter.create(tmp_path / "no case", make_run_record(simulated=True)).close()
    assert profiler.load_runs(tmp_path)["simulated"].all()


def test_trials_have_a_row_each_with_what_was_warm_up(runs: Path) -> None:
    frame = profiler.load_trials(runs / "complete")
    assert list(frame["trial"]) == [0, 1, 2, 3, 4]
    assert list(frame["warm_up"]) == [True, True, False, False, False]
    assert frame["used"].all()
    assert set(frame["e2e_s"]) == {3.04}


def test_trials_of_a_replaced_or_unfinished_start_are_marked_unused(tmp_path: Path) -> None:
    fields = make_case_fields()
    (start,), trials = fields["starts"], fields["trials"]
    fields["starts"] = (start.model_copy(update={"used": False}),)
    fields["trials"] = (*trials, replace(trials[0], start=1, decode_s=None))
    with RunWriter.create(tmp_path, make_run_record()) as writer:
        writer.append(fields)
        writer.close()
    frame = profiler.load_trials(tmp_path)
    assert not frame["used"].any()
    assert pd.isna(frame["decode_s"].iloc[-1])


def test_several_paths_and_folders_load_each_run_once(runs: Path) -> None:
    shutil.rmtree(runs / "damaged")
    with pytest.warns(RunWarning, match="incomplete") as caught:
        frame = profiler.load_runs([str(runs), runs / "complete", runs / ".." / "runs"])
    assert len(caught) == 1
    with pytest.warns(RunWarning, match="incomplete"):
        assert len(frame) == len(profiler.load_runs(runs))
    assert list(frame["run"].unique()) == ["complete", "incomplete"]


def test_all_damaged_runs_are_named(runs: Path) -> None:
    shutil.copytree(runs / "complete", runs / "other")
    (runs / "other" / "cases.jsonl").write_text("x\n")
    with pytest.raises(InputFileError) as error:
        profiler.load_runs([runs, "nowhere", runs / "notes"])
    assert [fault.split(": ")[0] for fault in error.value.faults] == [
        f"{runs}/damaged/run.json",
        f"{runs}/other/cases.jsonl:1",
        "nowhere",
        f"{runs}/notes",
    ]


def test_damaged_runs_are_skipped_on_request_with_a_warning(runs: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frame = profiler.load_runs(runs, on_error="skip")
    assert list(frame["run"].unique()) == ["complete", "incomplete"]
    assert {warning.category for warning in caught} == {RunWarning}
    assert all(warning.filename == __file__ for warning in caught)
    (skipped,) = [str(warning.message) for warning in caught if "left out" in str(warning.message)]
    assert skipped.startswith(f"{runs}/damaged/run.json: not valid JSON")


def test_an_unknown_policy_is_refused(runs: Path) -> None:
    with pytest.raises(ValueError, match="on_error must be"):
        read_runs(runs, on_error="ignore")  # type: ignore[arg-type]


def test_damaged_runs_are_found_and_other_folders_are_not(runs: Path) -> None:
    assert [run.name for run in find_runs(runs)] == ["complete", "damaged", "incomplete"]
    assert find_runs(runs / "complete") == [runs / "complete"]
    assert find_runs(runs / "nowhere") == []


@pytest.mark.parametrize("text", ["complete", "runs/complete", "runs/complete/", "runs/complete/run.json"])
def test_a_run_is_found_by_name_or_path(runs: Path, text: str) -> None:
    assert resolve_run(text).resolve() == runs / "complete"


def test_an_unknown_run_gets_the_nearest_name(runs: Path) -> None:
    with pytest.raises(UsageError, match=r"^complet: no such run; did you mean 'complete'\?; `aiprof runs`"):
        resolve_run("complet")
    with pytest.raises(UsageError, match=r"^runs/notes: holds no run"):
        resolve_run("runs/notes")
    with pytest.raises(UsageError, match=r"no such run"):
        resolve_run("../complete")


def test_a_path_wins_over_a_name(runs: Path) -> None:
    write_example_run(Path("complete"))
    assert resolve_run("complete") == Path("complete")


def test_importing_the_package_does_not_import_pandas() -> None:
    script = (
        "import sys, profiler; assert 'pandas' not in sys.modules; profiler.load_runs;"
        "profiler.results.find.resolve_run; assert 'pandas' not in sys.modules;"
        "profiler.load_runs([]); assert 'pandas' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_package_names_what_it_offers() -> None:
    assert set(profiler.__all__) <= set(dir(profiler))
    assert all(hasattr(profiler, name) for name in profiler.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = profiler.nothing


def test_the_first_published_format_still_loads() -> None:
    """The files of this golden run are never rewritten; see README.md beside it."""
    (run,), messages = read_runs(GOLDEN)
    assert messages == []
    assert run.complete
    frame = profiler.load_runs(GOLDEN)
    assert list(frame["status"].drop_duplicates()) == ["ok", "failed", "skipped"]
    values = frame.dropna(subset=["value"]).loc[lambda rows: ~rows["predicted"]].set_index("metric")["value"]
    assert values.to_dict() == {"decode_tokens_per_s": 50.0, "prefill_s": 0.5}
    assert frame.loc[frame["status"] == "failed", "reason"].item().startswith("out_of_memory in load: ")
    assert len(profiler.load_trials(GOLDEN)) == 5
