"""How often does the gate pass a box that is not good enough? Simulated starts through its own rule.

    python benchmarks/gate_errors.py               # the tables of docs/gate.md, a few seconds
    python benchmarks/gate_errors.py --runs 2000   # the same, coarser

A start is off by 2% of its own, a trial within it by 1%; the requirement is on a throughput.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from profiler.analysis.decision import Outcome, decide, start_bounds, starts_to_decide
from profiler.measure.stats import series_widths

Times = NDArray[np.float64]
START_CV, TRIAL_CV, TRIALS = 0.02, 0.01, 8
SEED = 20_261_124
RATE = 100.0  # tokens/s that the policy requires; a trial is one token's worth of work per second
RUNS = 20_000


@dataclass(frozen=True)
class Cell:
    """One setting of the simulation.

    Attributes:
        starts: fresh processes.
        short: how far the true throughput is below the limit; negative for above.
        confidence: of the policy.
        lognormal: lognormal instead of Gaussian spread between starts.
    """

    starts: int
    short: float
    confidence: float
    lognormal: bool = False

    def times(self, runs: int, seed: int = 0) -> Times:
        """Return start means of the time per trial, shape (runs, starts); their expectation is exact."""
        key = [SEED, seed, self.starts, int(1e4 * (self.short + 1)), int(1e4 * self.confidence)]
        rng = np.random.default_rng(key)
        truth = 1 / (RATE * (1 - self.short))
        between = START_CV * rng.standard_normal((runs, self.starts))
        if self.lognormal:
            sigma = math.sqrt(math.log1p(START_CV**2))
            between = np.exp(sigma * between / START_CV - sigma**2 / 2) - 1
        within = TRIAL_CV * rng.standard_normal((runs, self.starts, TRIALS)).mean(axis=2)
        times: Times = truth * (1 + between) * (1 + within)
        return times


def verdict(times: Sequence[float], confidence: float) -> Outcome:
    """Judge one run as the gate does: bounds of the mean time, turned into bounds of the rate."""
    low, high = start_bounds(times, confidence)
    return decide(1 / high, math.inf if low <= 0 else 1 / low, RATE, "higher")


def shares(outcomes: Iterable[Outcome]) -> dict[Outcome, float]:
    """Return how often each verdict came."""
    seen = list(outcomes)
    kinds: tuple[Outcome, ...] = ("pass", "fail", "undecided")
    return {kind: seen.count(kind) / len(seen) for kind in kinds}


def false_pass(cell: Cell, runs: int) -> float:
    """Return the share of runs that pass."""
    return shares(verdict(row, cell.confidence) for row in cell.times(runs).tolist())["pass"]


def main_table(runs: int, *, lognormal: bool = False) -> None:
    spread = "lognormal" if lognormal else "Gaussian"
    print(f"\n#### Verdicts, {spread} spread between starts, {runs:,} runs per cell\n")
    print("| starts | confidence % | stated false pass % | true throughput | pass % | fail % | undecided % |")
    print("|---:|---:|---:|---|---:|---:|---:|")
    for starts in (3, 5):
        for confidence in (0.95,) if lognormal else (0.9, 0.95, 0.99):
            for short in (0.0, 0.01, 0.02, -0.01, -0.02, -0.05):
                cell = Cell(starts, short, confidence, lognormal)
                found = shares(verdict(row, confidence) for row in cell.times(runs).tolist())
                stated = f"{100 * (1 - confidence):.0f}" if short >= 0 else "–"
                cells = " | ".join(f"{100 * share:.1f}" for share in found.values())
                print(f"| {starts} | {100 * confidence:g} | {stated} | {_where(short)} | {cells} |")


def _where(short: float) -> str:
    if short == 0:
        return "exactly at the limit"
    return f"{100 * abs(short):g}% {'below' if short > 0 else 'above'} the limit"


def several_table(runs: int) -> None:
    """Three requirements, all exactly at the limit and independent: lists of ``all`` and ``any``."""
    print(f"\n#### Three requirements exactly at the limit, confidence 95%, {runs:,} runs per cell\n")
    print("| starts | list | error shared | the list passes % |")
    print("|---:|---|---|---:|")
    for starts in (3, 5):
        draws = [Cell(starts, 0.0, 0.95).times(runs, seed).tolist() for seed in (1, 2, 3)]
        for kind, shared in (("all", False), ("any", True), ("any", False)):
            confidence = 1 - 0.05 / 3 if shared else 0.95
            passed = 0
            for rows in zip(*draws, strict=True):
                single = [verdict(row, confidence) == "pass" for row in rows]
                passed += all(single) if kind == "all" else any(single)
            note = "yes (as the gate does)" if shared else "not needed" if kind == "all" else "no, to compare"
            print(f"| {starts} | {kind} | {note} | {100 * passed / runs:.1f} |")


def one_start_table(runs: int) -> None:
    """Why one start does not count: its interval knows nothing of the other starts."""
    print(f"\n#### One start judged by its own interval, {runs:,} runs per cell\n")
    print("| trials | true throughput | pass % |")
    print("|---:|---|---:|")
    for trials in (TRIALS, 20):
        for short in (0.0, 0.01, 0.02):
            rng = np.random.default_rng([SEED, 9, trials, int(100 * short)])
            means = (1 + START_CV * rng.standard_normal((runs, 1))) / (RATE * (1 - short))
            widths = series_widths(means * (1 + TRIAL_CV * rng.standard_normal((runs, trials))))
            passed = 1 / (widths.mean + widths.half_width) >= RATE
            print(f"| {trials} | {_where(short)} | {100 * passed.mean():.1f} |")


def again_table(runs: int) -> None:
    """What a second try adds: undecided runs are measured again with the starts that the gate names."""
    print(f"\n#### Undecided, measured again with the starts that the gate names, {runs:,} runs per cell\n")
    print(
        "| starts at first | true throughput | pass at first % | pass at first or then % | mean starts then |"
    )
    print("|---:|---|---:|---:|---:|")
    for starts in (3, 5):
        for short in (0.0, 0.01, 0.02):
            cell = Cell(starts, short, 0.95)
            rng = np.random.default_rng([SEED, 7, starts, int(100 * short)])
            first = then = 0
            extra: list[int] = []
            for row in cell.times(runs, seed=4).tolist():
                outcome = verdict(row, 0.95)
                first += outcome == "pass"
                needed = starts_to_decide(row, 1 / RATE, 0.95) if outcome == "undecided" else None
                if needed is not None:
                    extra.append(needed)
                    scatter = math.hypot(START_CV, TRIAL_CV / math.sqrt(TRIALS))
                    again = (1 + scatter * rng.standard_normal(needed)) / (RATE * (1 - short))
                    then += verdict(again.tolist(), 0.95) == "pass"
            cells = f"{100 * first / runs:.1f} | {100 * (first + then) / runs:.1f} | {np.mean(extra):.0f}"
            print(f"| {starts} | {_where(short)} | {cells} |")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=RUNS, help=f"simulated runs per cell (default {RUNS})")
    runs = parser.parse_args(argv).runs
    main_table(runs)
    main_table(runs, lognormal=True)
    several_table(runs)
    one_start_table(runs)
    again_table(runs)


if __name__ == "__main__":
    main()
