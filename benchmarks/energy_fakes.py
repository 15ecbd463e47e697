"""The fakes that energies are held against: power whose energy is known exactly, and what serves it."""

from __future__ import annotations

import os
import random
import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

TICK_MS = {"NVIDIA": 100.0, "NVIDIA 20 ms": 20.0, "AMD": 50.0, "Ascend": 20.0}
ROOT = Path(__file__).resolve().parent.parent
WRAP_UJ = 262_143_328_850


def work(rng: random.Random, seconds: float) -> list[tuple[float, float]]:
    """Power of an accelerator under idle times, prefills and decodes with a ripple from step to step."""
    segments, now = [], 0.0
    while now < seconds:
        kind = rng.choice(("idle", "prefill", "decode", "decode"))
        end = now + {"idle": 0.6, "prefill": 0.4, "decode": 2.0}[kind] * rng.uniform(0.5, 1.5)
        if kind == "decode":
            step, low, high = rng.uniform(0.02, 0.06), rng.uniform(380, 450), rng.uniform(520, 600)
            while now < end:
                segments.append((now, high))
                if now + step * 0.6 < end:
                    segments.append((now + step * 0.6, low))
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


class Stand(NamedTuple):
    """A fake that runs, and how each tool finds it.

    Attributes:
        source: of aiprof's sensors.
        options: of that source.
        rapl: powercap folder for Zeus, or "".
        environment: of Zeus's process.
        ours: of aiprof's process.
        tree: keeps the counters of the powercap files up to date, or None.
    """

    source: str
    options: dict[str, Any]
    rapl: str
    environment: dict[str, str]
    ours: dict[str, str]
    tree: Any


def stand_up(name: str, profile: Any, t0: float, seconds: float, folder: Path, zeus: str | None) -> Stand:
    """Set up the fake ``name`` in a folder, following ``profile`` for so many seconds from ``t0`` on.

    Args:
        name: a key of :data:`TICK_MS`, or a kind of RAPL.
        profile: of the power.
        t0: CLOCK_MONOTONIC in seconds.
        seconds: length of the profile.
        folder: for its files.
        zeus: interpreter that has Zeus, or None without it.
    """
    from fakes.power import FAKES, write_config

    source = {"AMD": "amdsmi", "Ascend": "dcmi"}.get(name, "rapl" if name.startswith("RAPL") else "nvml")
    _compile(source, folder, zeus)
    (folder / "amdsmi").mkdir(exist_ok=True)
    (folder / "amdsmi" / "amdsmi.py").write_text((FAKES / "fake_amdsmi.py").read_text())
    config = folder / "fake.conf"
    write_config(
        config,
        {
            "t0": repr(t0), "gpus": 1, "cards": 1, "0.uuid": "GPU-11111111-1111-1111-1111-111111111111",
            "0.profile": profile, "0.update_ms": TICK_MS.get(name, 1.0), "0.jitter": 0.01,
            "0.pci": "0000:c1:00.0",
        },
    )  # fmt: skip
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(folder),
        "FAKE_NVML_CONFIG": str(config),
        "FAKE_AMDSMI_CONFIG": str(config),
        "FAKE_DCMI_CONFIG": str(config),
        "ROCM_HOME": str(folder),
        "ROCM_PATH": str(folder),
    }
    ours = {
        **environment,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{folder / 'amdsmi'}",
        "FAKE_AMDSMI_LIBRARY": str(folder / "lib/libamd_smi.so"),
    }
    options, rapl, tree = _files(name, source, profile, t0, seconds, folder)
    return Stand(source, options, rapl, environment, ours, tree)


def _files(
    name: str, source: str, profile: Any, t0: float, seconds: float, folder: Path
) -> tuple[dict[str, Any], str, Any]:
    """Return options of the source, Zeus's powercap folder and what moves the counters in it."""
    from fakes.power import PowercapTree
    from machines import amd_gpu, write, zone

    root = folder / "root"
    if source == "amdsmi":
        amd_gpu(root, 0, "0000:c1:00.0", "0000000000000001")
        return {"root": str(root)}, "", None
    if source == "dcmi":
        return {"library": str(folder / "libdcmi.so"), "npu_smi": "none"}, "", None
    if source == "rapl":
        write(root, zone("intel-rapl:0", "package-0", 5))
        half = profile.joules(0.0, seconds / 2)
        first = WRAP_UJ - int(half * 1e6) if "wrap" in name else 5_000_000
        tree = PowercapTree(root, {"intel-rapl:0": (profile, first, WRAP_UJ)}, t0, urgent=True)
        return {"root": str(root)}, str(root / "sys/class/powercap"), tree
    return {}, "", None
