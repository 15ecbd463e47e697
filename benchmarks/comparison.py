"""Do the verdicts of a comparison hold? Simulated boxes through the product's own functions, as Markdown.

    python benchmarks/comparison.py               # the tables of docs/method.md, about three minutes
    python benchmarks/comparison.py --runs 2000   # the same, coarser

Every simulated start has its own factor and twelve trials with noise of their own; true means are
known. Nothing in the comparison is calibrated, so there is no seed that it could have been fitted to.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from profiler.analysis.compare_statistics import FAMILY_ALPHA, LogDifference, holm, p_below, welch
from profiler.measure.distributions import student_t_quantile

Array = NDArray[np.float64]
Noise = Callable[[np.random.Generator, tuple[int, ...], float], Array]

SEED: Final = 20_261_126
TRIALS: Final = 12
TRIAL_CV: Final = 0.01
PHASES: Final = 3
THRESHOLD: Final = 0.03


def lognormal(rng: np.random.Generator, shape: tuple[int, ...], cv: float) -> Array:
    """Factors with mean 1 and coefficient of variation ``cv``."""
    sigma = math.sqrt(math.log1p(cv * cv))
    return np.exp(sigma * rng.standard_normal(shape) - sigma * sigma / 2)


def two_modes(rng: np.random.Generator, shape: tuple[int, ...], cv: float) -> Array:
    """Factors with mean 1 of starts of which one in five lands on a page placement that is slow."""
    slow = np.where(rng.random(shape) < 0.2, 1.0, 0.0)
    return 1 + cv / 0.4 * (slow - 0.2)


def trial_times(
    rng: np.random.Generator, runs: int, starts: int, cv: float, noise: Noise = lognormal
) -> Array:
    """Times of trials, shape ``(runs, starts, TRIALS)``, with true mean 1."""
    return noise(rng, (runs, starts, 1), cv) * lognormal(rng, (runs, starts, TRIALS), TRIAL_CV)


def differences(baseline: Array, candidate: Array) -> list[LogDifference]:
    """Compare every run of start means, shape ``(runs, starts)`` each, as the product does."""
    pairs = zip(np.log(baseline).tolist(), np.log(candidate).tolist(), strict=True)
    return [welch(left, right) for left, right in pairs]


def trials_as_replicates(baseline: Array, candidate: Array) -> float:
    """Share of runs called different when every trial counts as a replicate, in per cent."""
    left, right = (np.log(times).reshape(len(times), -1) for times in (baseline, candidate))
    variance = left.var(axis=1, ddof=1) / left.shape[1] + right.var(axis=1, ddof=1) / right.shape[1]
    t = np.abs(left.mean(axis=1) - right.mean(axis=1)) / np.sqrt(variance)
    return float(100 * np.mean(t > student_t_quantile(0.975, left.shape[1] + right.shape[1] - 2)))


def _head(title: str, columns: Sequence[str], text_columns: int = 0) -> None:
    print(f"\n#### {title}\n")
    print(f"| {' | '.join(columns)} |")
    print("|" + "---|" * text_columns + "---:|" * (len(columns) - text_columns))


def equal_boxes_table(runs: int) -> None:
    """One comparison of two boxes with the same true mean."""
    columns = (
        "starts A and B",
        "spread between starts, A and B %",
        "called different %",
        "interval covers the truth %",
        "median ±%",
        "called different with trials as replicates %",
    )
    _head(f"Two equal boxes, one comparison, {runs:,} runs per row", columns, 2)
    spreads = ((0.02, 0.02), (0.01, 0.04), (0.04, 0.01))
    rows: list[tuple[int, int, float, float, Noise]] = [
        (a, b, *cv, lognormal)
        for a, b in ((3, 3), (5, 5), (3, 5), (2, 2), (10, 10))
        for cv in (spreads if a != b else spreads[:2])
    ]
    rows += [(starts, starts, 0.02, 0.02, two_modes) for starts in (3, 5)]
    for number, (a, b, cv_a, cv_b, noise) in enumerate(rows):
        rng = np.random.default_rng([SEED, 1, number])
        left, right = trial_times(rng, runs, a, cv_a, noise), trial_times(rng, runs, b, cv_b, noise)
        found = differences(left.mean(axis=2), right.mean(axis=2))
        ends = [(d.low, d.high) for d in found if d.low is not None and d.high is not None]
        covered = sum(low <= 0 <= high for low, high in ends)
        half = np.median([math.expm1((high - low) / 2) for low, high in ends])
        shape = ", one start in five slow" if noise is two_modes else ""
        print(
            f"| {a} and {b} | {100 * cv_a:g} and {100 * cv_b:g}{shape} | {100 - 100 * covered / runs:.1f} "
            f"| {100 * covered / runs:.1f} | {100 * half:.1f} | {trials_as_replicates(left, right):.1f} |"
        )


def phase_means(rng: np.random.Generator, runs: int, cases: int, starts: int, cv: float) -> Array:
    """Start means of all phases, shape ``(runs, cases * PHASES, starts)``, with true means 1.

    Prefill and decode of a start share half of the variance of its factor; the whole is a quarter
    prefill and three quarters decode.
    """
    shape = (runs, cases, starts)
    common = lognormal(rng, shape, cv / math.sqrt(2))
    own = (common * lognormal(rng, shape, cv / math.sqrt(2)) for _ in range(2))
    # The mean of twelve independent trials.
    prefill, decode = (factor * lognormal(rng, shape, TRIAL_CV / math.sqrt(TRIALS)) for factor in own)
    whole = prefill / 4 + 3 * decode / 4
    return np.stack([prefill, decode, whole], axis=2).reshape(runs, cases * PHASES, starts)


def families(
    rng: np.random.Generator, runs: int, cases: int, starts: int, cvs: tuple[float, float], loss: float = 0.0
) -> list[list[LogDifference]]:
    """All comparisons of ``runs`` pairs of boxes; the candidate has lost ``loss`` of its speed everywhere."""
    left = phase_means(rng, runs, cases, starts, cvs[0])
    right = phase_means(rng, runs, cases, starts, cvs[1])
    tests = cases * PHASES
    # Logarithms of speeds, as in the product.
    flat = differences(
        1 / left.reshape(runs * tests, starts), (1 - loss) / right.reshape(runs * tests, starts)
    )
    return [flat[index : index + tests] for index in range(0, runs * tests, tests)]


def _p(difference: LogDifference) -> float:
    return 1.0 if difference.p_value is None else difference.p_value


def many_comparisons_table(runs: int) -> None:
    """How often any of many comparisons of two equal boxes asserts a difference."""
    columns = (
        "cases",
        "comparisons",
        "starts",
        "spread between starts, A and B %",
        "any called different, uncorrected %",
        "any called different, Holm %",
    )
    _head(f"Two equal boxes, many comparisons, {runs:,} pairs of boxes per row", columns)
    for cases in (6, 30):
        for starts in (3, 5):
            for cvs in ((0.02, 0.02), (0.01, 0.04)):
                rng = np.random.default_rng([SEED, 2, cases, starts, int(1e3 * cvs[0])])
                p_values = [[_p(d) for d in family] for family in families(rng, runs, cases, starts, cvs)]
                plain = sum(min(family) <= FAMILY_ALPHA for family in p_values)
                corrected = sum(min(holm(family)) <= FAMILY_ALPHA for family in p_values)
                print(
                    f"| {cases} | {cases * PHASES} | {starts} | {100 * cvs[0]:g} and {100 * cvs[1]:g} "
                    f"| {100 * plain / runs:.1f} | {100 * corrected / runs:.1f} |"
                )


def power_table(runs: int) -> None:
    """How often a true difference is found, alone or as the only one among many comparisons."""
    sizes, among = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0), (1, 18, 1500)
    columns = ["B faster by %"] + [f"{n} starts, among {m:,}" for n in (3, 5, 10) for m in among]
    title = f"How often a true difference is found, %, spread between starts 2%, {runs:,} runs per cell"
    _head(title, columns)
    for size in sizes:
        cells = []
        for starts in (3, 5, 10):
            rng = np.random.default_rng([SEED, 3, starts, int(1e3 * size)])
            left, right = (trial_times(rng, runs, starts, 0.02).mean(axis=2) for _ in range(2))
            p_values = [_p(d) for d in differences(1 / left, (1 + size) / right)]
            # The smallest of m p-values is held against the m-th part of alpha.
            cells += [f"{100 * np.mean([p * m <= FAMILY_ALPHA for p in p_values]):.0f}" for m in among]
        print(f"| {100 * size:g} | {' | '.join(cells)} |")


def threshold_table(runs: int, cases: int = 6) -> None:
    """How often ``--threshold 3%`` asserts a regression, by the true loss of speed in all cases."""
    tests = cases * PHASES
    columns = (
        "starts",
        "true loss of speed %",
        "any regression asserted %",
        "share of figures asserted %",
        "share of figures surely within %",
    )
    title = f"Threshold of {100 * THRESHOLD:g}%, {tests} comparisons, spread between starts 2%"
    _head(f"{title}, {runs:,} pairs of boxes per row", columns)
    bound = math.log1p(-THRESHOLD)
    for starts in (3, 5):
        for loss in (0.0, 0.02, 0.03, 0.1, 0.2):
            rng = np.random.default_rng([SEED, 4, starts, int(1e3 * loss)])
            asserted = any_asserted = within = 0
            for family in families(rng, runs, cases, starts, (0.02, 0.02), loss):
                p_values = [
                    p_below(d.difference, d.standard_error, d.df, bound) for d in family if d.df is not None
                ]
                count = sum(p <= FAMILY_ALPHA / 2 for p in holm(p_values))
                asserted, any_asserted = asserted + count, any_asserted + (count > 0)
                within += sum(d.low is not None and d.low >= bound for d in family)
            print(
                f"| {starts} | {100 * loss:g} | {100 * any_asserted / runs:.1f} "
                f"| {100 * asserted / runs / tests:.1f} | {100 * within / runs / tests:.1f} |"
            )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=20_000, help="simulated runs per cell (default 20000)")
    runs = parser.parse_args(argv).runs
    equal_boxes_table(runs)
    many_comparisons_table(runs)
    power_table(runs)
    threshold_table(runs)


if __name__ == "__main__":
    main()
