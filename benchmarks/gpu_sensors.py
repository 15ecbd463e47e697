"""What the sensors of a real accelerator say: self-check, a load of three levels, and every raw read kept.

    python benchmarks/gpu_sensors.py --device cuda:0 --out folder   # on a box with a GPU
    python benchmarks/gpu_sensors.py --device cpu --out folder      # what a CPU can show of it

Prints the doctor's line for each sensor, then idle, half and full load (matrix products, half of the time and
all of it) with the energy by every counter and power sensor, their bounds and their ratio. The raw reads go
into ``reads.npz`` (per sensor: begin and end of each read in CLOCK_MONOTONIC ns, raw value, failure) and what
is known of the sensors into ``sensors.json``: together they are a fixture for tests without hardware.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from profiler.sensors.box import BoxSensors, find_sensors
from profiler.sensors.sampler import Sampler
from profiler.sensors.survey import faster, judge

LEVELS: Final = {"idle": 0.0, "half": 0.5, "full": 1.0}
SETTLE_S: Final = 1.5  # readings that are averages over a second forget the level before
PERIOD_S: Final = 0.05
ENERGY_KINDS: Final = ("energy_counter", "power_instant", "power_average")


def load(device: str, part: float, seconds: float) -> None:
    """Keep a device busy with matrix products for a part of each period."""
    side = 512 if device == "cpu" else 4096
    one = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        while part and time.monotonic() - began < part * PERIOD_S:
            one @ one
            if device != "cpu":
                torch.cuda.synchronize()
        if part < 1:
            time.sleep((1 - part) * PERIOD_S)


def windows(device: str, seconds: float) -> dict[str, tuple[int, int]]:
    """Go through the levels; return when each was held, CLOCK_MONOTONIC ns."""
    held = {}
    for name, part in LEVELS.items():
        load(device, part, SETTLE_S)
        begin_ns = time.monotonic_ns()
        load(device, part, seconds)
        held[name] = (begin_ns, time.monotonic_ns())
    time.sleep(SETTLE_S)
    return held


def check(device: str, seconds: float, out: Path) -> list[dict[str, Any]]:
    """Sample everything that this box can read under the three levels; return a row for each finding.

    Args:
        device: where the load runs, as torch calls it.
        seconds: how long each level is held.
        out: folder for ``reads.npz`` and ``sensors.json``.
    """
    box = find_sensors()
    with _sampling(box) as sampler:
        held = windows(device, seconds)
        sampler.drain()
        infos = sampler.infos
        reads = {key: sampler.series(key) for key, info in infos.items() if info.unavailable is None}
        rows: list[dict[str, Any]] = [
            {"part": f"sensor {one.info.key}", "found": one.accuracy() or _state(one.latest, one.info.unit)}
            for one in judge([infos[key] for key in reads], reads)
        ]
        rows += [
            {"part": f"sensor {info.key}", "found": f"no: {info.unavailable}"}
            for info in infos.values() if info.unavailable is not None
        ]  # fmt: skip
        for name, window in held.items():
            rows += [
                {"part": f"{name}, {key}", **_energy(sampler, key, window)}
                for key, info in infos.items() if key in reads and info.kind in ENERGY_KINDS
            ]  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    columns = ("t_before_ns", "t_after_ns", "raw", "failure")
    np.savez_compressed(
        out / "reads.npz",
        **{f"{key}:{one}": getattr(series, one) for key, series in reads.items() for one in columns},
    )
    kept = {"levels": held, "sensors": [dataclasses.asdict(info) for info in infos.values()], "rows": rows}
    (out / "sensors.json").write_text(json.dumps(kept, indent=1, default=str) + "\n")
    return rows


@contextmanager
def _sampling(box: BoxSensors) -> Iterator[Sampler]:
    with Sampler([faster(info) for info in box.infos], box.options) as sampler:
        time.sleep(1.0)  # the first second shows the ticks
        yield sampler


def _energy(sampler: Sampler, key: str, window: tuple[int, int]) -> dict[str, Any]:
    energy = sampler.energy(key, *window)
    if energy.joules is None or energy.bound_j is None:
        return {"found": str(energy.reason)}
    watts = energy.joules / energy.duration_s
    words = f"{watts:.1f} W ±{100 * energy.bound_j / energy.joules:.1f}%"
    return {"found": words, "watts": watts, "joules": energy.joules, "bound_j": energy.bound_j,
            "flags": list(energy.flags), "tick_s": energy.tick_s}  # fmt: skip


def _state(latest: float | None, unit: str) -> str:
    return "no read" if latest is None else f"{latest:g} {unit}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each level")
    parser.add_argument("--out", type=Path, default=Path("gpu-check"))
    arguments = parser.parse_args()
    print("| sensor | found |\n|---|---|")
    for row in check(arguments.device, arguments.seconds, arguments.out):
        print(f"| {row['part']} | {row['found']} |", flush=True)


if __name__ == "__main__":
    main()
