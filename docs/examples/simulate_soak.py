"""Write the simulated soak of the example page: a box that gets hot, and slows down a little.

    python docs/examples/simulate_soak.py FOLDER [SECONDS]

There is no such box. The `fake` engine takes real time, and the tests' stand-in for NVIDIA's library
(``tests/fakes/fake_nvml.c``, compiled with the C compiler of this machine) tells the power, temperature and
clock that are written below, so that the page shows what a soak looks like. Everything of it is marked as
simulated and says nothing about any part. Works from a source checkout only.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[2] / "tests"
sys.path.insert(0, str(TESTS))

from fakes.power import compile_fake, write_config  # noqa: E402

UUID = "GPU-00000001-1111-2222-3333-444444444444"
IDLE_W, BUSY_W = 71.0, 652.0
COOL_C, HOT_C = 38.0, 79.0
CLOCK_MHZ, HOT_CLOCK_MHZ = 1980, 1905
# Heating up, and how slow what is hot becomes.
TIME_CONSTANT_S = 25.0
# What an engine of this box would reach, as in the engine's own table of made-up boxes.
OPTIONS = {
    "read_bandwidth": 0.9 * 3.35e12,
    "matrix_flops": 0.65 * 989e12,
    "memory_bytes": 80e9,
    "overhead_s": 0.002,
    "drift": 0.00008,
    "real_time": "true",
}


class MadeUpBox(threading.Thread):
    """Tells the library, twice a second, the state of a box that works from ``run.json`` to the end.

    Args:
        config: file that the library reads.
        run: folder of the run; the box idles until the sweep has written its plan there.
    """

    def __init__(self, config: Path, run: Path) -> None:
        super().__init__(daemon=True)
        self._config, self._plan = config, run / "run.json"
        self._t0_s = time.monotonic()
        self._segments = [(0.0, IDLE_W)]
        self._busy_s: float | None = None
        self.ended = threading.Event()
        self._tell()

    def run(self) -> None:
        """Go on until ``ended`` is set."""
        while not self.ended.wait(0.5):
            self._tell()

    def _tell(self) -> None:
        now_s = time.monotonic() - self._t0_s
        if self._busy_s is None and self._plan.exists():
            self._busy_s = now_s
        heat = 0.0
        if self._busy_s is not None:
            heat = 1 - math.exp(-(now_s - self._busy_s) / TIME_CONSTANT_S)
            ripple = 9 * math.sin(now_s / 3.1) + 4 * math.sin(now_s * 1.7)
            # The next half second: what the counter has counted already must not change any more.
            self._segments.append((now_s + 0.05, BUSY_W + 18 * heat + ripple))
        profile = ",".join(f"{start:.3f}:{watts:.1f}" for start, watts in self._segments)
        clock = CLOCK_MHZ - (CLOCK_MHZ - HOT_CLOCK_MHZ) * max(0.0, heat - 0.5) * 2
        write_config(
            self._config,
            {
                "t0": repr(self._t0_s), "gpus": 1, "0.uuid": UUID, "0.name": "simulated H100-like device",
                "0.profile": profile, "0.update_ms": 100,
                "0.temperature": round(COOL_C + (HOT_C - COOL_C) * heat), "0.clock_mhz": round(clock),
            },
        )  # fmt: skip


def main(arguments: list[str]) -> int:
    """Soak the made-up box and return the exit code of the sweep."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    out, seconds = Path(arguments[0]), arguments[1] if len(arguments) > 1 else "120s"
    with tempfile.TemporaryDirectory() as folder:
        if compile_fake("fake_nvml.c", Path(folder, "libnvidia-ml.so.1")) is None:
            print("the stand-in for NVIDIA's library needs a C compiler (cc or gcc)", file=sys.stderr)
            return 2
        config = Path(folder, "fake.conf")
        box = MadeUpBox(config, out)
        box.start()
        options = [item for name, value in OPTIONS.items() for item in ("--engine-option", f"{name}={value}")]
        case = ("--model", "qwen2.5-7b", "--scenario", "decode-128", "--concurrency", "8")
        command = [sys.executable, "-m", "profiler", "sweep", "--engine", "fake", "--device", "cuda", *case]
        environment = os.environ | {"LD_LIBRARY_PATH": folder, "FAKE_NVML_CONFIG": str(config)}
        try:
            return subprocess.run(
                [*command, "--soak", seconds, *options, "--out", str(out)], env=environment, check=False
            ).returncode
        finally:
            box.ended.set()
            box.join()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
