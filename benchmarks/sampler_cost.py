"""What sampling costs: CPU time of the sampler process at 100 reads per second and counter.

The counters are those of the fake NVML library (whose own work is included: it computes the energy of a
profile at every read) and files of a made-up powercap tree. The aim is 0.5 % of a core and 0.2 % per counter.

What a marked edge costs beyond that is measured on the files, where a thread moves the counters every
millisecond: the CPU time of the sampler with marks less that without, and how long the caller takes for one.
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


MARKS_PER_S = 10


def marking(root: str, counters: int, seconds: float) -> None:
    """Sample counters that tick; print CPU µs of the sampler, its reads and µs of the caller per mark."""
    import numpy as np

    from profiler import registry
    from profiler.sensors.sampler import Sampler

    source = registry.load("sensors", "rapl", root=root)
    found = [info for info in source.probe() if info.kind == "energy_counter" and info.unavailable is None]
    taken_ns, used_ns, reads = [], [], []
    with Sampler(found[:counters], {"rapl": source.options()}) as sampler:
        assert sampler.pid is not None
        time.sleep(1.0)
        for marked in (False, True):
            before_ns, begin_ns = running_ns(sampler.pid), time.monotonic_ns()
            for _ in range(round(seconds * MARKS_PER_S)):
                time.sleep(1 / MARKS_PER_S)
                if marked:
                    called_ns = time.monotonic_ns()
                    sampler.mark()
                    taken_ns.append(time.monotonic_ns() - called_ns)
            used_ns.append(running_ns(sampler.pid) - before_ns)
            reads.append(len(sampler.series(found[0].key, begin_ns, time.monotonic_ns())))
    count = len(taken_ns)
    print((used_ns[1] - used_ns[0]) / count * 1e-3, (reads[1] - reads[0]) / count,
          float(np.median(taken_ns)) * 1e-3)  # fmt: skip


def main() -> None:
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    parser = argparse.ArgumentParser(description="CPU time of the sampler process, on fakes.")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--counters", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, root, counters = arguments.child
        if name == "marks":
            marking(root, int(counters), arguments.seconds)
            return
        child(name, root, int(counters), arguments.seconds)
        return
    from fakes.power import PowercapTree, Profile, compile_fake, write_config
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
                share, rate, p99, most = _measured(source, root, counters, arguments.seconds, environment)
                aim = 0.5 + 0.2 * counters
                print(f"| {source} | {counters} | {rate:.1f} | {100 * share:.2f} | {aim:.1f} "
                      f"| {p99:.1f} | {most:.1f} |", flush=True)  # fmt: skip
        profile = Profile([(0.0, 300.0)])
        zones = {f"intel-rapl:{at}": (profile, 5_000_000, 2**40) for at in range(max(arguments.counters))}
        tree = PowercapTree(root, zones, time.monotonic(), urgent=True)
        print("\n| counters | CPU µs per mark | reads per mark | µs of the caller |\n|---:|---:|---:|---:|")
        for counters in arguments.counters:
            used, reads, taken = _measured("marks", root, counters, arguments.seconds, environment)
            print(f"| {counters} | {used:.0f} | {reads:.0f} | {taken:.0f} |", flush=True)
        tree.stop()


def _measured(
    what: str, root: Path, counters: int, seconds: float, environment: dict[str, str]
) -> list[float]:
    """Return what a child prints."""
    command = [sys.executable, __file__, "--seconds", str(seconds)]
    done = subprocess.run(
        [*command, "--child", what, str(root), str(counters)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"{what}: {done.stderr.strip().splitlines()[-1:]}")
    return [float(word) for word in done.stdout.split()]


if __name__ == "__main__":
    main()
