"""Runs a server and leaves nothing of it behind, however the conductor ends.

    python server_guard.py GRACE_S COMMAND...

Started by path (``server.py``), standard library only. The guard's input is a pipe from the conductor: its
end, of whatever cause, means stop. The guard adopts what the server leaves behind (it is a subreaper), asks
the server to end, and kills what has not ended after GRACE_S. It exits with the server's code, 128 + signal
for one that was killed, and 127 when it could not be started.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_PR_SET_CHILD_SUBREAPER = 36
_CANNOT_START = 127
_POLL_S = 0.1


def _prctl(option: int, value: int) -> None:
    try:
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
    except (OSError, AttributeError):
        pass  # not Linux: the process group is all that can be ended


def _before_exec() -> None:
    """In the server: die with the guard, be killed first when memory runs out."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        pass  # not Linux, or not allowed


def _children(pid: int) -> list[int]:
    """Return the processes that ``pid`` started or adopted, theirs included."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            # The command's name, in brackets, may hold anything.
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        if fields[0] != "Z":
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, queue = [], [pid]
    while queue:
        young = parents.get(queue.pop(), [])
        found += young
        queue += young
    return found


class _Guard:
    def __init__(self, command: Sequence[str]) -> None:
        self._child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, preexec_fn=_before_exec, start_new_session=True
        )
        self.code: int | None = None

    def reap(self) -> None:
        """Take note of what has ended, adopted processes included."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._child.pid:
                code = os.waitstatus_to_exitcode(status)
                self.code = code if code >= 0 else 128 - code

    def watch(self) -> None:
        """Return when the server has ended or the conductor wants it to."""
        parent = os.getppid()
        while self.code is None and os.getppid() == parent:
            readable, _, _ = select.select([0], [], [], _POLL_S)
            if readable and not os.read(0, 4096):
                return
            self.reap()

    def stop(self, grace_s: float) -> None:
        """Ask the server to end, wait, and kill what is left."""
        deadline = time.monotonic() + grace_s
        if self.code is None:
            os.kill(self._child.pid, signal.SIGTERM)
        while self.code is None and time.monotonic() < deadline:
            time.sleep(_POLL_S / 5)
            self.reap()
        while True:
            try:
                os.killpg(self._child.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass  # the group is gone
            left = _children(os.getpid())
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self.reap()
            if not left and self.code is not None:
                return
            time.sleep(_POLL_S / 5)


def main(arguments: Sequence[str]) -> int:
    """Run the command and return the exit code."""
    for interrupt in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Whoever means the server closes the pipe; a signal to the group must not orphan it. A handler and
        # not SIG_IGN, which the server would inherit.
        signal.signal(interrupt, lambda number, frame: None)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        guard = _Guard(arguments[1:])
    except OSError as error:
        print(f"{arguments[1]}: cannot be started: {error.strerror}", flush=True)
        return _CANNOT_START
    guard.watch()
    guard.stop(float(arguments[0]))
    assert guard.code is not None
    return guard.code


if __name__ == "__main__":
    # Without the interpreter's own cleaning up, which would complain of a child it has not waited for.
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)
