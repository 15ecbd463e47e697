"""Energy of random windows against the truth: aiprof, and Zeus where it is installed, on the same fakes.

Vendor libraries without hardware (tests/fakes) follow a power profile whose energy is known exactly. Both
tools read them at the same time, each with its own client code; begin and end of the windows are random. Zeus
reads its counter at both ends (``ZeusMonitor.begin_window`` and ``end_window``); its true window is taken
from the clock around these calls. aiprof, in a process of its own, tells its sampler of both ends when they
come (``Sampler.mark``), as Zeus is told, and cuts the windows out of what the sampler read. Nothing here is
about real hardware. The fake counter of RAPL is a thread; it gets real-time priority where that is allowed,
since a real one ticks however busy the machine is.

Zeus needs an environment of its own:  python -m venv zeus-venv && zeus-venv/bin/pip install zeus==0.16.0
then  python benchmarks/energy_truth.py --zeus zeus-venv/bin/python
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from energy_fakes import ROOT, TICK_MS, stand_up, work

LENGTHS_S = (0.1, 0.3, 1.0, 3.0)
MARGIN_S = 4.0
COLUMNS = (
    "sensor", "tick ms", "window s", "windows", "no value", "aiprof RMS %", "median bound %",
    "inside bound %", "Zeus RMS %", "Zeus / aiprof",
)  # fmt: skip


def zeus_side() -> None:
    """Run under Zeus's interpreter: make the windows of standard input, print energy and true times."""
    import logging

    logging.disable(logging.CRITICAL)
    task = json.load(sys.stdin)
    if task["rapl"]:
        import_module("zeus.device.cpu.rapl").RAPL_DIR = task["rapl"]  # type: ignore[attr-defined]

    chosen: dict[str, Any] = {"gpu_indices": [], "cpu_indices": [0]} if task["rapl"] else {"cpu_indices": []}
    monitor = import_module("zeus.monitor").ZeusMonitor(**chosen)
    events = sorted(
        (moment, number, end)
        for number, window in enumerate(task["windows"])
        for end, moment in enumerate(window)
    )
    answers: list[list[float]] = [[] for _ in task["windows"]]
    for moment, number, end in events:
        time.sleep(max(0.0, task["t0"] + moment - time.monotonic()))
        before = time.monotonic()
        if end:
            found = monitor.end_window(str(number), sync_execution=False)
            joules = sum((found.cpu_energy if task["rapl"] else found.gpu_energy).values())
            answers[number].append(joules)
        else:
            monitor.begin_window(str(number), sync_execution=False)
        answers[number].append((before + time.monotonic()) / 2 - task["t0"])
    print("\n" + json.dumps(answers))
    sys.stdout.flush()
    for helper in multiprocessing.active_children():
        helper.kill()  # they would keep standard output open
    os._exit(0)


def ours_side() -> None:
    """Sample one source in a process that finds the fakes, print joules and bound of each window.

    The windows are those that were asked for, to the nanosecond; the sampler hears of their ends when this
    process has woken up.
    """
    from profiler import registry
    from profiler.sensors.sampler import Sampler

    task = json.load(sys.stdin)
    source = registry.load("sensors", task["source"], **task["options"])
    infos = [info for info in source.probe() if info.unavailable is None and info.unit in ("J", "W")]
    counters = [info for info in infos if info.kind == "energy_counter"] or infos
    edges = sorted(moment for window in task["windows"] for moment in window)
    with Sampler(counters[:1], {source.name: source.options()}) as sampler:
        for moment in (*edges, task["seconds"]):
            time.sleep(max(0.0, task["t0"] + moment - time.monotonic()))
            sampler.mark()
        answers = []
        for begin, end in task["windows"]:
            t0_ns, t1_ns = (round((task["t0"] + moment) * 1e9) for moment in (begin, end))
            energy = sampler.energy(
                counters[0].key, t0_ns, t1_ns, wait_s=0.0, widen=False, max_relative_bound=1e9
            )
            answers.append([energy.joules, energy.bound_j])
    print(json.dumps(answers))


def rms(errors: list[float]) -> float:
    return float((sum(error * error for error in errors) / len(errors)) ** 0.5) if errors else float("nan")


def _answers(
    name: str, sides: dict[str, tuple[str, dict[str, str]]], task: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """Give the same task to both tools at once and return what each answers."""
    running = {
        side: subprocess.Popen(
            [python, __file__, f"--side={side}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env=own,
        )
        for side, (python, own) in sides.items()
    }  # fmt: skip
    answers: dict[str, Any] = {}
    for process in running.values():
        assert process.stdin is not None
        process.stdin.write(json.dumps(task))
        process.stdin.close()
        process.stdin = None
    for side, process in running.items():
        out, problems = process.communicate(timeout=seconds + 120)
        lines = out.strip().splitlines()
        if process.returncode != 0 or not lines:
            raise SystemExit(f"{name}, {side}: {problems.strip().splitlines()[-1:]}")
        answers[side] = json.loads(lines[-1])
    return answers


class Answered(NamedTuple):
    """One window: its true energy and what each tool made of it.

    Attributes:
        length_s: what it was meant to be long.
        truth: joules of the window that aiprof was asked for.
        joules: aiprof's, or None.
        bound: aiprof's, or None.
        zeus_error: relative to the truth of Zeus's own window, or None.
    """

    length_s: float
    truth: float
    joules: float | None
    bound: float | None
    zeus_error: float | None


def measure(
    name: str, rng: random.Random, arguments: argparse.Namespace, folder: Path, each: int
) -> list[Answered]:
    """Run both tools over one profile, with ``each`` windows of every length."""
    from fakes.power import Profile

    profile = Profile(work(rng, arguments.seconds + 5))
    wide = arguments.seconds - 2 * MARGIN_S
    windows = [
        [start := MARGIN_S + rng.random() * (wide - length), start + length * rng.uniform(0.8, 1.2)]
        for length in LENGTHS_S
        for _ in range(each)
    ]
    t0 = time.monotonic() + 3.0
    stand = stand_up(name, profile, t0, arguments.seconds, folder, arguments.zeus)
    task = {
        "source": stand.source, "options": stand.options, "t0": t0, "windows": windows,
        "seconds": arguments.seconds, "rapl": stand.rapl,
    }  # fmt: skip
    sides = {"ours": (sys.executable, stand.ours)}
    if arguments.zeus and stand.source != "dcmi":
        sides["zeus"] = (arguments.zeus, stand.environment)
    answers = _answers(name, sides, task, arguments.seconds)
    if stand.tree is not None:
        stand.tree.stop()
        print(
            f"the counter stood still for at most {1e3 * stand.tree.longest_pause_s:.1f} ms", file=sys.stderr
        )
    zeus = answers.get("zeus", [None] * len(windows))
    return [
        Answered(
            LENGTHS_S[at // each],
            profile.joules(*window),
            ours[0],
            ours[1],
            None if theirs is None else theirs[1] / profile.joules(theirs[0], theirs[2]) - 1,
        )
        for at, (window, ours, theirs) in enumerate(zip(windows, answers["ours"], zeus, strict=True))
    ]


def _rows(name: str, found: list[Answered]) -> list[list[str]]:
    rows = []
    for length in LENGTHS_S:
        own = [one for one in found if one.length_s == length]
        given = [one for one in own if one.joules is not None and one.bound is not None]
        ours = [(one.joules or 0.0) / one.truth - 1 for one in given]
        bounds = sorted((one.bound or 0.0) / one.truth for one in given)
        inside = sum(abs((one.joules or 0.0) - one.truth) <= (one.bound or 0.0) for one in given)
        zeus = [one.zeus_error for one in own if one.zeus_error is not None]
        rows.append(
            [
                name, f"{TICK_MS.get(name, 1.0):g}", f"{length:g}", str(len(given)),
                str(len(own) - len(given)), f"{100 * rms(ours):.3f}",
                f"{100 * bounds[len(bounds) // 2]:.1f}" if bounds else "-",
                f"{100 * inside / max(1, len(given)):.1f}",
                f"{100 * rms(zeus):.3f}" if zeus else "-",
                f"{rms(zeus) / rms(ours):.1f}" if zeus else "-",
            ]
        )  # fmt: skip
    return rows


def main() -> None:
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    parser = argparse.ArgumentParser(description="Energy of random windows against the truth, on fakes.")
    parser.add_argument("--zeus", metavar="PYTHON", help="interpreter of an environment with Zeus 0.16")
    parser.add_argument("--seconds", type=float, default=40.0, help="length of each profile")
    parser.add_argument("--windows", type=int, default=1000, help="windows of each length")
    parser.add_argument("--profiles", type=int, default=1, help="spread the windows over so many profiles")
    parser.add_argument("--seed", type=int, default=20261123)
    parser.add_argument("--only", help="one of the sensors")
    parser.add_argument("--keep", type=Path, help="add the windows to this file, and tell of all in it")
    parser.add_argument("--side", choices=("ours", "zeus"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        (zeus_side if arguments.side == "zeus" else ours_side)()
        return
    if arguments.zeus:
        check = subprocess.run(
            [arguments.zeus, "-c", "import importlib.metadata as m, zeus; print(m.version('zeus'))"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if check.returncode != 0:
            raise SystemExit(f"{arguments.zeus} has no Zeus: {check.stderr.strip().splitlines()[-1:]}")
        print(f"Zeus {check.stdout.strip()}; seed {arguments.seed}; errors relative to the truth")
    else:
        print(f"Zeus is not there (--zeus PYTHON): aiprof alone; seed {arguments.seed}")
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---|" + "---:|" * 9)
    for name in ("NVIDIA", "NVIDIA 20 ms", "AMD", "RAPL", "RAPL with a wrap", "Ascend"):
        if arguments.only in (None, name):
            found: list[Answered] = []
            for number in range(arguments.profiles):
                rng, each = random.Random(arguments.seed + number), arguments.windows // arguments.profiles
                with tempfile.TemporaryDirectory() as folder:
                    found += measure(name, rng, arguments, Path(folder), each)
            if arguments.keep is not None:
                with arguments.keep.open("a") as file:
                    file.writelines(json.dumps([name, *one]) + "\n" for one in found)
                kept = (json.loads(line) for line in arguments.keep.read_text().splitlines())
                found = [Answered(*one[1:]) for one in kept if one[0] == name]
            for row in _rows(name, found):
                print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
