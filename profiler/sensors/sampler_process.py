"""The sampler: a process that reads sensors and does nothing else.

A thread in the conductor will not do: one call that holds the interpreter's lock stopped it for up to
470 ms. This process is started afresh (it inherits no state, no torch and no locks), is told on its
standard input what to read, and ends when that input does, which is when its parent ends, however that
happens. Each source has a thread of its own, so that a hanging meter delays nobody else; the main thread
reads fast counters densely when a byte on standard input says that a window begins or ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from profiler import registry
from profiler.backends.base import Unavailable
from profiler.sensors.base import Read, SensorSource, failure_number
from profiler.sensors.edge_reads import EdgeReads, edges_of, fast_tick_ns, wake_on_time
from profiler.sensors.ring import Ring

# A counter that is new every millisecond is read as fast as it goes for this long, once, so that its tick
# can be told from the time between reads.
_BURST_NS = 30_000_000


def main() -> None:
    """Read the configuration, open the sensors, say so, and sample until standard input ends."""
    # Vendor libraries print; the real standard output is for the one answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    config = json.loads(sys.stdin.buffer.readline())
    ring = Ring(config["descriptor"], config["channels"], config["capacity"])
    refused: dict[str, list[str]] = {}
    loops, sampled = [], []
    for source in config["sources"]:
        opened = _open(source)
        channels = []
        for key, (channel, poll_hz) in source["keys"].items():
            read = opened[key]
            if isinstance(read, Unavailable):
                refused[key] = [read.code, read.text, read.remedy]
            else:
                channels.append(Channel(ring, channel, read, poll_hz))
        if channels:
            loops.append(Loop(channels))
            sampled += channels
    for loop in loops:
        threading.Thread(target=loop.run, daemon=True).start()
    os.write(answer, json.dumps({"refused": refused}).encode() + b"\n")
    os.close(answer)
    wake_on_time()
    with contextlib.suppress(EOFError):
        EdgeReads(sampled).follow(edges_of(0))
    os._exit(0)  # threads may be stuck in a vendor's library


def _open(source: Mapping[str, Any]) -> dict[str, Read | Unavailable]:
    """Open the sensors of one source; one that raises has a fault, which is no reason to die."""
    keys = list(source["keys"])
    try:
        loaded: SensorSource = registry.load("sensors", source["name"], **source["options"])
        return {**dict.fromkeys(keys, Unavailable("no_device", "the sensor is gone")), **loaded.open(keys)}
    except Exception as error:  # a source of another package may fail in any way
        text = f"the sensors of '{source['name']}' failed: {type(error).__name__}: {error}"
        return dict.fromkeys(keys, Unavailable("sensor_failed", text, "report it to its authors"))


class Channel:
    """One sensor to read: where its reads go, its function, and its pace.

    Args:
        ring: where to.
        number: of its own part of the ring.
        read: its function.
        poll_hz: how often.
        clock: CLOCK_MONOTONIC in nanoseconds.

    Attributes:
        period_ns: time between reads.
        tick_ns: time between new values where it is to be read densely around edges, else None.
    """

    def __init__(
        self,
        ring: Ring,
        number: int,
        read: Read,
        poll_hz: float,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.period_ns = round(1e9 / poll_hz)
        self.tick_ns: int | None = None
        self._ring = ring
        self._number = number
        self.once = _recorded(read, ring.writer(number), clock)

    def judge(self) -> None:
        """Find out from the reads so far, all made without a pause, whether it is a fast counter."""
        self.tick_ns = fast_tick_ns(self._ring.read(self._number, 0)[1])


class _Group:
    """Sensors that are read together: one wake-up, one look at the clock in between for all of them."""

    def __init__(self, channels: list[Channel]) -> None:
        self.period_ns = channels[0].period_ns
        self.reads = [channel.once for channel in channels]
        self.due_ns = 0


class Loop:
    """Reads the sensors of one source, those of equal pace together.

    Args:
        channels: of the source.
    """

    def __init__(self, channels: list[Channel]) -> None:
        self._channels = channels

    def run(
        self, clock: Callable[[], int] = time.monotonic_ns, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Sample for ever, or until a clock of a test raises."""
        by_pace: dict[int, list[Channel]] = {}
        for channel in self._channels:
            by_pace.setdefault(channel.period_ns, []).append(channel)
        groups = [_Group(by_pace[period_ns]) for period_ns in sorted(by_pace)]
        fastest = groups[0]
        if fastest.period_ns <= _BURST_NS:
            end_ns = clock() + _BURST_NS
            while clock() < end_ns:
                for read in fastest.reads:
                    read()
            for channel in by_pace[fastest.period_ns]:
                channel.judge()
        start_ns = clock()
        for group in groups:
            group.due_ns = start_ns
        while True:
            now_ns = clock()
            next_ns = now_ns + fastest.period_ns
            for group in groups:
                if group.due_ns <= now_ns:
                    for read in group.reads:
                        read()
                    # On time again after a pause, without a burst of reads to catch up.
                    group.due_ns += ((now_ns - group.due_ns) // group.period_ns + 1) * group.period_ns
                if group.due_ns < next_ns:
                    next_ns = group.due_ns
            pause_ns = next_ns - clock()
            if pause_ns > 0:
                sleep(pause_ns * 1e-9)


def _recorded(
    read: Read, write: Callable[[int, int, int, int], None], clock: Callable[[], int]
) -> Callable[[], int | None]:
    """Return a function that reads a sensor once, writes down what came of it and returns the value, if any.

    Two threads may read a fast counter: reads stay in the order in which they are written.
    """
    turn = threading.Lock()

    def once() -> int | None:
        with turn:
            before_ns = clock()
            try:
                value = read()
            except Exception:  # a fault of the source; the failure is recorded, sampling goes on
                value = _FAILED
            after_ns = clock()
            if type(value) is int:
                write(before_ns, after_ns, value, 0)
                return value
            assert isinstance(value, Unavailable)
            write(before_ns, after_ns, 0, failure_number(value.code))
            return None

    return once


_FAILED = Unavailable("unknown", "the source failed")


if __name__ == "__main__":
    main()
