"""What watching the box costs: decode tokens/s and time with the watch of a start on against off.

One worker decodes the same work all the time. In every other block the watch looks at the box before and
after, and glances at the worker between requests, as a sweep does. Pairs of blocks are on, off and off, on
by turns; each gives one ratio. Centre, interval and ``--append FILE`` as in ``sampler_effect.py``.

    python benchmarks/watch_cost.py --pairs 20
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from sampler_effect import ROOT, Decoder, centre, spread

WHAT = {"speed": "decode slower", "time": "time of a block longer"}


def measure(arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Return the logarithms of on over off for each pair, and the seconds of each look and glance."""
    from profiler.engines.process import WorkerProcess
    from profiler.measure.phase_energies import Run
    from profiler.measure.start_watch import StartWatch

    found: dict[str, list[float]] = {"speed": [], "time": [], "look_s": [], "glance_s": []}

    def watched(decoder: Decoder, pid: int) -> float:
        watch = StartWatch(on_cpu=True)

        def glance(done: dict[str, Any]) -> None:
            began = time.monotonic()
            watch.trial(Run(done["submit_ns"], done["first_token_ns"], done["last_token_ns"]))
            found["glance_s"].append(time.monotonic() - began)

        for look in (lambda: watch.begin(pid), None, watch.end):
            began = time.monotonic()
            if look is None:
                speed = decoder.block(arguments.seconds, glance)
            else:
                look()
                found["look_s"].append(time.monotonic() - began)
        return speed

    with (
        tempfile.TemporaryDirectory() as name,
        WorkerProcess(sys.executable, Path(name) / "worker.log") as worker,
    ):
        decoder = Decoder(worker, Path(name), 32, arguments.tokens, arguments.threads)
        decoder.block(5.0)
        for pair in range(arguments.pairs):
            speeds, times = {}, {}
            for on in (True, False) if pair % 2 == 0 else (False, True):
                began = time.monotonic()
                speed = watched(decoder, worker.pid) if on else decoder.block(arguments.seconds)
                # Blocks differ in the number of tokens; time per token is what can be compared.
                times[on] = (time.monotonic() - began) / decoder.tokens
                speeds[on] = speed
            found["speed"].append(math.log(speeds[False] / speeds[True]))
            found["time"].append(math.log(times[True] / times[False]))
    return found


def main() -> None:
    sys.path[:0] = [str(ROOT)]
    parser = argparse.ArgumentParser(description="Cost of watching the box.")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each block")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=0, help="of the worker; by default what it chooses")
    parser.add_argument("--append", type=Path, help="file of earlier pairs, to add to and to judge with")
    arguments = parser.parse_args()
    found = measure(arguments)
    if arguments.append:
        before = json.loads(arguments.append.read_text()) if arguments.append.exists() else {}
        found = {name: [*before.get(name, []), *values] for name, values in found.items()}
        arguments.append.write_text(json.dumps(found))
    print("| with the watch | pairs | half of the pairs within % | % | 95% interval | aim |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, words in WHAT.items():
        logs = found[name]
        cost = [100 * math.expm1(value) for value in centre(logs)]
        print(f"| {words} | {len(logs)} | {100 * spread(logs):.2f} | {cost[0]:.2f} "
              f"| {cost[1]:.2f} to {cost[2]:.2f} | upper end below 2 |")  # fmt: skip
    print(f"\na look takes {1e3 * median(found['look_s']):.1f} ms, a glance between trials "
          f"{1e6 * median(found['glance_s']):.0f} us (medians of {len(found['look_s'])} and "
          f"{len(found['glance_s'])})")  # fmt: skip


if __name__ == "__main__":
    main()
