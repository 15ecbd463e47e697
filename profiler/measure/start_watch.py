"""The box during one start: a look before and after the measured trials, and a glance between them."""

from __future__ import annotations

import os
import time
from statistics import median

from profiler.backends.tree import Tree
from profiler.measure.box_flags import judge, unreadable
from profiler.measure.box_state import BoxState, read_box_state
from profiler.measure.numa import numa_flag, remote_share
from profiler.measure.phase_energies import Run
from profiler.measure.repeated_prompt import RepeatedPrompt
from profiler.results.schema import BoxReadings, Flag

LASTING = frozenset({"cpu_quota", "profiler_attached", "cached_answers"})
"""What a repeat of the start would only meet again."""

LONGEST_PAUSE_S = 1.0
PAUSE_FACTOR = 3.0


class StartWatch:
    """Looks for what disturbs the measured trials of one start.

    A glance between trials is one system call. Does nothing where the engine's time is made up.

    Args:
        on_cpu: whether the device under test is the CPU.
        tree: the file system with ``/proc`` and ``/sys``.
    """

    def __init__(self, *, on_cpu: bool, tree: Tree | None = None) -> None:
        self.virtual = False
        self.flags: list[Flag] = []
        self.readings: BoxReadings | None = None
        self._on_cpu = on_cpu
        self._tree = tree or Tree()
        self._pid = 0
        self._before: BoxState | None = None
        self._trials = 0
        self._stopped: list[int] = []
        self._pauses: list[float] = []
        self._answered_ns: int | None = None

    def begin(self, worker_pid: int) -> None:
        """Look at the box before the first measured trial."""
        if self.virtual:
            return
        self._pid = worker_pid
        _was_stopped(worker_pid)  # what happened before does not concern the trials
        self._before = read_box_state(self._tree, worker_pid, os.getpid())

    def trial(self, run: Run) -> None:
        """Glance at the worker after a measured trial.

        Args:
            run: the worker's stamps of it.
        """
        if self._before is None:
            return
        now_ns = time.monotonic_ns()
        self._trials += 1
        if _was_stopped(self._pid):
            self._stopped.append(self._trials)
        if run.last_ns > now_ns:
            self._before, self.virtual = None, True
            return
        since_ns = self._before.stamp_ns if self._answered_ns is None else self._answered_ns
        self._pauses += [(run.submit_ns - since_ns) / 1e9, (now_ns - run.last_ns) / 1e9]
        self._answered_ns = now_ns

    def end(self) -> None:
        """Look again after the last measured trial, and judge."""
        if self._before is None:
            return
        after = read_box_state(self._tree, self._pid, os.getpid())
        verdict = judge(self._before, after, on_cpu=self._on_cpu)
        self.flags += verdict.flags
        self.flags += [flag for flag in (self._stop_flag(), self._pause_flag()) if flag is not None]
        remote = remote_share(self._tree, self._pid) if self._on_cpu else None
        flag = None if remote is None else numa_flag(remote)
        self.flags += [] if flag is None else [flag]
        unknown = ("numa_remote",) if self._on_cpu and remote is None else ()
        self.readings = verdict.readings.model_copy(
            update={
                "worker_stops": len(self._stopped),
                "longest_pause_s": max(0.0, *self._pauses) if self._pauses else None,
                "numa_remote_share": remote,
                "not_judged": (*verdict.readings.not_judged, *unknown),
            }
        )

    def repeated(self, found: RepeatedPrompt) -> None:
        """Take note of what a repeated prompt showed."""
        self.flags += [] if found.flag is None else [found.flag]
        readings = self.readings or BoxReadings()
        missing = ("cached_answers",) if found.ratio is None else ()
        self.readings = readings.model_copy(
            update={
                "repeated_prompt_ratio": found.ratio,
                "not_judged": (*readings.not_judged, *missing),
            }
        )

    def _stop_flag(self) -> Flag | None:
        if not self._stopped:
            return None
        trials = ", ".join(str(number) for number in self._stopped)
        text = (
            f"the worker was stopped and continued by a signal in measured trial {trials}: "
            "the time that it stood still is in that trial"
        )
        hint = "find who sends SIGSTOP (a debugger, a batch system, a terminal) and measure again"
        return Flag(code="process_stopped", text=text, hint=hint)

    def _pause_flag(self) -> Flag | None:
        if not self._pauses:
            return None
        longest = max(self._pauses)
        if longest <= LONGEST_PAUSE_S + PAUSE_FACTOR * median(self._pauses):
            return None
        text = (
            f"aiprof itself stood still for {longest:.1f} s between two measured trials (stopped, starved of "
            "processor time, or the machine was): the device rested and the next trial began cooler"
        )
        hint = "leave the sweep running and the machine to it, and measure again"
        return Flag(code="profiler_stalled", text=text, hint=hint)


def hidden_here(tree: Tree | None = None) -> str:
    """Return in one line what this system does not let anyone judge, or an empty text."""
    hidden = unreadable(read_box_state(tree or Tree(), os.getpid(), os.getpid()))
    return f"not visible on this system, so not judged: {', '.join(hidden)}" if hidden else ""


def _was_stopped(pid: int) -> bool:
    """Whether a child was stopped, or stopped and continued, since this was last asked.

    The kernel keeps both for the parent until it waits for them, so nothing between two glances is lost.
    """
    if not hasattr(os, "waitid"):
        return False
    seen = False
    try:
        while os.waitid(os.P_PID, pid, os.WSTOPPED | os.WCONTINUED | os.WNOHANG) is not None:
            seen = True
    except ChildProcessError:
        pass  # it has ended, or is not ours: the request to it says so
    return seen
