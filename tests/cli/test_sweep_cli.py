"""``aiprof sweep`` as a person or a CI job meets it: streams, exit codes, signals, full disks."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from profiler.results.read import read_run

FAKE = ("sweep", "--engine", "fake")
# The first trial of every start really takes a moment: time to interfere.
SLOW = ("--engine-option", "fault=slow")


def aiprof(*arguments: str | Path, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "profiler", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300, **options)


def test_results_on_stdout_progress_on_stderr(tmp_path: Path) -> None:
    done = aiprof(*FAKE, cwd=tmp_path)
    assert done.returncode == 0
    assert "6 of 6 cases measured" in done.stdout
    assert "SIMULATED" in done.stdout
    assert "6/6 chat (quick)" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    assert f"run: {run.relative_to(tmp_path)}" in done.stdout
    assert (run / "report.html").is_file()


def test_json_is_one_document(tmp_path: Path) -> None:
    done = aiprof(*FAKE, "--json", "--quiet", "--out", "r", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert done.stderr == ""
    assert document["complete"] is True
    assert len(document["cases"]) == 6
    assert document["run"] == "r"


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    done = aiprof(*FAKE, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0
    assert "6 cases, 1 start(s) each" in done.stdout
    assert list(tmp_path.iterdir()) == []
    document = json.loads(aiprof(*FAKE, "--dry-run", "--json", cwd=tmp_path).stdout)
    assert len(document["cases"]) == 6


def test_a_failed_case_gives_exit_code_1_and_all_failed_4(tmp_path: Path) -> None:
    fault = ("--engine-option", "fault=oom", "--scenario", "decode-128")
    some = aiprof(*FAKE, *fault, "--engine-option", "fault_batch=8", "--out", "some", cwd=tmp_path)
    assert some.returncode == 1
    assert "failed (out_of_memory during warm-up): out of memory as asked" in " ".join(some.stdout.split())
    assert aiprof(*FAKE, *fault, "--out", "all", cwd=tmp_path).returncode == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--budget", "soon"), "'soon' is not a duration"),
        (("--budget", "0s"), "is not a duration"),
        (("--concurrency", "0"), "0 is not in the range"),
        (("--engine-option", "speed"), "'speed' is not KEY=VALUE"),
        (("--engine-option", "noise_cv=much"), "not a float"),
        (("--modle", "x"), "No such option"),
        (("--preset", "quik"), "did you mean 'quick'"),
        (("--engine", "tortch"), "did you mean 'torch'"),
        (("--resume", "nowhere"), "nowhere"),
        (("--resume", "x", "--dry-run"), "--resume"),
    ],
)
def test_wrong_flags_end_with_2_and_one_line(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    done = aiprof(*FAKE, *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "runs").exists()


def test_a_wrong_scenario_file_is_named_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("version: 1\ndescripton: x\nversion: 2\n")
    done = aiprof(*FAKE, "--scenario", "mine.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "mine.yaml:3" in done.stderr


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


class Running:
    """A sweep in a process of its own, to be disturbed."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.run = folder / "run"
        command = [sys.executable, "-m", "profiler", *FAKE, *SLOW, "--out", str(self.run), *arguments]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder
        )

    def wait_for_cases(self, count: int) -> None:
        self._wait(lambda: self._lines() >= count)

    def workers(self) -> list[psutil.Process]:
        found = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in found if "main.py" in " ".join(command_of(child))]

    def hold(self) -> list[psutil.Process]:
        """Stop the worker of a case, so that the sweep cannot end before it is disturbed."""
        while True:
            self._wait(self.workers)
            try:
                workers = self.workers()
                for worker in workers:
                    worker.suspend()
            except psutil.NoSuchProcess:
                continue  # its case was over
            if workers:
                return workers

    def _lines(self) -> int:
        cases = self.run / "cases.jsonl"
        return cases.read_bytes().count(b"\n") if cases.exists() else 0

    def _wait(self, condition: Callable[[], object]) -> None:
        for _ in range(2400):
            if condition():
                return
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.05)
        pytest.fail("the sweep did not get there")


def gone(processes: list[psutil.Process]) -> bool:
    return len(psutil.wait_procs(processes, timeout=60)[1]) == 0


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_keeps_what_it_has_and_says_how_to_go_on(tmp_path: Path, signal_number: int) -> None:
    running = Running(tmp_path)
    running.wait_for_cases(2)
    workers = running.hold()
    running.process.send_signal(signal_number)
    stdout, stderr = running.process.communicate(timeout=120)
    assert running.process.returncode == 130
    assert "not measured yet" in stdout
    assert "aiprof sweep --resume" in stderr
    assert "Traceback" not in stderr
    assert gone(workers)
    kept = read_run(running.run)
    assert len(kept.cases) >= 2
    resumed = aiprof("sweep", "--resume", running.run, cwd=tmp_path)
    assert resumed.returncode == 0
    assert "6 of 6 cases measured" in resumed.stdout
    again = aiprof("sweep", "--resume", running.run, cwd=tmp_path)
    assert again.returncode == 0
    assert "nothing to resume" in again.stderr


@pytest.mark.parametrize("after", [0, 1, 3, 5])
def test_killed_at_any_moment_every_finished_case_is_valid_and_resume_finishes(
    tmp_path: Path, after: int
) -> None:
    running = Running(tmp_path)
    running._wait((running.run / "run.json").exists)
    running.wait_for_cases(after)
    time.sleep(0.17 * after)  # not always at the same point of a case
    workers = running.workers()
    running.process.kill()
    running.process.communicate()
    assert gone(workers)
    kept = read_run(running.run)
    assert len(kept.cases) >= after
    resumed = aiprof("sweep", "--resume", running.run, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    whole = read_run(running.run)
    assert whole.complete
    assert whole.warnings == ()
    assert whole.cases[: len(kept.cases)] == kept.cases
    ids = [case.spec.case_id for case in whole.cases]
    assert sorted(ids) == sorted(set(ids)) == sorted(case.spec.case_id for case in whole.record.cases)


def test_two_sweeps_cannot_write_to_one_run(tmp_path: Path) -> None:
    running = Running(tmp_path)
    running.wait_for_cases(1)
    running.hold()
    second = aiprof("sweep", "--resume", running.run, cwd=tmp_path)
    running.process.kill()
    running.process.communicate()
    assert second.returncode == 2
    assert "another aiprof sweep" in second.stderr


def test_resume_with_other_flags_is_refused_with_the_difference(tmp_path: Path) -> None:
    running = Running(tmp_path)
    running.wait_for_cases(1)
    running.process.kill()
    running.process.communicate()
    refused = aiprof("sweep", "--resume", running.run, "--seed", "5", cwd=tmp_path)
    assert refused.returncode == 2
    assert "--seed: the run has 0, asked for 5" in refused.stderr


def test_a_full_disk_costs_one_line_and_nothing_that_was_written(tmp_path: Path) -> None:
    """No file may grow beyond 30 kB: the kernel refuses the write that would, as on a full disk."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    done = aiprof(*FAKE, "--out", "run", cwd=tmp_path, preexec_fn=limit)
    assert done.returncode == 1
    assert "cannot be written: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    kept = read_run(tmp_path / "run")
    assert 0 < len(kept.cases) < 6
    assert not any("torn" in warning for warning in kept.warnings)
    resumed = aiprof("sweep", "--resume", "run", cwd=tmp_path)
    assert resumed.returncode == 0
    assert read_run(tmp_path / "run").cases[: len(kept.cases)] == kept.cases


def test_a_folder_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = aiprof(*FAKE, "--out", "file/run", cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert "file/run" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_takes_no_notice_of_a_reader_that_leaves(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "profiler", "scenarios"]
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write_end)
    assert done.returncode == 0
    assert done.stderr == ""
