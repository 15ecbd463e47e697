"""Loads on a server that is started for them: the adapter unmodified, a stand-in for ``vllm serve``."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from served_truth import aiprof
from vllm_stand_in import CONFIG, Worker, alive, pids_in, use_stand_in, wait_until, write_model

from profiler.analysis.verify import verify_run
from profiler.backends.base import Device
from profiler.backends.cpu import CpuBackend
from profiler.engines.base import Serving
from profiler.engines.process import WorkerError
from profiler.engines.vllm import VllmEngine
from profiler.errors import UsageError
from profiler.load.ceiling import ClientCost
from profiler.measure import served_start
from profiler.measure.candidate import Candidate, spec_of
from profiler.measure.clock import BudgetClock
from profiler.measure.context import CaseContext, Timeouts
from profiler.measure.predicted import predict
from profiler.measure.sensing import Sensing
from profiler.measure.served_case import measure_served
from profiler.models.catalogue import resolve_model
from profiler.models.formats import formats_for
from profiler.results.read import read_run
from profiler.results.schema import LoadSpec, NoiseFloor, SamplesRef
from profiler.workload.scenario import find_scenario

CPU = Device("cpu-0123456789ab", "cpu", 0, "a CPU", None)
COST = ClientCost(1e-4, 1e-5)
NOISE = NoiseFloor(device_key=CPU.key, engine="vllm", method="read", bytes_per_s=(1e10, 1e10), tolerance=0.05)


def context_of(
    folder: Path, *, starts: int = 1, options: dict[str, Any] | None = None, **serving: Any
) -> CaseContext:
    model = resolve_model(str(write_model(folder)), False)
    scenario = find_scenario("decode-128")
    load = LoadSpec(loop="closed", concurrency=2, api="completions", prompt="token_ids", lengths="fixed")
    candidate = Candidate(
        CPU, VllmEngine(), model, formats_for("bf16"), scenario.point("full", 2), options or {}, load=load
    )
    return CaseContext(
        spec=spec_of(candidate, 0), predicted=predict(candidate, 1e10), model=model,
        formats=candidate.formats, device=CPU, backend=CpuBackend(), engine=VllmEngine(),
        python=sys.executable, options=options or {}, target_relative_half_width=0.05, starts=starts,
        soak_s=None,
        log_path=folder / "log", timeouts=Timeouts(), clock=BudgetClock(), emit=lambda event: None,
        sensing=Sensing(()), serving=Serving(requests=4, warm_up=1, **serving), scenario=scenario,
    )  # fmt: skip


def measured(context: CaseContext, kept: list[dict[str, Any]]) -> dict[str, Any]:
    """Measure a case without disk and return the fields of its record."""

    def keep(columns: dict[str, Any]) -> SamplesRef:
        kept.append(columns)
        return SamplesRef(file=f"samples/{'0' * 64}.parquet", sha256="0" * 64, rows=1)

    with context.sensing:
        return measure_served(context, 1.0, NOISE, keep).fields


@pytest.fixture(autouse=True)
def _without_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_start, "client_cost", lambda tokens: COST)


def test_each_start_is_one_server_and_its_figures_are_means_over_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = use_stand_in(tmp_path, monkeypatch, "preempts")
    monkeypatch.setattr(served_start, "WorkerProcess", Worker)
    samples: list[dict[str, Any]] = []
    fields = measured(context_of(tmp_path, starts=2), samples)
    assert fields["status"] == "ok", fields["failure"]
    served, figures = fields["served"], fields["measurements"]
    assert (served.requests, served.ok) == (8, 8)
    assert [one.index for one in served.servers] == [0, 1]
    assert sorted(set(samples[0]["start"].tolist())) == [0, 1]
    rate = figures["output_tokens_per_s"]
    assert rate.n == 2
    assert rate.ci95 is not None
    assert rate.scope == "across_starts"
    assert figures["ttft_p50_s"].scope == "pooled_starts"
    assert figures["server_ready_s"].n == 2
    assert figures["peak_process_bytes"].value > 2**20
    first = served.servers[0]
    assert "--no-enable-prefix-caching" in first.flags
    assert "--enforce-eager" in first.flags
    assert first.memory.kv_cache_tokens == 2 * 4 * 128
    assert not any("127.0.0.1" in flag or str(tmp_path) in flag for flag in first.flags)
    # Warm-up and the question before it count as well: it is about the server.
    assert first.preemptions is not None
    assert first.preemptions > 0
    codes = {flag.code for flag in fields["flags"]}
    assert "preempted" in codes
    assert "one_start" not in codes
    assert not any(map(alive, pids_in(pids)))


@pytest.mark.parametrize(
    ("how", "kind", "words", "last"),
    [
        ("dies", "server_died", "ended while it was starting: exit code 1", "no kernel image is available"),
        ("hangs", "timeout", "was not ready within 1 s", "serving "),
        ("dies-later", "server_died", "ended while it was serving: exit code 3", "out of shared memory"),
    ],
)
def test_a_server_that_fails_fails_the_case_with_its_last_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, kind: str, words: str, last: str
) -> None:
    pids = use_stand_in(tmp_path, monkeypatch, how)
    monkeypatch.setattr(served_start, "WorkerProcess", Worker)
    fields = measured(context_of(tmp_path, ready_timeout_s=1.0 if how == "hangs" else None), [])
    assert fields["status"] == "failed"
    failure = fields["failure"]
    assert failure.kind == kind
    assert words in failure.message
    if pids.exists():  # one that is given up early may not have come so far
        assert last in "\n".join(failure.log_tail)
        assert not any(map(alive, pids_in(pids)))


def test_an_interrupt_leaves_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids = use_stand_in(tmp_path, monkeypatch, "child")
    monkeypatch.setattr(served_start, "WorkerProcess", Worker)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("profiler.load.drive.Driver.drive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measured(context_of(tmp_path), [])
    assert len(pids_in(pids)) == 2
    assert not any(map(alive, pids_in(pids)))


def test_a_worker_that_refuses_fails_the_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refuses(Worker):
        def request(self, op: str, timeout_s: float, **fields: Any) -> dict[str, Any]:
            if op == "server":
                raise WorkerError("weights", "the disk is full", fatal=False)
            return super().request(op, timeout_s, **fields)

    use_stand_in(tmp_path, monkeypatch)
    monkeypatch.setattr(served_start, "WorkerProcess", Refuses)
    failure = measured(context_of(tmp_path), [])["failure"]
    assert (failure.kind, failure.message) == ("weights", "the disk is full")
    assert failure.log_tail == ("the worker's last line",)


def test_speculation_is_counted_and_other_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_stand_in(tmp_path, monkeypatch)
    monkeypatch.setattr(served_start, "WorkerProcess", Worker)
    options = {"speculative": "ngram", "speculative_tokens": 4}
    context = context_of(tmp_path, options=options)
    with pytest.raises(Exception, match="random weights"):
        Worker("", tmp_path).request("server", 1, **_plan_fields(options, {"kind": "random", "seed": 0}))
    plain = dataclasses.replace(context, options={}, model=context.model)
    assert context.spec.workload_id != spec_of(_candidate(plain), 0).workload_id
    folder = tmp_path / "real"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(b"")
    real = dataclasses.replace(context.model, folder=folder, weights="folder", weights_digest="0" * 64)
    fields = measured(dataclasses.replace(context, model=real), [])
    assert fields["status"] == "ok", fields["failure"]
    assert fields["measurements"]["speculative_acceptance"].value == pytest.approx(0.25)
    assert fields["measurements"]["speculative_tokens_per_step"].value == pytest.approx(2.0)
    assert fields["served"].servers[0].speculation.method == "ngram"


def _candidate(context: CaseContext) -> Candidate:
    assert context.scenario is not None
    return Candidate(
        CPU, context.engine, context.model, context.formats, context.scenario.point("full", 2),
        context.options, load=context.spec.load,
    )  # fmt: skip


def _plan_fields(options: dict[str, Any], weights: dict[str, Any]) -> dict[str, Any]:
    return {
        "architecture": {
            "vocab_size": 8, "latent_attention": None, "kv_heads": 1, "head_dim": 8, "layers": 1
        },
        "weights": weights, "formats": dataclasses.asdict(formats_for("bf16")), "max_batch": 1,
        "max_tokens": 8, "options": options, "device": "cpu",
    }  # fmt: skip


def test_prompts_of_two_starts_are_never_the_same() -> None:
    seeds = {served_start.start_seed(0, challenge, start) for challenge in (None, "a") for start in range(3)}
    assert len(seeds) == 6
    assert served_start.start_seed(7, None, 0) == 7


@pytest.mark.torch
def test_a_sweep_with_users_serves_and_verifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pids = use_stand_in(tmp_path, monkeypatch)
    path = tmp_path / "run"
    what = ("--engine", "vllm", "--model", str(write_model(tmp_path)), "--device", "cpu", "--no-fidelity")
    how = ("--scenario", "decode-128", "--concurrency", "2", "--budget", "90s", "--quiet")
    options = (
        "--engine-option",
        "requests=3",
        "--engine-option",
        "warm_up=0",
        "--engine-option",
        "slo=ttft_p90=60s",
    )
    assert aiprof("sweep", *what, *how, *options, "--out", str(path)) == 0
    run = read_run(path)
    assert run.complete
    (case,) = run.cases
    assert case.spec.load is not None
    assert case.spec.load.concurrency == 2
    assert case.predicted is not None
    assert case.served is not None
    assert case.served.slos == ("ttft_p90=60s",)
    assert "energy_j" in case.measurements
    assert {phase.phase for phase in case.phases} == {"idle", "trials"}
    assert verify_run(path).findings == ()
    assert (path / "report.html").exists()
    assert "2 users" in capsys.readouterr().out
    assert not any(map(alive, pids_in(pids)))


@pytest.mark.torch
def test_a_sweep_that_is_killed_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids = use_stand_in(tmp_path, monkeypatch, "child")
    command = [
        sys.executable, "-m", "profiler", "sweep", "--engine", "vllm", "--model", str(write_model(tmp_path)),
        "--device", "cpu", "--scenario", "decode-128", "--concurrency", "1", "--no-fidelity", "--quiet",
        "--budget", "300s", "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    paths = os.pathsep.join([*sys.path, os.environ["PYTHONPATH"]])
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths})
    try:
        wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_until(lambda: not any(map(alive, pids_in(pids))))
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("given", "asked", "online"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"mode": "offline"}, True, False),
        ({"mode": "online"}, False, True),
    ],
)
def test_users_make_a_sweep_online_unless_told_otherwise(
    given: dict[str, str], asked: bool, online: bool
) -> None:
    assert (VllmEngine().serving(given, asked=asked) is not None) == online


def test_options_of_loads_are_refused_for_offline_cases() -> None:
    with pytest.raises(UsageError, match="requests: is for loads on a server; give --concurrency"):
        VllmEngine().serving({"requests": "3"}, asked=False)
    with pytest.raises(UsageError, match="speculative_model=FOLDER"):
        VllmEngine().options({"speculative": "eagle3"})
    with pytest.raises(UsageError, match="say how with speculative="):
        VllmEngine().options({"speculative_tokens": "3"})
    assert VllmEngine().options({"requests": "3", "threads": "2"}) == {"threads": 2}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--engine", "torch", "--engine-option", "mode=online"), "unknown option|mode"),
        (("--soak", "60s"), "--soak is for offline cases"),
        (("--layers", "2"), "--layers is for offline cases"),
    ],
)
def test_what_does_not_go_with_a_server_is_refused(
    flags: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    what = ("--engine", "vllm", "--model", "qwen2.5-0.5b", "--device", "cpu", "--concurrency", "1", "--quiet")
    assert aiprof("sweep", *what, *flags) == 2
    error = capsys.readouterr().err
    assert any(part in error for part in message.split("|"))
