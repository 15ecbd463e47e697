"""Feed damaged input to every reader of aiprof for so many minutes each, and print what went wrong.

A reader may refuse input in its own way (an error with a line for the user); any other exception,
ten seconds of computing or two gigabytes of memory over one input is a finding. Findings become
regression tests of the reader.

    python benchmarks/fuzz_readers.py --minutes 10
    python benchmarks/fuzz_readers.py --minutes 10 runs safetensors
"""

from __future__ import annotations

import argparse
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LONGEST_S = 10.0
MOST_BYTES = 2 << 30
BATCH = 200


class TooSlowError(Exception):
    """One input took more than :data:`LONGEST_S` seconds of computing."""


@dataclass
class Outcome:
    """What came of the inputs tried so far.

    Attributes:
        tried: inputs.
        counts: how many were ``accepted``, ``refused`` or ``findings``.
        findings: by the place where it was raised, the last input that did it, with the traceback.
    """

    tried: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    findings: dict[str, str] = field(default_factory=dict)


def fuzz_once(target: Any, examples: int, outcome: Outcome | None = None) -> Outcome:
    """Attack one reader with so many inputs; findings are collected, so that none hides the next."""
    from hypothesis import HealthCheck, Phase, given, seed, settings

    seen = outcome or Outcome()

    def attack(case: Any) -> None:
        seen.tried += 1
        signal.setitimer(signal.ITIMER_PROF, LONGEST_S)
        try:
            target.read(case)
            seen.counts["accepted"] += 1
        except target.allowed:
            seen.counts["refused"] += 1
        except Exception as error:
            seen.counts["findings"] += 1
            seen.findings[_place(error)] = f"{case!r}\n{traceback.format_exc()}"
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    before = signal.signal(signal.SIGPROF, _too_slow)
    try:
        configured: Any = settings(
            max_examples=examples,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        run: Any = given(target.inputs)(attack)  # type: ignore[no-untyped-call]
        configured(seed(time.time_ns())(run))()
    finally:
        signal.signal(signal.SIGPROF, before)
    return seen


def fuzz(target: Any, minutes: float) -> Outcome:
    """Attack one reader for so many minutes, a little over to end a batch."""
    deadline, outcome = time.monotonic() + 60 * minutes, Outcome()
    while time.monotonic() < deadline:
        fuzz_once(target, BATCH, outcome)
    return outcome


def _place(error: Exception) -> str:
    """Where an exception was raised: its type, and the innermost line of aiprof."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/profiler/" in frame.filename]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "outside aiprof"
    return f"{type(error).__name__} at {where}"


def _too_slow(_: int, __: FrameType | None) -> None:
    raise TooSlowError


def main() -> None:
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    from fuzz_targets import TARGETS

    parser = argparse.ArgumentParser(description="Fuzz the readers of aiprof.")
    parser.add_argument(
        "readers", nargs="*", metavar="READER", help=f"of {', '.join(TARGETS)} (default: all)"
    )
    parser.add_argument("--minutes", type=float, default=0.05, help="per reader (default: 0.05)")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.readers) - set(TARGETS))
    if unknown:
        parser.error(f"unknown reader {', '.join(unknown)} (known: {', '.join(TARGETS)})")
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    print("| reader | minutes | inputs | accepted | refused | findings |")
    print("|---|---:|---:|---:|---:|---:|", flush=True)
    found = 0
    for name in arguments.readers or TARGETS:
        began = time.monotonic()
        seen = fuzz(TARGETS[name](), arguments.minutes)
        minutes = (time.monotonic() - began) / 60
        counts = f"{seen.counts['accepted']} | {seen.counts['refused']} | {len(seen.findings)}"
        print(f"| {name} | {minutes:.1f} | {seen.tried} | {counts} |", flush=True)
        for place, detail in seen.findings.items():
            print(f"\n{name}: {place}\n{detail[-6000:]}", file=sys.stderr, flush=True)
        found += len(seen.findings)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
