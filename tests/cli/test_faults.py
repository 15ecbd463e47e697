"""What may happen to a sweep at every stage: killed without warning, a jumping clock, a closed folder.

Deaths of workers and sensors, hangs, garbage and full disks have tests beside the code that meets them;
docs/trust.md lists all.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from profiler.analysis.verify import verify_run
from profiler.cli import cli
from profiler.measure.request import SweepRequest
from profiler.measure.sweep import Sweep
from profiler.results.read import read_run

KILLED = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    from profiler.measure import events
    from profiler.measure.request import SweepRequest
    from profiler.measure.sweep import Sweep
    from profiler.results import store

    stage, path = sys.argv[1], Path(sys.argv[2])
    finished = 0

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def listen(event):
        global finished
        finished += isinstance(event, events.CaseFinished)
        if stage == "plan" and isinstance(event, events.Preparing):
            die()
        if finished and isinstance(event, events.StageEntered) and event.stage == stage:
            die()
        if finished and stage == "append" and isinstance(event, events.CaseStarted):
            store.os.fsync = die  # the line is written, and not yet synced

    request = SweepRequest(engines=("fake",), scenarios=("decode-128",), batches=(1, 8))
    if stage == "close":
        store.RunWriter.close = die
    run = Sweep(request, listen).run(path)
    if stage == "report":
        Path.replace = die  # the page is written under its temporary name
        from profiler.render.report import write_report
        write_report([run], path / "report.html", title="run")
    """
)
# Cases that are on disk when it is killed: the one before, and at append and later those that were made.
STAGES = {"plan": 0, "load": 1, "warm-up": 1, "trials": 1, "append": 1, "close": 2, "report": 2}


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_any_stage_no_finished_case_is_lost_and_resume_completes(
    tmp_path: Path, stage: str
) -> None:
    path, temporary = tmp_path / "run", tmp_path / "tmp"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", KILLED, stage, str(path)],
        capture_output=True,
        check=False,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(temporary.iterdir()) == []
    if stage == "plan":
        assert not path.exists()
        return
    kept = read_run(path)
    assert len(kept.cases) >= STAGES[stage]
    left = verify_run(path)
    assert (left.state, left.findings) == ("verified" if stage == "report" else "incomplete", ())
    resumed = CliRunner().invoke(cli, ["sweep", "--resume", str(path)], standalone_mode=False)
    assert resumed.return_value == 0, resumed.output
    whole = read_run(path)
    assert whole.cases[: len(kept.cases)] == kept.cases
    assert len(whole.cases) == 2
    found = verify_run(path)
    # The page of the killed process is not evidence, and said to be left over.
    assert (found.state, found.findings) == ("verified", ())


def test_a_terminated_sweep_ends_as_an_interrupted_one_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """Batch systems and ``timeout`` send SIGTERM."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-m", "profiler", "sweep", "--engine", "fake", "--out", str(tmp_path / "run")]
    slow = ["--engine-option", "real_time=true", "--scenario", "decode-128", "--budget", "60s"]
    with subprocess.Popen(
        [*command, *slow],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    ) as process:
        assert process.stderr is not None
        said = iter(process.stderr)
        for _ in said:  # its first word: from here on it is at work
            break
        process.send_signal(signal.SIGTERM)
        rest = "".join(said)
    assert process.returncode == 130, rest
    assert "interrupted" in rest
    assert list(temporary.iterdir()) == []


def test_the_wall_clock_may_jump_as_it_likes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that is measured may ask CLOCK_REALTIME, which is set back by a day at every look."""
    now = [2e9]

    def jumping() -> float:
        now[0] -= 86_400
        return now[0]

    monkeypatch.setattr(time, "time", jumping)
    monkeypatch.setattr(time, "time_ns", lambda: int(jumping() * 1e9))
    request = SweepRequest(engines=("fake",), scenarios=("decode-128",), batches=(1,), starts=2)
    run = Sweep(request, lambda event: None).run(tmp_path / "run")
    (case,) = run.cases
    assert case.status == "ok"
    assert all(trial.e2e_s > 0 for trial in case.trials)
    assert 0 < case.elapsed_s < 10_000
    assert verify_run(tmp_path / "run").state == "verified"


def test_a_folder_that_takes_no_files_is_said_in_one_line(tmp_path: Path) -> None:
    # /proc refuses even root, who may write into read-only folders elsewhere.
    for out in ("/proc/aiprof-run", str(tmp_path / "file" / "run")):
        (tmp_path / "file").write_text("")
        done = CliRunner().invoke(
            cli, ["sweep", "--engine", "fake", "--quiet", "--out", out], standalone_mode=False
        )
        assert done.exception is not None
        assert getattr(done.exception, "exit_code", None) in (1, 2)
        assert str(done.exception).startswith(out)
        assert "\n" not in str(done.exception)
