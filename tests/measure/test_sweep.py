"""The sweep on the fake engine, through real worker processes: what is measured, and what may go wrong."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from profiler.errors import NothingMeasuredError, ResumeRefusedError, UsageError
from profiler.measure.context import Timeouts
from profiler.measure.events import CaseFinished, CaseStarted, Event, OutOfBudget, SweepStarted, TrialFinished
from profiler.measure.request import SweepRequest
from profiler.measure.sweep import Sweep
from profiler.results.read import Run, read_run

# A hung worker is given up after three seconds, so that the tests of hangs are quick.
SHORT = Timeouts(
    load_s=3.0,
    load_bytes_per_s=1e12,
    first_run_s=3.0,
    first_run_factor=0.1,
    later_run_s=3.0,
    later_run_factor=0.1,
)


def fake_sweep(events: list[Event] | None = None, timeouts: Timeouts | None = None, **changes: Any) -> Sweep:
    options = {key: str(value) for key, value in changes.pop("options", {}).items()}
    request = SweepRequest(**({"engines": ("fake",), "engine_options": options} | changes))
    return Sweep(request, (events if events is not None else []).append, timeouts=timeouts)


def one_case(**options: Any) -> dict[str, Any]:
    return {"scenarios": ("decode-128",), "batches": (1,), "options": options}


def codes(run: Run, case: int = 0) -> set[str]:
    return {flag.code for flag in run.cases[case].flags}


def test_a_sweep_measures_what_the_engine_was_programmed_to_do(tmp_path: Path) -> None:
    run = fake_sweep(**one_case(read_bandwidth=50e9, overhead_s=0.002, noise_cv=0.005)).run(tmp_path / "run")
    (case,) = run.cases
    assert run.complete
    assert run.warnings == ()
    # A step reads all weights and half of the cache on average, and has 2 ms of overhead.
    weights, cache = case.measurements["weights_bytes"].value, case.measurements["kv_cache_bytes"].value
    assert weights is not None
    assert cache is not None
    spec = case.spec
    average = (spec.prompt_tokens + spec.output_tokens / 2) / (spec.prompt_tokens + spec.output_tokens)
    step_s = 0.002 + (weights + cache * average) / 50e9
    decode = case.measurements["decode_tokens_per_s"]
    assert decode.value == pytest.approx(1 / step_s, rel=0.01)
    assert decode.ci95 is not None
    assert decode.ci95[0] < 1 / step_s < decode.ci95[1]
    assert decode.scope == "within_process"
    tpot = case.measurements["tpot_s"]
    assert tpot.value is not None
    assert tpot.value == pytest.approx(step_s, rel=0.01)
    assert case.simulated
    assert {"simulated", "one_start"} <= codes(run)


def test_rates_follow_from_the_recorded_trials(tmp_path: Path) -> None:
    run = fake_sweep(scenarios=("chat",), batches=(8,)).run(tmp_path / "run")
    (case,) = run.cases
    measured = [trial for trial in case.trials if not trial.warm_up]
    spec, found = case.spec, case.measurements
    assert len(measured) >= 5
    prefill = fmean(trial.prefill_s for trial in measured if trial.prefill_s is not None)
    decode = fmean(trial.decode_s for trial in measured if trial.decode_s is not None)
    whole = fmean(trial.e2e_s for trial in measured)
    assert found["ttft_s"].value == pytest.approx(prefill)
    assert found["prefill_tokens_per_s"].value == pytest.approx(8 * spec.prompt_tokens / prefill)
    assert found["decode_tokens_per_s"].value == pytest.approx(8 * (spec.output_tokens - 1) / decode)
    assert found["output_tokens_per_s"].value == pytest.approx(8 * spec.output_tokens / whole)


def test_one_output_token_has_no_decode_phase(tmp_path: Path) -> None:
    run = fake_sweep(scenarios=("prefill-512",), batches=(1,)).run(tmp_path / "run")
    for name in ("decode_tokens_per_s", "tpot_s"):
        measurement = run.cases[0].measurements[name]
        assert measurement.value is None
        assert measurement.reason == "the scenario generates one token: there is no decode phase"


def test_the_whole_quick_preset_and_its_events(tmp_path: Path) -> None:
    events: list[Event] = []
    run = fake_sweep(events).run(tmp_path / "run")
    assert len(run.cases) == len(run.record.cases) == 6
    assert sum(isinstance(event, SweepStarted) for event in events) == 1
    assert sum(isinstance(event, CaseStarted) for event in events) == 6
    assert [event.record for event in events if isinstance(event, CaseFinished)] == list(run.cases)
    trials = sum(isinstance(event, TrialFinished) for event in events)
    assert trials == sum(len(case.trials) for case in run.cases)
    assert run.record.command[:2] == ("--preset", "quick")


def test_raw_stamps_are_kept_and_agree_with_the_trials(tmp_path: Path) -> None:
    from pyarrow import parquet

    run = fake_sweep(**one_case()).run(tmp_path / "run")
    (case,) = run.cases
    assert case.samples is not None
    rows = parquet.read_table(run.path / case.samples.file).to_pylist()
    assert len(rows) == case.samples.rows == len(case.trials) * case.spec.output_tokens
    last = {(row["start"], row["trial"]): row["since_submit_ns"] for row in rows}
    for trial in case.trials:
        assert last[trial.start, trial.index] / 1e9 == pytest.approx(trial.e2e_s)


def test_prompts_are_never_repeated_within_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from profiler.engines.process import WorkerProcess

    batches: list[list[tuple[int, ...]]] = []
    ask = WorkerProcess.request

    def listening(self: WorkerProcess, op: str, timeout_s: float, **fields: Any) -> dict[str, Any]:
        if op == "run":  # a check of fidelity scores what it runs, too
            batches.append([tuple(prompt) for prompt in fields["prompt_ids"]])
        return ask(self, op, timeout_s, **fields)

    monkeypatch.setattr(WorkerProcess, "request", listening)
    fake_sweep(scenarios=("decode-128",), batches=(1, 8), starts=2).run(tmp_path / "run")
    # Once in a case, after its first start's trials, the last ones are asked again on purpose.
    repeated = [batch for before, batch in pairwise(batches) if batch == before]
    assert len(repeated) == 2
    seen = [prompt for batch in batches for prompt in batch]
    assert len(seen) > 20
    assert len(set(seen)) == len(seen) - sum(map(len, repeated))


FAULTS = [
    ("crash", "run", "worker_died"),
    ("crash", "load", "worker_died"),
    ("kill", "run", "worker_died"),
    ("oom", "load", "out_of_memory"),
    ("oom", "run", "out_of_memory"),
    ("error", "memory", "internal"),
    ("error", "probe", "internal"),
    ("hang", "run", "timeout"),
    ("hang", "load", "timeout"),
    ("sigstop", "run", "timeout"),
]


@pytest.mark.parametrize(("fault", "at", "kind"), FAULTS)
def test_a_fault_costs_its_own_case_only(tmp_path: Path, fault: str, at: str, kind: str) -> None:
    # The first probe comes before loading, when the worker does not know its batch yet.
    options = {"fault": fault, "fault_at": at, "fault_batch": 8, "fault_on": 2 if at == "probe" else 1}
    request: dict[str, Any] = {"scenarios": ("decode-128",), "batches": (1, 8, 2), "options": options}
    run = fake_sweep(timeouts=SHORT if kind == "timeout" else None, **request).run(tmp_path / "run")
    assert [case.status for case in run.cases] == ["ok", "failed", "ok"]
    failure = run.cases[1].failure
    assert failure is not None
    assert failure.kind == kind
    assert "\n" not in failure.message
    assert run.complete


def test_a_failure_carries_the_last_words_of_the_worker(tmp_path: Path) -> None:
    run = fake_sweep(**one_case(fault="crash", fault_batch=1)).run(tmp_path / "run")
    failure = run.cases[0].failure
    assert failure is not None
    assert failure.log_tail == ("fake engine: crashing as asked",)
    assert failure.stage == "warm-up"


def test_garbage_on_stdout_changes_nothing(tmp_path: Path) -> None:
    run = fake_sweep(**one_case(fault="garbage", fault_on=3)).run(tmp_path / "run")
    assert run.cases[0].status == "ok"


def test_an_engine_that_cannot_start_leaves_nothing_to_measure(tmp_path: Path) -> None:
    with pytest.raises(NothingMeasuredError, match="engine fake on fake-0: the worker was lost during hello"):
        fake_sweep(**one_case(fault="crash", fault_at="hello")).run(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_model_too_large_for_the_engines_memory_fails_with_the_numbers(tmp_path: Path) -> None:
    run = fake_sweep(**one_case(memory_bytes=5e8)).run(tmp_path / "run")
    failure = run.cases[0].failure
    assert failure is not None
    assert failure.kind == "out_of_memory"
    assert "more than the device has" in failure.message


def test_interference_is_flagged_with_one_start(tmp_path: Path) -> None:
    run = fake_sweep(**one_case(disturb_start=0)).run(tmp_path / "run")
    assert "interference" in codes(run)


def test_a_disturbed_start_is_repeated_in_standard(tmp_path: Path) -> None:
    request = {"preset": "standard", "models": ("qwen2.5-0.5b",), **one_case(disturb_start=1)}
    run = fake_sweep(**request).run(tmp_path / "run")
    (case,) = run.cases
    assert [start.used for start in case.starts] == [True, False, True, True]
    assert "interference" not in codes(run)
    assert "one_start" not in codes(run)
    decode = case.measurements["decode_tokens_per_s"]
    assert (decode.n, decode.scope) == (3, "across_starts")


def test_a_box_that_is_always_disturbed_still_gets_all_its_starts(tmp_path: Path) -> None:
    """Repeats must not eat the time of later starts; what could not be repeated says so."""
    request = {
        "preset": "standard",
        "models": ("qwen2.5-0.5b",),
        **one_case(probe_cv=0.5, read_bandwidth=20e9),
    }
    run = fake_sweep(**request).run(tmp_path / "run")
    (case,) = run.cases
    assert case.status == "ok"
    assert sum(start.used for start in case.starts) == 3
    disturbed = [flag.text for flag in case.flags if flag.code == "interference"]
    assert disturbed
    assert case.elapsed_s < 2 * run.record.cases[0].seconds


def test_several_starts_widen_the_interval_to_their_spread(tmp_path: Path) -> None:
    request = {"starts": 5, "budget_s": 2000.0, **one_case(start_cv=0.05, noise_cv=0.001)}
    run = fake_sweep(**request).run(tmp_path / "run")
    decode = run.cases[0].measurements["decode_tokens_per_s"]
    assert decode.value is not None
    assert decode.ci95 is not None
    assert (decode.ci95[1] - decode.ci95[0]) / decode.value > 0.02


def test_warm_up_stays_out_of_the_result(tmp_path: Path) -> None:
    quiet = {"noise_cv": 0.002}
    cold = fake_sweep(**one_case(warm_up=1.0, warm_up_trials=1.5, **quiet)).run(tmp_path / "cold")
    warm = fake_sweep(**one_case(**quiet)).run(tmp_path / "warm")
    rates = [run.cases[0].measurements["decode_tokens_per_s"].value for run in (cold, warm)]
    assert None not in rates
    assert rates[0] == pytest.approx(rates[1], rel=0.02)
    assert cold.cases[0].trials[0].e2e_s > 1.5 * cold.cases[0].trials[-1].e2e_s


def test_a_box_that_keeps_slowing_down_is_flagged(tmp_path: Path) -> None:
    run = fake_sweep(**one_case(drift=0.03, noise_cv=0.001)).run(tmp_path / "run")
    assert codes(run) & {"not_steady", "drift"}


def test_too_little_time_gives_few_trials_and_says_so(tmp_path: Path) -> None:
    run = fake_sweep(budget_s=48.0, **one_case(read_bandwidth=5e9, overhead_s=0.3)).run(tmp_path / "run")
    assert {"few_trials", "not_steady"} <= codes(run)
    assert len([trial for trial in run.cases[0].trials if not trial.warm_up]) >= 2


def test_when_the_budget_is_gone_the_rest_waits_for_resume(tmp_path: Path) -> None:
    events: list[Event] = []
    # Each load takes a hundred seconds more than the plan could know.
    sweep = fake_sweep(events, budget_s=150.0, options={"load_s": 100.0})
    run = sweep.run(tmp_path / "run")
    assert any(isinstance(event, OutOfBudget) for event in events)
    assert 0 < len(run.cases) < len(run.record.cases)
    assert not run.complete


class TestResume:
    def interrupted(self, path: Path, after: int = 2, **changes: Any) -> Run:
        """A run that was interrupted while its third case was under way."""

        def stop(event: Event) -> None:
            if isinstance(event, CaseStarted) and event.number == after + 1:
                raise KeyboardInterrupt

        options = {"engines": ("fake",), **changes}
        with pytest.raises(KeyboardInterrupt):
            Sweep(SweepRequest(**options), stop).run(path)
        return read_run(path)

    def resume(self, path: Path) -> Run:
        run = read_run(path)
        request = SweepRequest.from_arguments(run.record.command)
        return Sweep(request, lambda event: None).resume(path, run)

    def test_it_finishes_the_rest_and_repeats_nothing(self, tmp_path: Path) -> None:
        before = self.interrupted(tmp_path / "run")
        assert len(before.cases) == 2
        assert not before.complete
        after = self.resume(tmp_path / "run")
        assert after.complete
        assert after.cases[:2] == before.cases
        ids = [case.spec.case_id for case in after.cases]
        assert ids == [case.spec.case_id for case in after.record.cases]
        assert after.warnings == ()

    def test_a_failed_case_is_finished_too(self, tmp_path: Path) -> None:
        before = self.interrupted(tmp_path / "run", engine_options={"fault": "oom", "fault_batch": "1"})
        assert before.cases[0].status == "failed"
        after = self.resume(tmp_path / "run")
        assert after.cases[0] == before.cases[0]

    def test_a_torn_last_line_is_measured_again(self, tmp_path: Path) -> None:
        self.interrupted(tmp_path / "run")
        cases = tmp_path / "run" / "cases.jsonl"
        cases.write_bytes(cases.read_bytes()[:-200])
        after = self.resume(tmp_path / "run")
        assert after.complete
        assert len(after.cases) == 6
        assert after.warnings == ()

    def test_another_version_of_aiprof_is_refused_with_the_difference(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.interrupted(tmp_path / "run")
        monkeypatch.setattr("profiler.measure.changes.__version__", "99.0")
        with pytest.raises(ResumeRefusedError, match=r"aiprof: was \S+, is 99\.0"):
            self.resume(tmp_path / "run")

    def test_another_engine_version_is_refused(self, tmp_path: Path) -> None:
        run = self.interrupted(tmp_path / "run")
        older = [engine.model_copy(update={"version": "0.9"}) for engine in run.record.engines]
        record = run.record.model_copy(update={"engines": tuple(older)})
        request = SweepRequest.from_arguments(record.command)
        with pytest.raises(ResumeRefusedError, match=r"engine fake, version: was 0\.9, is 1"):
            Sweep(request, lambda event: None).resume(run.path, dataclasses.replace(run, record=record))

    def test_another_work_is_refused(self, tmp_path: Path) -> None:
        run = self.interrupted(tmp_path / "run")
        request = dataclasses.replace(SweepRequest.from_arguments(run.record.command), seed=7)
        with pytest.raises(ResumeRefusedError, match="6 of 6 would no longer be the same work"):
            Sweep(request, lambda event: None).resume(run.path, run)


def test_a_run_is_never_written_over(tmp_path: Path) -> None:
    fake_sweep(**one_case()).run(tmp_path / "run")
    before = (tmp_path / "run" / "cases.jsonl").read_bytes()
    with pytest.raises(UsageError, match="already holds"):
        fake_sweep(**one_case()).run(tmp_path / "run")
    assert (tmp_path / "run" / "cases.jsonl").read_bytes() == before


def test_every_fault_of_a_request_is_said_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        fake_sweep(models=("qwen3-9b",), scenarios=("chatt",), precisions=("b16",), devices=("tpu",))
    text = str(caught.value)
    assert all(word in text for word in ("'qwen3-8b'", "'chat'", "'bf16'", "tpu"))
