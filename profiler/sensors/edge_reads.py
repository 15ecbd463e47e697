"""Dense reads of fast counters around a moment: in the sampler, when it is told that a window begins or ends.

A counter that has a new value every millisecond is read every ten: enough for the energy between two
reads, not for that at a moment between them. Around an edge it is therefore read until it has ticked a
few times, at pauses short enough to see when. The edge lies before those ticks by no more than the time that
the news of it took, so that going back from them reaches it; where the news came first it lies among them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import statistics
import struct
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

# Slower counters are seen often enough by reading them a hundred times per second, and slower calls would
# keep a driver busy.
_FAST_TICK_NS = 5_000_000
_FAST_CALL_NS = 100_000
_FEWEST_TICKS = 4
# After an edge: two ticks show the power then, the third that the first was no straggler.
_TICKS = 3
_PATIENCE_TICKS = 6
_PAUSE_S = 60e-6
# However many edges there are: part of the time that dense reads may take, and how much can be saved up.
_MOST_DENSE = 0.1
_SAVED_NS = 100_000_000
_PR_SET_TIMERSLACK = 29
_SLACK_NS = 1_000

Wait = Callable[["float | None"], bool]
"""Waits for an edge, so many seconds or for ever; says whether there was one, raises EOFError at the end."""


class Fast(Protocol):
    """A counter as the sampler reads it."""

    tick_ns: int | None
    """Time between its values where it is one to read densely, else None."""

    def once(self) -> int | None:
        """Read it, write down what came of it, and return the value, or None where it failed."""
        ...


def fast_tick_ns(records: bytes) -> int | None:
    """Return the time between new values of a counter that is fast and cheap to read, or None for any other.

    Args:
        records: reads made without a pause, as they lie in the ring.
    """
    rows = [row for row in struct.iter_unpack("=4q", records) if row[3] == 0]
    changed = [after[0] for before, after in pairwise(rows) if after[2] != before[2]]
    if len(changed) < _FEWEST_TICKS:
        return None
    tick_ns = (changed[-1] - changed[0]) // (len(changed) - 1)
    call_ns = statistics.median(row[1] - row[0] for row in rows)
    return tick_ns if tick_ns <= _FAST_TICK_NS and call_ns <= _FAST_CALL_NS else None


class EdgeReads:
    """Reads fast counters densely after every edge, for at most a tenth of the time.

    Args:
        channels: all counters; which of them are fast may turn out later.
        clock: CLOCK_MONOTONIC in nanoseconds.
    """

    def __init__(self, channels: Sequence[Fast], clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._channels = channels
        self._clock = clock
        self._saved_ns = _SAVED_NS
        self._saved_at_ns = clock()

    def follow(self, wait: Wait) -> None:
        """Serve edges until ``wait`` raises EOFError, which is passed on."""
        while True:
            wait(None)
            fast = [channel for channel in self._channels if channel.tick_ns is not None]
            if fast:
                self._around(fast, wait)

    def _around(self, fast: Sequence[Fast], wait: Wait) -> None:
        """Read until each counter has ticked often enough since the last edge."""
        patience_ns = _PATIENCE_TICKS * max(channel.tick_ns or 0 for channel in fast)
        began_ns = self._clock()
        allowed_ns = self._allowance_ns(began_ns)
        if allowed_ns < patience_ns:
            return
        edge_ns = now_ns = began_ns
        left = [_TICKS] * len(fast)
        values: list[int | None] = [None] * len(fast)
        while max(left) > 0 and now_ns - edge_ns < patience_ns and now_ns - began_ns < allowed_ns:
            for at, channel in enumerate(fast):
                value = channel.once()
                if value is not None:
                    left[at] -= values[at] is not None and value != values[at]
                    values[at] = value
            another = wait(_PAUSE_S)
            now_ns = self._clock()
            if another:
                edge_ns, left = now_ns, [_TICKS] * len(fast)
        self._saved_ns -= now_ns - began_ns

    def _allowance_ns(self, now_ns: int) -> int:
        earned_ns = round((now_ns - self._saved_at_ns) * _MOST_DENSE)
        self._saved_ns, self._saved_at_ns = min(_SAVED_NS, self._saved_ns + earned_ns), now_ns
        return self._saved_ns


def edges_of(descriptor: int) -> Wait:
    """Return what waits for edges, which are bytes of any kind on a pipe."""

    def wait(seconds: float | None) -> bool:
        if not select.select([descriptor], [], [], seconds)[0]:
            return False
        if not os.read(descriptor, 4096):
            raise EOFError
        return True

    return wait


def wake_on_time() -> None:
    """Let short pauses of this thread end when they should; Linux adds 50 µs unless told otherwise."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, _SLACK_NS, 0, 0, 0)
