"""Probes a source, samples it and prints energies as JSON, in a process that can load fake libraries.

Sampling happens in a time of its own: the sampler's loop runs here on a clock that moves by what a read and a
pause take on a quiet machine, and the fakes look at the same clock. What a test finds therefore never depends
on how busy the machine is. The real process on the real clock is what ``test_sampler.py`` is about.

Standard input: ``{"source", "options", "keys" (null: all), "seconds", "windows": [[t0_s, t1_s], ...],
"changes": [[at_s, {"key": value}], ...], "config": path, "clock": path, "zones": {...}}``; times in seconds
after ``T0_S``, ``zones`` (of the source's root) as in ``powercap.py``.
"""

from __future__ import annotations

import json
import mmap
import random
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fakes.power import T0_S, write_config
from fakes.powercap import FaultyPowercap

from profiler import registry
from profiler.backends.base import Unavailable
from profiler.sensors import sampler_process
from profiler.sensors.base import SensorInfo
from profiler.sensors.ring import Ring
from profiler.sensors.sampler import Sampler
from profiler.sensors.self_check import self_check


class TimeOverError(Exception):
    """The time that was to be sampled is over."""


class Clock:
    """Time that passes only when it is asked for, shared with the fakes.

    Args:
        path: file of 8 bytes, a double: the seconds.
        changes: (moment, configuration to be written then).
        config: where to.
    """

    CALL_NS = 4_000
    OVERSLEPT_NS = (20_000, 150_000)

    def __init__(
        self, path: Path, changes: Sequence[tuple[float, Mapping[str, object]]], config: Path
    ) -> None:
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 8)
        self._changes, self._config = list(changes), config
        self._random = random.Random(20)
        self.end_ns: int | None = None
        self.now_ns = 0
        self.moved: list[Callable[[float], None]] = []
        self._move(round((T0_S - 0.1) * 1e9))

    def _move(self, by_ns: int) -> None:
        self.now_ns += by_ns
        if self.end_ns is not None and self.now_ns > self.end_ns:
            raise TimeOverError
        self._shared[:] = struct.pack("d", self.now_ns * 1e-9)
        for moved in self.moved:
            moved(self.now_ns * 1e-9)
        while self._changes and self.now_ns * 1e-9 >= T0_S + self._changes[0][0]:
            write_config(self._config, self._changes.pop(0)[1])

    def __call__(self) -> int:
        self._move(self.CALL_NS)
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        """Pass the time, and a little more, as every system does."""
        self._move(round(seconds * 1e9) + self._random.randint(*self.OVERSLEPT_NS))


class InstantSampler(Sampler):
    """A sampler whose loop has run to its end before it answers."""

    def __init__(self, sensors: Sequence[SensorInfo], options: Mapping[str, Any], clock: Clock) -> None:
        super().__init__(sensors, options)
        self._clock = clock

    def _launch(self, config: Mapping[str, Any], descriptor: int) -> None:
        ring = Ring(descriptor, config["channels"], config["capacity"])
        (source,) = config["sources"]
        channels = []
        for key, read in sampler_process._open(source).items():
            assert not isinstance(read, Unavailable), (key, read)
            number, poll_hz = source["keys"][key]
            channels.append(sampler_process.Channel(ring, number, read, poll_hz, self._clock))
        try:
            sampler_process.Loop(channels).run(self._clock, self._clock.sleep)
        except TimeOverError:
            ring.close()


def main() -> None:
    task = json.load(sys.stdin)
    clock = Clock(Path(task["clock"]), task["changes"], Path(task["config"]))
    if task["zones"]:
        root = Path(task["options"]["root"])
        clock.moved.append(FaultyPowercap(root, task["zones"], T0_S, lambda: clock.now_ns).move)
    source = registry.load("sensors", task["source"], **task["options"])
    infos: list[SensorInfo] = source.probe()
    answers: dict[str, Any] = {"infos": [asdict(info) for info in infos], "energy": {}, "checks": {}}
    if task["seconds"]:
        wanted = [info for info in infos if task["keys"] is None or info.key in task["keys"]]
        clock.end_ns = round((T0_S + task["seconds"]) * 1e9)
        with InstantSampler(wanted, {source.name: source.options()}, clock) as sampler:
            _ask(task["windows"], sampler, answers)
    print(json.dumps(answers))


def _ask(windows: Sequence[tuple[float, float]], sampler: Sampler, answers: dict[str, Any]) -> None:
    answers["opened"] = {key: asdict(info) for key, info in sampler.infos.items()}
    for info in sampler.infos.values():
        if info.unit not in ("J", "W"):
            values = [sample.raw for sample in sampler.samples(info.key)]
            answers["energy"][info.key] = {"values": values}
            continue
        answers["energy"][info.key] = [
            asdict(sampler.energy(info.key, round((T0_S + a) * 1e9), round((T0_S + b) * 1e9), wait_s=0))
            for a, b in windows
        ]
        answers["checks"][info.key] = asdict(self_check(info, sampler.series(info.key)))


if __name__ == "__main__":
    main()
