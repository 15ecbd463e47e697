"""Load processes from the outside: nothing is left of them, however the process above them ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from truth_thread import serving

from profiler.load.fleet import PACKAGE_PARENT

CONDUCTOR = """
import sys
import numpy as np
from profiler.load.endpoint import parse_endpoint
from profiler.load.fleet import run_job
from profiler.load.job import Job
from profiler.load.prompts import Features, PromptSpec

run_job(
    Job(
        endpoints=(parse_endpoint(sys.argv[1]),), api="completions", model="plain",
        prompts=PromptSpec("fleet", 0), features=Features(), prompt_tokens=np.array([8]),
        output_tokens=np.array([100_000]), concurrency=2, count=2,
    ),
    processes=2,
)
"""


def test_a_conductor_that_is_killed_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    environment = os.environ | {"TMPDIR": str(folder), "PYTHONPATH": str(PACKAGE_PARENT)}
    with serving(ttft_ms=1, gap_ms=50) as server:
        command = [sys.executable, "-c", CONDUCTOR, f"http://127.0.0.1:{server.port}"]
        with subprocess.Popen(command, env=environment) as conductor:
            try:
                until = time.monotonic() + 120
                while server.active < 2 and time.monotonic() < until:
                    assert conductor.poll() is None
                    time.sleep(0.05)
                children = psutil.Process(conductor.pid).children(recursive=True)
                assert len(children) == 2
            finally:
                conductor.send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(children, timeout=120)
        assert not alive
    assert list(folder.iterdir()) == []
