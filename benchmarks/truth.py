"""Starts a server of known truth for a benchmark and asks it what was true.

The one in C (truth_server.c) is compiled where a compiler is: it serves thousands of streams. The one
in Python (truth_server.py) has the odd answers, and stands in without a compiler.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SOURCE = Path(__file__).with_name("truth_server.c")
IN_PYTHON = (sys.executable, str(Path(__file__).with_name("truth_server.py")))


@dataclass(frozen=True)
class Truth:
    """What a server wrote.

    Attributes:
        ttft_s: per request that ended, from the arrival of its bytes to the write of the first chunk.
        tpot_s: per request, time per token after the first chunk.
        tokens: tokens written.
        span_s: from the first arrival to the last write.
        late_p99_s: by how much chunks left after they were due, or None where the server does not say.
    """

    ttft_s: NDArray[np.float64]
    tpot_s: NDArray[np.float64]
    tokens: int
    span_s: float
    late_p99_s: float | None


@contextlib.contextmanager
def compiled() -> Iterator[Sequence[str] | None]:
    """Yield the command of the server in C, or None and say on stderr why there is none."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        print("no C compiler: the server in Python serves, which is late beyond 200 streams", file=sys.stderr)
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "truth_server")
        made = subprocess.run(
            [compiler, "-O2", "-o", program, str(SOURCE)], capture_output=True, text=True, check=False
        )
        if made.returncode:
            print(
                f"{SOURCE.name} does not compile, the server in Python serves:\n{made.stderr}",
                file=sys.stderr,
            )
            yield None
            return
        yield (program,)


@contextlib.contextmanager
def serving(command: Sequence[str]) -> Iterator[int]:
    """Run a server and yield its port."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield int(server.stdout.readline())
        finally:
            server.kill()


def ask(port: int, path: str) -> Any:
    """Return what a control URL says."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        return json.load(answer)


def truth(port: int) -> Truth:
    """Return what a server has written since it started or was reset."""
    said = ask(port, "/truth")
    late_ms = said.get("late_p99_ms")
    return Truth(
        np.array(said["ttft_s"]),
        np.array(said["tpot_s"]),
        said["tokens"],
        said["span_s"],
        None if late_ms is None else late_ms / 1e3,
    )
