"""Keeping a worker from outliving its conductor or taking the box down with it (Linux)."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when its parent ends, however it ends.

    Args:
        parent_pid: the conductor's pid; when it is already gone, this process exits at once.
    """
    try:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        pass  # not Linux: the end of the request pipe still ends the worker between requests
    if os.getppid() != parent_pid:
        os._exit(1)


def volunteer_for_oom_kill() -> None:
    """Make this process the first that the kernel kills when memory runs out."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass  # not Linux, or not allowed: nothing is lost but the order of kills
