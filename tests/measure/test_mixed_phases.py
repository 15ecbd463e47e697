"""What becomes of a case whose engine mixes prefill and decode, preempts requests or makes up its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from profiler.analysis.verify import verify_run
from profiler.measure.request import SweepRequest
from profiler.measure.summary import DUMMY
from profiler.measure.sweep import Sweep
from profiler.results.load import load_trials
from profiler.results.read import Run
from profiler.results.schema import TrialRecord

PHASES = ("prefill_s", "ttft_s", "tpot_s", "prefill_tokens_per_s", "decode_tokens_per_s", "mbu", "mfu")


def sweep(path: Path, **options: str) -> Run:
    request = SweepRequest(
        engines=("fake",), scenarios=("decode-128",), batches=(1,), engine_options=options, no_fidelity=True
    )
    return Sweep(request, lambda event: None).run(path)


def test_mixed_phases_leave_the_whole_and_say_why(tmp_path: Path) -> None:
    run = sweep(tmp_path / "run", mixed="true")
    case = run.cases[0]
    assert case.status == "ok"
    for name in PHASES:
        assert case.measurements[name].value is None
        assert case.measurements[name].reason == "mixed as asked"
    assert (case.measurements["output_tokens_per_s"].value or 0) > 0
    assert all(trial.decode_s is None and trial.e2e_s > 0 for trial in case.trials)
    assert load_trials(tmp_path / "run")["prefill_s"].isna().all()
    assert verify_run(tmp_path / "run").state == "verified"


def test_preemptions_and_dummy_weights_are_flagged(tmp_path: Path) -> None:
    case = sweep(tmp_path / "run", preemptions="2", dummy_weights="true").cases[0]
    flags = {flag.code: flag.text for flag in case.flags}
    measured = sum(not trial.warm_up for trial in case.trials)
    assert flags["preempted"].startswith(f"{2 * measured} times")
    assert "dummy" in flags["dummy_weights"]
    assert case.measurements["energy_j"].reason == DUMMY
    assert (case.measurements["decode_tokens_per_s"].value or 0) > 0
    plain = sweep(tmp_path / "plain").cases[0]
    assert not {"preempted", "dummy_weights"} & {flag.code for flag in plain.flags}


def test_a_trial_has_its_phases_or_says_why_not() -> None:
    fields: dict[str, Any] = {"start": 0, "index": 0, "warm_up": False, "e2e_s": 1.0}
    assert TrialRecord(**fields, prefill_s=None, decode_s=None, mixed="why")
    wrongs: tuple[dict[str, Any], ...] = (
        {"prefill_s": None, "decode_s": None},
        {"prefill_s": 0.5, "decode_s": 0.5, "mixed": "why"},
        {"prefill_s": None, "decode_s": 0.5, "mixed": "why"},
    )
    for wrong in wrongs:
        with pytest.raises(ValidationError):
            TrialRecord(**fields, **wrong)
