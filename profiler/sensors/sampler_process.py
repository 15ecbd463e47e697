"""The sampler: a process that reads sensors and does nothing else.

A thread in the conductor will not do: one call that holds the interpreter's lock stopped it for up to
470 ms. This process is started afresh (it inherits no state, no torch and no locks), is told on its
standard input what to read, and ends when that input does, which is when its parent ends, however that
happens. Each source has a thread of its own, so that a hanging meter delays nobody else.
"""

from __future__ import annotations

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
    loops = []
    for source in config["sources"]:
        opened = _open(source)
        channels = []
        for key, (channel, poll_hz) in source["keys"].items():
            read = opened[key]
            if isinstance(read, Unavailable):
                refused[key] = [read.code, read.text, read.remedy]
            else:
                channels.append(_Channel(channel, read, poll_hz))
        if channels:
            loops.append(_Loop(ring, channels))
    for loop in loops:
        threading.Thread(target=loop.run, daemon=True).start()
    os.write(answer, json.dumps({"refused": refused}).encode() + b"\n")
    os.close(answer)
    while sys.stdin.buffer.read(1):
        pass
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


class _Channel:
    """One sensor to read: where its reads go, its function, and its pace."""

    def __init__(self, number: int, read: Read, poll_hz: float) -> None:
        self.number = number
        self.read = read
        self.period_ns = round(1e9 / poll_hz)


class _Group:
    """Sensors that are read together: one wake-up, one look at the clock in between for all of them."""

    def __init__(self, period_ns: int, reads: list[Callable[[], None]]) -> None:
        self.period_ns = period_ns
        self.reads = reads
        self.due_ns = 0


class _Loop:
    """Reads the sensors of one source, those of equal pace together."""

    def __init__(self, ring: Ring, channels: list[_Channel]) -> None:
        self._ring = ring
        self._channels = channels

    def run(
        self, clock: Callable[[], int] = time.monotonic_ns, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Sample for ever, or until a clock of a test raises."""
        by_pace: dict[int, list[Callable[[], None]]] = {}
        for channel in self._channels:
            read = _recorded(channel.read, self._ring.writer(channel.number), clock)
            by_pace.setdefault(channel.period_ns, []).append(read)
        groups = [_Group(period_ns, by_pace[period_ns]) for period_ns in sorted(by_pace)]
        fastest = groups[0]
        if fastest.period_ns <= _BURST_NS:
            end_ns = clock() + _BURST_NS
            while clock() < end_ns:
                for read in fastest.reads:
                    read()
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
) -> Callable[[], None]:
    """Return a function that reads a sensor once and writes down what came of it."""

    def once() -> None:
        before_ns = clock()
        try:
            value = read()
        except Exception:  # a fault of the source; the failure is recorded, sampling goes on
            value = _FAILED
        after_ns = clock()
        if type(value) is int:
            write(before_ns, after_ns, value, 0)
        else:
            assert isinstance(value, Unavailable)
            write(before_ns, after_ns, 0, failure_number(value.code))

    return once


_FAILED = Unavailable("unknown", "the source failed")


if __name__ == "__main__":
    main()
