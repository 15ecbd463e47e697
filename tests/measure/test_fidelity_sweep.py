"""The fidelity check within a sweep: what it records and flags, and what compare and gate make of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from profiler.cli import compare as compare_command
from profiler.cli import gate as gate_command
from profiler.cli import sweep as sweep_command
from profiler.measure import fidelity as fidelity_module
from profiler.measure.events import Event, FidelityChecked
from profiler.measure.fidelity_artefact import artefact_of
from profiler.measure.fidelity_reference import Reference, ReferenceCache, answers_of, require_all
from profiler.measure.request import SweepRequest
from profiler.measure.sweep import Sweep
from profiler.models.catalogue import resolve_model
from profiler.results.read import Run, read_run
from profiler.results.schema import CaseRecord


def sweep(
    path: Path, events: list[Event] | None = None, options: dict[str, str] | None = None, **changes: Any
) -> Run:
    fields: dict[str, Any] = {"engines": ("fake",), "scenarios": ("decode-128",), "batches": (1,)}
    request = SweepRequest(**(fields | {"engine_options": options or {}} | changes))
    return Sweep(request, (events if events is not None else []).append).run(path)


def flags_of(case: CaseRecord) -> set[str]:
    return {flag.code for flag in case.flags if flag.code.startswith("fidelity")}


def command(*arguments: object) -> Result:
    """Run a command in this process; its return value is the exit code, as in ``profiler.cli``."""
    name, *rest = (str(argument) for argument in arguments)
    commands = {"sweep": sweep_command, "compare": compare_command, "gate": gate_command}
    done = CliRunner().invoke(commands[name].command, rest, standalone_mode=False, catch_exceptions=False)
    done.exit_code = done.return_value or 0
    return done


def test_each_engine_model_and_precision_is_checked_once_before_its_first_case(tmp_path: Path) -> None:
    events: list[Event] = []
    run = sweep(tmp_path / "run", events, batches=(1, 8), precisions=("bf16", "w8a8-int8"))
    checks = [event for event in events if isinstance(event, FidelityChecked)]
    assert [check.spec.formats.weight_format for check in checks] == ["bf16", "w8a8-int8"]
    assert len(run.cases) == 4
    for case in run.cases:
        assert case.fidelity is not None
        assert case.fidelity.verdict == "faithful"
        assert case.fidelity.artefact is not None
        assert "2 of 24 layers" in case.fidelity.artefact.text
        assert case.fidelity.artefact.changed == {"layers": 2}
        assert flags_of(case) == set()
    assert run.cases[0].fidelity != run.cases[2].fidelity


@pytest.mark.parametrize(
    ("mode", "verdict", "flag"),
    [("wrong", "wrong", "fidelity_wrong"), ("q4_0", "degraded", "fidelity_degraded")],
)
def test_an_engine_that_computes_something_else_is_flagged(
    tmp_path: Path, mode: str, verdict: str, flag: str
) -> None:
    (case,) = sweep(tmp_path / "run", options={"fidelity": mode}).cases
    assert case.fidelity is not None
    assert case.fidelity.verdict == verdict
    assert (case.fidelity.explained_by is not None) == (verdict == "degraded")
    assert flags_of(case) == {flag}


@pytest.mark.parametrize("fault", ["crash", "oom", "garbage"])
def test_a_check_that_breaks_loses_no_case_and_says_why(tmp_path: Path, fault: str) -> None:
    (case,) = sweep(tmp_path / "run", options={"fault": fault, "fault_at": "score"}).cases
    assert case.status == "ok"
    assert case.fidelity is not None
    if fault == "garbage":  # what an engine prints cannot reach the protocol
        assert case.fidelity.verdict == "faithful"
        return
    assert case.fidelity.verdict == "not_checked"
    assert ("lost during score" if fault == "crash" else "out of memory as asked") in str(
        case.fidelity.reason
    )
    assert flags_of(case) == {"fidelity_not_checked"}


def test_an_engine_without_logits_is_judged_by_its_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such an engine answers ``score`` with an error of kind ``unsupported``."""
    from profiler.engines.process import WorkerError, WorkerProcess

    request = WorkerProcess.request

    def without_scores(self: WorkerProcess, op: str, timeout_s: float, **fields: Any) -> dict[str, Any]:
        if op == "score" and fields["score_ids"] is not None:
            raise WorkerError("unsupported", "no log-probabilities", fatal=False)
        return request(self, op, timeout_s, **fields)

    monkeypatch.setattr(WorkerProcess, "request", without_scores)
    for mode, verdict in (("faithful", "faithful"), ("wrong", "wrong")):
        (case,) = sweep(tmp_path / mode, options={"fidelity": mode}).cases
        assert case.fidelity is not None
        assert case.fidelity.verdict == verdict
        assert case.fidelity.method == fidelity_module.GREEDY_ONLY
        assert case.fidelity.figures is not None
        assert case.fidelity.figures.mean_kl is None
        assert case.fidelity.figures.greedy_tokens > 0


def test_it_can_be_left_out_and_the_record_says_so(tmp_path: Path) -> None:
    path = tmp_path / "run"
    done = command("sweep", "--engine", "fake", "--scenario", "decode-128", "--no-fidelity", "--out", path)
    assert done.exit_code == 0, done.output
    run = read_run(path)
    assert run.record.command[-1] == "--no-fidelity"
    assert SweepRequest.from_arguments(run.record.command).no_fidelity
    for case in run.cases:
        assert case.fidelity is not None
        assert case.fidelity.verdict == "not_checked"
        assert "--no-fidelity" in str(case.fidelity.reason)
        assert "fidelity_not_checked" in flags_of(case)
    resumed = command("sweep", "--resume", path)
    assert resumed.exit_code == 0


def test_a_resumed_sweep_checks_again_before_it_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run"
    sweep(path, batches=(1, 8))
    lines = (path / "cases.jsonl").read_text().splitlines(keepends=True)
    (path / "cases.jsonl").write_text(lines[0])
    (path / "checksums.json").unlink()
    done = command("sweep", "--resume", path)
    assert done.exit_code == 0, done.output
    verdicts = [case.fidelity.verdict for case in read_run(path).cases if case.fidelity]
    assert verdicts == ["faithful", "faithful"]


def test_terminal_and_page_show_the_verdict(tmp_path: Path) -> None:
    path = tmp_path / "run"
    arguments = ("sweep", "--engine", "fake", "--scenario", "decode-128", "--concurrency", 1, "--out", path)
    done = command(*arguments, "--engine-option", "fidelity=wrong")
    assert "· wrong" in done.stdout
    assert "fidelity_wrong" in done.stdout
    assert "no number format would explain that" in done.stderr
    page = (path / "report.html").read_text()
    assert "Fidelity" in page
    assert "2 of 24 layers" in page


def test_same_fidelity_pairs_fp8_on_one_box_with_int8_on_another(tmp_path: Path) -> None:
    """The Ascend-like box is faster in 4 bits, but there it is not faithful."""
    sweep(tmp_path / "h100", devices=("fake-h100",), precisions=("bf16", "fp8-block128"), starts=3)
    sweep(tmp_path / "ascend", devices=("fake-ascend",), precisions=("bf16", "w8a8-int8"), starts=3)
    runs = (tmp_path / "h100", tmp_path / "ascend")
    plain = command("compare", *runs, "--json")
    assert {case["baseline"]["weight_format"] for case in json.loads(plain.stdout)["pairs"][0]["cases"]} == {
        "bf16"
    }
    done = command("compare", *runs, "--match", "same-fidelity", "--json")
    (case,) = json.loads(done.stdout)["pairs"][0]["cases"]
    formats = case["baseline"]["weight_format"], case["candidate"]["weight_format"]
    assert formats == ("fp8-block128", "w8a8-int8")
    shown = command("compare", *runs, "--match", "same-fidelity")
    assert "formats of the two sides may differ" in " ".join(shown.stdout.split())


def test_an_unfaithful_format_is_never_paired(tmp_path: Path) -> None:
    sweep(tmp_path / "a", devices=("fake-h100",), options={"fidelity": "wrong"})
    sweep(tmp_path / "b", devices=("fake-ascend",))
    done = command("compare", tmp_path / "a", tmp_path / "b", "--match", "same-fidelity", "--json")
    (pair,) = json.loads(done.stdout)["pairs"]
    assert pair["cases"] == []
    assert {case["kind"] for case in pair["unmatched"]} == {"no_fidelity"}
    assert any("bf16: wrong" in case["reason"] for case in pair["unmatched"])


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        ((), 0, "pass"),
        (("--engine-option", "fidelity=wrong"), 1, "fail"),
        (("--no-fidelity",), 3, "undecided"),
    ],
)
def test_the_gate_wants_a_faithful_engine(
    tmp_path: Path, options: tuple[str, ...], code: int, word: str
) -> None:
    path, policy = tmp_path / "run", tmp_path / "policy.yaml"
    command(
        "sweep", "--engine", "fake", "--scenario", "decode-128", "--concurrency", 1, "--out", path, *options
    )
    policy.write_text(
        "policy: 1\nname: faithful\nallow: [simulated, one_start]\nevidence: {min_starts: 1}\n"
        "case: {variant: quick}\nrequirements:\n  - {metric: fidelity, verdict: faithful}\n"
    )
    done = command("gate", policy, path, "--json")
    assert done.exit_code == code, done.output
    assert word in done.stdout


def test_a_reference_is_remembered_and_a_damaged_memory_is_no_memory(tmp_path: Path) -> None:
    cache = ReferenceCache(tmp_path / "cache")
    artefact = artefact_of(resolve_model("qwen2.5-0.5b"), 0)
    row = {"tokens": [[3]], "ids": [[[3, 4]]], "logits": [[[2.0, 1.0]]], "log_sum_exp": [[2.5]]}
    reference = Reference(scored=answers_of(row), greedy=answers_of(row))
    assert cache.read(artefact.identity) is None
    cache.write(artefact.identity, reference)
    assert cache.read(artefact.identity) == reference
    (file,) = (tmp_path / "cache").iterdir()
    file.write_text(file.read_text()[:-5])
    assert cache.read(artefact.identity) is None
    (tmp_path / "file").write_text("")
    ReferenceCache(tmp_path / "file").write(artefact.identity, reference)


@pytest.mark.parametrize(
    "change",
    [
        lambda kept: kept["greedy"].clear(),
        lambda kept: (kept["greedy"].clear(), kept["scored"].clear()),
        lambda kept: kept["scored"][0]["logprobs"].clear(),
        lambda kept: kept["scored"][0]["log_sum_exp"].clear(),
        lambda kept: kept["greedy"][0]["logprobs"][0].pop("3"),
        lambda kept: kept["greedy"][0]["logprobs"][0].update({"3": -1e300}),
    ],
)
def test_a_remembered_reference_that_cannot_be_compared_with_is_none(
    tmp_path: Path, change: Callable[[Any], object]
) -> None:
    row = {"tokens": [[3]], "ids": [[[3, 4]]], "logits": [[[2.0, 1.0]]], "log_sum_exp": [[2.5]]}
    cache = ReferenceCache(tmp_path)
    cache.write("it", Reference(scored=answers_of(row), greedy=answers_of(row)))
    kept = json.loads((tmp_path / "it.json").read_text())
    assert cache.read("it") is not None
    change(kept)
    (tmp_path / "it.json").write_text(json.dumps(kept))
    assert cache.read("it") is None


@pytest.mark.parametrize(
    "scores",
    [
        {"tokens": [[3]], "logits": [[[2.0]]], "log_sum_exp": [[2.5]]},
        {"tokens": [[3]], "ids": [[3]], "logits": [[[2.0]]], "log_sum_exp": [[2.5]]},
        {"tokens": [[3]], "ids": [[[3]]], "logits": [[[1e308]]], "log_sum_exp": [[-1e308]]},
        {"tokens": [[3]], "ids": [[[3]]], "logits": [[[2.0]]], "log_sum_exp": [[]]},
        {"tokens": [None]},
    ],
)
def test_scores_that_make_no_sense_are_refused_in_words(scores: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"scores|argument"):
        answers_of(scores)


def test_an_engine_cannot_leave_out_what_it_would_be_judged_by() -> None:
    row = {"tokens": [[3]], "ids": [[[3, 4]]], "logits": [[[2.0, 1.0]]], "log_sum_exp": [[2.5]]}
    less = {"tokens": [[3]], "ids": [[[3]]], "logits": [[[2.0]]], "log_sum_exp": [[2.5]]}
    reference = Reference(scored=answers_of(row), greedy=answers_of(row))
    assert require_all(answers_of(row), reference) == answers_of(row)
    for short in ((), answers_of(less)):
        with pytest.raises(ValueError, match="other tokens"):
            require_all(short, reference)


def test_the_artefact_of_a_huge_model_says_what_is_smaller() -> None:
    huge = artefact_of(resolve_model("deepseek-r1"), 0)
    assert huge.architecture.experts is not None
    assert huge.architecture.experts.dense_layers == 1
    assert huge.architecture.hidden_size == 7168
    assert "2 of 61 layers, 16384 of 129280 tokens, 16 of 256 experts" in huge.record.text
    assert set(huge.record.changed) == {"layers", "vocab_size", "experts"}
    assert huge.identity != artefact_of(resolve_model("deepseek-r1"), 1).identity
