"""The sampler process as its parent sees it: start it, tell it of edges, end it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

START_S = 30.0  # opening a vendor's library can take seconds
_STOP_S = 2.0
_EDGE = b"e"


class NotStartedError(Exception):
    """The process did not start; the message says why."""


class SamplerChild:
    """A sampler process that runs.

    Args:
        config: what it is to read; see ``sampler_process.py``.
        descriptor: of the memory that it shares with its parent.

    Attributes:
        refused: code, text and remedy of sensors that it could not open, by key.

    Raises:
        NotStartedError: it ended, or did not answer in time.
    """

    def __init__(self, config: Mapping[str, Any], descriptor: int) -> None:
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        with tempfile.TemporaryFile() as messages:
            self._process = subprocess.Popen(
                # -P: the folder that aiprof happens to run in is not a place to import from.
                [sys.executable, "-P", "-m", "profiler.sensors.sampler_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=messages,
                pass_fds=(descriptor,),
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C is for the conductor, which then ends the sampler
            )
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._input, self._output = self._process.stdin, self._process.stdout
            try:
                answer = self._answer(config)
            except BaseException:  # an interrupt while it starts: nobody else knows of the process
                self.stop()
                raise
            if answer is None:
                self.stop()
                messages.seek(0)
                lines = messages.read().decode("utf-8", "replace").strip().splitlines()
                raise NotStartedError(lines[-1][:200] if lines else f"no answer within {START_S:.0f} s")
        self.refused: dict[str, list[str]] = answer["refused"]
        os.set_blocking(self._input.fileno(), False)

    def _answer(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        try:
            self._input.write(json.dumps(config).encode() + b"\n")
            self._input.flush()
            if not select.select([self._output], [], [], START_S)[0]:
                return None
            line = self._output.readline()
            answer: dict[str, Any] | None = json.loads(line) if line else None
        except (BrokenPipeError, json.JSONDecodeError):
            return None
        return answer

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def ended(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self._process.poll()

    def mark(self) -> None:
        """Say that an edge is now. Never waits: a process that is gone or does not listen changes nothing."""
        with contextlib.suppress(OSError, ValueError):
            os.write(self._input.fileno(), _EDGE)

    def stop(self) -> None:
        """End it and wait for that."""
        with contextlib.suppress(OSError):  # it is gone already
            self._input.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()
