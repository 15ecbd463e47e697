"""Probes a source, samples it and prints energies as JSON, in a process that can load fake libraries.

Standard input: ``{"source", "options", "keys" (null: all), "seconds", "windows": [[t0_s, t1_s], ...], "t0",
"changes": [[at_s, {"key": value}], ...], "config": path}``; times in seconds after ``t0``.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fakes.power import write_config

from profiler import registry
from profiler.sensors.base import SensorInfo
from profiler.sensors.sampler import Sampler
from profiler.sensors.self_check import self_check


def main() -> None:
    task = json.load(sys.stdin)
    source = registry.load("sensors", task["source"], **task.get("options", {}))
    infos: list[SensorInfo] = source.probe()
    answers: dict[str, Any] = {"infos": [asdict(info) for info in infos], "energy": {}, "checks": {}}
    if task.get("seconds"):
        wanted = [info for info in infos if task.get("keys") is None or info.key in task["keys"]]
        with Sampler(wanted, {source.name: source.options()}) as sampler:
            _sample(task, sampler, answers)
    print(json.dumps(answers))


def _sample(task: dict[str, Any], sampler: Sampler, answers: dict[str, Any]) -> None:
    t0_s = task["t0"]
    for at_s, values in task.get("changes", []):
        time.sleep(max(0.0, t0_s + at_s - time.monotonic()))
        write_config(Path(task["config"]), values)
    time.sleep(max(0.0, t0_s + task["seconds"] - time.monotonic()))
    answers["opened"] = {key: asdict(info) for key, info in sampler.infos.items()}
    for info in sampler.infos.values():
        if info.unit not in ("J", "W"):
            values = [sample.raw for sample in sampler.samples(info.key)]
            answers["energy"][info.key] = {"values": values}
            continue
        answers["energy"][info.key] = [
            asdict(sampler.energy(info.key, round((t0_s + a) * 1e9), round((t0_s + b) * 1e9), wait_s=0))
            for a, b in task["windows"]
        ]
        answers["checks"][info.key] = asdict(self_check(info, sampler.series(info.key)))


if __name__ == "__main__":
    main()
