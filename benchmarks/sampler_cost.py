"""What sampling costs: CPU time of the sampler process at 100 reads per second and counter.

The counters are those of the fake NVML library (whose own work is included: it computes the energy of a
profile at every read) and files of a made-up powercap tree. The aim is 0.5 % of a core and 0.2 % per counter.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def running_ns(pid: int) -> int:
    """CPU time of all threads of a process, in nanoseconds; ``times()`` counts hundredths of a second."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def child(source_name: str, root: str, counters: int, seconds: float) -> None:
    """Sample in a process that finds the fake library; print CPU seconds per second and the largest gap."""
    import numpy as np

    from profiler import registry
    from profiler.sensors.sampler import Sampler

    options = {"root": root} if source_name == "rapl" else {}
    source = registry.load("sensors", source_name, **options)
    found = [info for info in source.probe() if info.kind == "energy_counter" and info.unavailable is None]
    if len(found) < counters:
        raise SystemExit(f"only {len(found)} of {counters} counters were found")
    with Sampler(found[:counters], {source_name: source.options()}) as sampler:
        assert sampler.pid is not None
        time.sleep(1.0)
        before_ns, begin_ns = running_ns(sampler.pid), time.monotonic_ns()
        time.sleep(seconds)
        after_ns, end_ns = running_ns(sampler.pid), time.monotonic_ns()
        reads = sampler.series(found[0].key, begin_ns, end_ns)
    share = (after_ns - before_ns) / (end_ns - begin_ns)
    gaps_ms = np.diff(reads.t_before_ns) * 1e-6
    print(share, len(reads) / seconds, float(np.quantile(gaps_ms, 0.99)), float(gaps_ms.max()))


def main() -> None:
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    parser = argparse.ArgumentParser(description="CPU time of the sampler process, on fakes.")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--counters", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, root, counters = arguments.child
        child(name, root, int(counters), arguments.seconds)
        return
    from fakes.power import compile_fake, write_config
    from machines import write, zone

    print("| source | counters | reads/s | % of a core | aim % | gap p99 ms | gap max ms |")
    print("|---|" + "---:|" * 6)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if compile_fake("fake_nvml.c", folder / "libnvidia-ml.so.1", "-DCONFIG_NEVER_CHANGES") is None:
            raise SystemExit("the fake NVML library needs a C compiler (cc or gcc)")
        config: dict[str, object] = {"t0": repr(time.monotonic()), "gpus": max(arguments.counters)}
        root = folder / "root"
        for at in range(max(arguments.counters)):
            config[f"{at}.uuid"] = f"GPU-{at + 1:08x}-1111-2222-3333-444444444444"
            config[f"{at}.profile"] = "0:300"
            write(root, zone(f"intel-rapl:{at}", f"package-{at}", 5_000_000))
        write_config(folder / "fake.conf", config)
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": str(folder),
            "FAKE_NVML_CONFIG": str(folder / "fake.conf"),
            "PYTHONPATH": str(ROOT),
        }
        for source in ("nvml", "rapl"):
            for counters in arguments.counters:
                command = [sys.executable, __file__, "--seconds", str(arguments.seconds)]
                done = subprocess.run(
                    [*command, "--child", source, str(root), str(counters)],
                    env=environment, capture_output=True, text=True, check=False,
                )  # fmt: skip
                if done.returncode != 0:
                    raise SystemExit(f"{source}: {done.stderr.strip().splitlines()[-1:]}")
                share, rate, p99, most = (float(word) for word in done.stdout.split())
                aim = 0.5 + 0.2 * counters
                print(f"| {source} | {counters} | {rate:.1f} | {100 * share:.2f} | {aim:.1f} "
                      f"| {p99:.1f} | {most:.1f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
