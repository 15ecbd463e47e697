"""The worker process: answers, errors, deaths, hangs, garbage; and that nothing outlives anything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from profiler.engines.process import WORKER_MAIN, WorkerError, WorkerProcess

ARCHITECTURE = {
    "family": "qwen2",
    "vocab_size": 1000,
    "hidden_size": 64,
    "layers": 2,
    "heads": 4,
    "kv_heads": 2,
    "head_dim": 16,
    "intermediate_size": 128,
    "tied_embeddings": True,
    "experts": None,
}
LOAD: dict[str, Any] = {
    "architecture": ARCHITECTURE,
    "weights": {"kind": "random", "seed": 0},
    "formats": {"weight_format": "bf16", "compute_dtype": "bf16", "kv_dtype": "bf16"},
    "device": "fake-0",
    "max_batch": 2,
    "max_tokens": 64,
}


def start(tmp_path: Path, python: str = sys.executable) -> WorkerProcess:
    return WorkerProcess(python, tmp_path / "worker.log")


def loaded(worker: WorkerProcess, **options: Any) -> dict[str, Any]:
    worker.request("hello", 120, engine="fake", options=options)
    return worker.request("load", 20, options=options, **LOAD)


def run(worker: WorkerProcess, timeout_s: float = 120.0) -> dict[str, Any]:
    return worker.request("run", timeout_s, prompt_ids=[[1] * 32] * 2, output_tokens=8, return_ids=False)


def test_a_whole_conversation(tmp_path: Path) -> None:
    with start(tmp_path) as worker:
        hello = worker.request("hello", 120, engine="fake")
        assert hello["protocol"] == 1
        assert hello["pid"] == worker.pid
        answer = worker.request("load", 20, options={}, **LOAD)
        assert answer["weights_bytes"] > 0
        stamps = run(worker)
        assert len(stamps["step_ns"]) == 8
        assert stamps["submit_ns"] < stamps["first_token_ns"] < stamps["last_token_ns"]
        probe = worker.request("probe", 20, kind="read_bandwidth", device="fake-0", bytes=1, repeats=3)
        assert len(probe["bytes_per_s"]) == 3
        assert worker.request("memory", 20)["engine_peak_bytes"] > 0
        assert worker.request("unload", 20) == {}
    assert not psutil.pid_exists(worker.pid)


@pytest.mark.parametrize(
    ("fault", "kind", "fatal"),
    [
        ("crash", "worker_died", True),
        ("kill", "worker_died", True),
        ("oom", "out_of_memory", False),
        ("error", "internal", False),
    ],
)
def test_faults_are_told_apart(tmp_path: Path, fault: str, kind: str, fatal: bool) -> None:
    with start(tmp_path) as worker:
        loaded(worker, fault=fault)
        with pytest.raises(WorkerError) as caught:
            run(worker)
    assert (caught.value.kind, caught.value.fatal) == (kind, fatal)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("fault", ["hang", "sigstop"])
def test_a_silent_worker_is_killed_in_time(tmp_path: Path, fault: str) -> None:
    with start(tmp_path) as worker:
        loaded(worker, fault=fault)
        with pytest.raises(WorkerError, match=r"within 1 s") as caught:
            run(worker, timeout_s=1.0)
        assert caught.value.kind == "timeout"
        assert not psutil.pid_exists(worker.pid)


def test_a_request_larger_than_the_pipe_does_not_block_on_a_stopped_worker(tmp_path: Path) -> None:
    with start(tmp_path) as worker:
        loaded(worker)
        os.kill(worker.pid, signal.SIGSTOP)
        with pytest.raises(WorkerError) as caught:
            worker.request("run", 1.0, prompt_ids=[[7] * 500_000], output_tokens=1, return_ids=False)
    assert caught.value.kind == "timeout"


def test_what_an_engine_prints_never_reaches_the_protocol(tmp_path: Path) -> None:
    with start(tmp_path) as worker:
        loaded(worker, fault="garbage")
        assert len(run(worker)["step_ns"]) == 8
        assert any("not json" in line for line in worker.log_tail())


def test_unknown_things_are_refused_and_the_worker_goes_on(tmp_path: Path) -> None:
    with start(tmp_path) as worker:
        with pytest.raises(WorkerError, match="before hello"):
            worker.request("run", 20)
        with pytest.raises(WorkerError, match="unknown engine 'nope'"):
            worker.request("hello", 120, engine="nope")
        worker.request("hello", 120, engine="fake")
        with pytest.raises(WorkerError, match="unknown op 'dance'"):
            worker.request("dance", 20)
        assert worker.request("load", 20, options={}, **LOAD)["weights_bytes"] > 0


def test_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="cannot be started: No such file"):
        start(tmp_path, python="/nowhere/python")


@pytest.mark.parametrize("said", ["hello", "[" * 100_000, '{"id": 1, "ok": true, "result": {"a": NaN}}'])
def test_a_program_that_is_no_worker(tmp_path: Path, said: str) -> None:
    talker, lines = tmp_path / "talker", tmp_path / "lines"
    lines.write_text(said + "\n")
    talker.write_text(f"#!/bin/sh\ncat {lines}\nsleep 60\n")
    talker.chmod(0o755)
    with (
        start(tmp_path, python=str(talker)) as worker,
        pytest.raises(WorkerError, match="not JSON") as caught,
    ):
        worker.request("hello", 120, engine="fake")
    assert caught.value.kind == "protocol"


def test_an_error_in_any_shape_is_an_error_that_fits_a_record(tmp_path: Path) -> None:
    talker, lines = tmp_path / "talker", tmp_path / "lines"
    talker.write_text(f"#!/bin/sh\ncat {lines}\nsleep 60\n")
    talker.chmod(0o755)
    for error in ("no", 3, {"kind": "k" * 9999, "message": "\x1b[2J" + "m" * 9999}):
        lines.write_text(json.dumps({"id": 1, "ok": False, "error": error}) + "\n")
        with start(tmp_path, python=str(talker)) as worker, pytest.raises(WorkerError) as caught:
            worker.request("hello", 120, engine="fake")
        assert len(caught.value.kind) <= 60
        assert len(caught.value.message) <= 2000
        assert caught.value.message.isprintable()


def test_children_of_the_worker_are_ended_with_it(tmp_path: Path) -> None:
    spawner = tmp_path / "spawner"
    spawner.write_text(f"#!/bin/sh\nsleep 300 &\necho $! > {tmp_path}/child\nsleep 300\n")
    spawner.chmod(0o755)
    with start(tmp_path, python=str(spawner)) as worker, pytest.raises(WorkerError):
        worker.request("hello", 1.0, engine="fake")
    child = int((tmp_path / "child").read_text())
    wait_until_gone(child)


def test_the_worker_dies_with_its_conductor(tmp_path: Path) -> None:
    """Even when the conductor is killed, with a request under way."""
    code = textwrap.dedent(
        f"""
        import sys
        from pathlib import Path
        from profiler.engines.process import WorkerProcess
        worker = WorkerProcess(sys.executable, Path({str(tmp_path / "log")!r}))
        worker.request("hello", 120, engine="fake")
        print(worker.pid, flush=True)
        options = {{"fault": "hang", "fault_at": "memory"}}
        worker.request("load", 20, options=options, **{LOAD!r})
        worker.request("memory", 600)
        """
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as conductor:
        assert conductor.stdout is not None
        pid = int(conductor.stdout.readline())
        time.sleep(0.3)
        conductor.kill()
    wait_until_gone(pid)


def test_the_worker_is_first_in_line_for_the_oom_killer(tmp_path: Path) -> None:
    with start(tmp_path) as worker:
        worker.request("hello", 120, engine="fake")
        adjusted = Path(f"/proc/{worker.pid}/oom_score_adj").read_text().strip()
        assert adjusted == "1000"
        assert os.getpgid(worker.pid) == worker.pid


def test_it_runs_under_an_interpreter_without_our_dependencies(tmp_path: Path) -> None:
    """As it will under a vendor's: a bare environment in which aiprof cannot even be imported."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    python = tmp_path / "bare" / "bin" / "python"
    missing = (
        "import importlib.util as u; print([n for n in ('profiler', 'pydantic', 'numpy') if u.find_spec(n)])"
    )
    found = subprocess.run([python, "-c", missing], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert found.stdout.strip() == "[]"
    with start(tmp_path, python=str(python)) as worker:
        loaded(worker)
        assert len(run(worker)["step_ns"]) == 8
        with pytest.raises(WorkerError, match="engine torch cannot be imported"):
            worker.request("hello", 120, engine="torch")


def test_worker_files_are_python_3_9() -> None:
    import ast

    for path in WORKER_MAIN.parent.glob("*.py"):
        ast.parse(path.read_text(), filename=str(path), feature_version=(3, 9))


def wait_until_gone(pid: int) -> None:
    for _ in range(200):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} is still there")
