"""Energy of random windows against the truth: aiprof, and Zeus where it is installed, on the same fakes.

Vendor libraries without hardware (tests/fakes) follow a power profile whose energy is known exactly. Both
tools read them at the same time, each with its own client code; begin and end of the windows are random. Zeus
reads its counter at both ends (``ZeusMonitor.begin_window`` and ``end_window``); its true window is taken
from the clock around these calls. aiprof cuts the windows out of what its sampler read. Nothing here is about
real hardware.

Zeus needs an environment of its own:  python -m venv zeus-venv && zeus-venv/bin/pip install zeus==0.16.0
then  python benchmarks/energy_truth.py --zeus zeus-venv/bin/python
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

LENGTHS_S = (0.1, 0.3, 1.0, 3.0)
MARGIN_S = 4.0
TICK_MS = {"NVIDIA": 100.0, "NVIDIA 20 ms": 20.0, "AMD": 50.0, "Ascend": 20.0}
COLUMNS = (
    "sensor", "tick ms", "window s", "windows", "no value", "aiprof RMS %", "median bound %",
    "inside bound %", "Zeus RMS %", "Zeus / aiprof",
)  # fmt: skip
ROOT = Path(__file__).resolve().parent.parent
WRAP_UJ = 262_143_328_850


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
    """Sample one source in a process that finds the fakes, print joules and bound of each window."""
    from profiler import registry
    from profiler.sensors.sampler import Sampler

    task = json.load(sys.stdin)
    source = registry.load("sensors", task["source"], **task["options"])
    infos = [info for info in source.probe() if info.unavailable is None and info.unit in ("J", "W")]
    counters = [info for info in infos if info.kind == "energy_counter"] or infos
    with Sampler(counters[:1], {source.name: source.options()}) as sampler:
        time.sleep(max(0.0, task["t0"] + task["seconds"] - time.monotonic()))
        answers = []
        for begin, end in task["windows"]:
            t0_ns, t1_ns = (round((task["t0"] + moment) * 1e9) for moment in (begin, end))
            energy = sampler.energy(
                counters[0].key, t0_ns, t1_ns, wait_s=0.0, widen=False, max_relative_bound=1e9
            )
            answers.append([energy.joules, energy.bound_j])
    print(json.dumps(answers))


def work(rng: random.Random, seconds: float) -> list[tuple[float, float]]:
    """Power of an accelerator under idle times, prefills and decodes with a ripple from step to step."""
    segments, now = [], 0.0
    while now < seconds:
        kind = rng.choice(("idle", "prefill", "decode", "decode"))
        end = now + {"idle": 0.6, "prefill": 0.4, "decode": 2.0}[kind] * rng.uniform(0.5, 1.5)
        if kind == "decode":
            step, low, high = rng.uniform(0.02, 0.06), rng.uniform(380, 450), rng.uniform(520, 600)
            while now < end:
                segments += [(now, high), (now + step * 0.6, low)]
                now += step
        else:
            segments.append((now, 75.0 if kind == "idle" else rng.uniform(620, 690)))
        now = end
    return segments


def stubs(package: Path, source: Path) -> str:
    """C functions that answer NOT_SUPPORTED for all that amdsmi binds and the fake does not have."""
    wanted = set(re.findall(r"_libraries\['libamd_smi.so'\]\.(\w+)", package.read_text()))
    there = set(re.findall(r"^int (\w+)\(", source.read_text(), re.MULTILINE))
    return "".join(f"int {name}(void) {{ return 2; }}\n" for name in sorted(wanted - there))


def rms(errors: list[float]) -> float:
    return float((sum(error * error for error in errors) / len(errors)) ** 0.5) if errors else float("nan")


def _compile(source: str, folder: Path, zeus: str | None) -> None:
    """Build the vendor library that ``source`` loads, where it loads one, into ``folder``."""
    from fakes.power import FAKES, compile_fake

    library = {"nvml": "libnvidia-ml.so.1", "amdsmi": "lib/libamd_smi.so", "dcmi": "libdcmi.so"}.get(source)
    flags: list[str] = []
    if source == "amdsmi" and zeus:
        find = "import importlib.util as u; print(u.find_spec('amdsmi').origin)"
        found = subprocess.run([zeus, "-c", find], capture_output=True, text=True, check=True)
        package = Path(found.stdout.strip()).with_name("amdsmi_wrapper.py")
        (folder / "stubs.inc").write_text(stubs(package, FAKES / "fake_amd_smi.c"))
        flags = [f'-DSTUBS="{folder / "stubs.inc"}"']
    if library:
        compiled = compile_fake(
            f"fake_{ {'amdsmi': 'amd_smi'}.get(source, source) }.c", folder / library, *flags
        )
        if compiled is None:
            raise SystemExit("the fakes need a C compiler (cc or gcc)")


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
    from fakes.power import FAKES, PowercapTree, Profile, write_config
    from machines import write, zone

    profile = Profile(work(rng, arguments.seconds + 5))
    wide = arguments.seconds - 2 * MARGIN_S
    windows = [
        [start := MARGIN_S + rng.random() * (wide - length), start + length * rng.uniform(0.8, 1.2)]
        for length in LENGTHS_S
        for _ in range(each)
    ]
    tick_ms = TICK_MS.get(name, 1.0)
    source = {"AMD": "amdsmi", "Ascend": "dcmi"}.get(name, "rapl" if name.startswith("RAPL") else "nvml")
    _compile(source, folder, arguments.zeus)
    (folder / "amdsmi").mkdir(exist_ok=True)
    (folder / "amdsmi" / "amdsmi.py").write_text((FAKES / "fake_amdsmi.py").read_text())
    config = folder / "fake.conf"
    t0 = time.monotonic() + 3.0
    gpu = {"gpus": 1, "cards": 1, "0.uuid": "GPU-11111111-1111-1111-1111-111111111111", "0.profile": profile}
    write_config(
        config, {"t0": repr(t0), **gpu, "0.update_ms": tick_ms, "0.jitter": 0.01, "0.pci": "0000:c1:00.0"}
    )
    options: dict[str, Any] = {}
    tree = None
    rapl_folder = ""
    if source == "amdsmi":
        from machines import amd_gpu

        amd_gpu(folder / "root", 0, "0000:c1:00.0", "0000000000000001")
        options = {"root": str(folder / "root")}
    elif source == "dcmi":
        options = {"library": str(folder / "libdcmi.so"), "npu_smi": "none"}
    elif source == "rapl":
        root = write(folder / "root", zone("intel-rapl:0", "package-0", 5))
        half = profile.joules(0.0, arguments.seconds / 2)
        first = WRAP_UJ - int(half * 1e6) if "wrap" in name else 5_000_000
        tree = PowercapTree(root, {"intel-rapl:0": (profile, first, WRAP_UJ)}, t0)
        options, rapl_folder = {"root": str(root)}, str(root / "sys/class/powercap")
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(folder),
        "FAKE_NVML_CONFIG": str(config),
        "FAKE_AMDSMI_CONFIG": str(config),
        "FAKE_DCMI_CONFIG": str(config),
        "ROCM_HOME": str(folder),
        "ROCM_PATH": str(folder),
    }
    ours_environment = {
        **environment,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{folder / 'amdsmi'}",
        "FAKE_AMDSMI_LIBRARY": str(folder / "lib/libamd_smi.so"),
    }
    task = {
        "source": source, "options": options, "t0": t0, "windows": windows, "seconds": arguments.seconds,
        "rapl": rapl_folder,
    }  # fmt: skip
    sides = {"ours": (sys.executable, ours_environment)}
    if arguments.zeus and source != "dcmi":
        sides["zeus"] = (arguments.zeus, environment)
    answers = _answers(name, sides, task, arguments.seconds)
    if tree is not None:
        tree.stop()
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
                str(len(own) - len(given)), f"{100 * rms(ours):.2f}",
                f"{100 * bounds[len(bounds) // 2]:.1f}" if bounds else "-",
                f"{100 * inside / max(1, len(given)):.1f}",
                f"{100 * rms(zeus):.2f}" if zeus else "-",
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
            for row in _rows(name, found):
                print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
