"""Does the warm-up rule see what is there? Series with known faults, other rules on them, recorded series.

    python benchmarks/steady_state.py                # the tables of docs/method.md, a few minutes on one core
    python benchmarks/steady_state.py --runs 50      # the same, coarser

Its seeds are not those of benchmarks/ci_coverage.py, nor those on which the rule was chosen.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ci_coverage import Series, unit_noise

from profiler.measure.stats import LOOKS, mean_interval
from profiler.measure.steady import WarmUp, flags_after
from profiler.measure.stop import LEAST_MEASURED_S, decide

SEED = 20_261_125
BUDGET_S = 20.0
RECORDED = Path(__file__).parent / "data" / "recorded_trials.json"

Kind = tuple[str, Callable[[Series, np.random.Generator], Series], float]


@dataclass(frozen=True)
class Case:
    """One series through warm-up and stop rule.

    Attributes:
        warm_up: times of its trials.
        measured: times of the trials after it.
        out_of_time: whether warm-up used up its time.
        flagged: whether the rule in use flags it.
        low, high: interval of the mean.
    """

    warm_up: Series
    measured: Series
    out_of_time: bool
    flagged: bool
    low: float
    high: float


def one_case(times: Series) -> Case:
    """Warm up, measure until sure at a target of 2%, check afterwards, as the product does."""
    warm_up = WarmUp(BUDGET_S)
    for seconds in times:
        if warm_up.add(float(seconds)) != "warming":
            break
    used = len(warm_up.times)
    looks = [n for n in LOOKS if used + n <= len(times)]
    for n in looks:
        decision = decide(times[used : used + n], 0.02, 0.0 if n == looks[-1] else None)
        if decision.stop:
            break
    n = decision.estimate.n
    while used + n < len(times) and times[used : used + n].sum() < LEAST_MEASURED_S:
        n += 1
    found = mean_interval(times[used : used + n])
    assert found.low is not None
    assert found.high is not None
    measured = times[used : used + found.n]
    flags = flags_after(warm_up, [float(t) for t in measured], found.relative_half_width)
    return Case(times[:used], measured, warm_up.status != "steady", bool(flags), found.low, found.high)


def geweke(case: Case) -> bool:
    """First 40% against last 40% of all trials but the first, variance widened by AR(1), beyond 2."""
    kept = np.concatenate([case.warm_up[1:], case.measured])
    part = max(2, round(0.4 * len(kept)))
    first, last = kept[:part], kept[-part:]
    residuals = kept - kept.mean()
    rho = float(residuals[1:] @ residuals[:-1]) / float(residuals @ residuals) + 2 / len(kept)
    rho = min(0.8, max(0.0, rho))
    variance = (first.var(ddof=1) + last.var(ddof=1)) / part * (1 + rho) / (1 - rho)
    return case.out_of_time or abs(first.mean() - last.mean()) > 2 * math.sqrt(variance)


def mser(case: Case) -> bool:
    """Whether MSER (White 1997), on as many warm-up as measured trials, would cut into the measured ones."""
    kept = case.warm_up[1:][-len(case.measured) :]
    series = np.concatenate([kept, case.measured])
    scores = [
        np.square(series[d:] - series[d:].mean()).mean() / len(series[d:]) for d in range(len(series) // 2)
    ]
    return case.out_of_time or int(np.argmin(scores)) > len(kept)


RULES: dict[str, Callable[[Case], bool]] = {
    "in use": lambda case: case.flagged,
    "Geweke": geweke,
    "MSER": mser,
    "none": lambda case: False,
}


def _step(at: int, size: float) -> Callable[[Series, np.random.Generator], Series]:
    return lambda noise, _: 1 + size * (np.arange(noise.shape[1]) >= at) + 0 * noise


def _approach(size: float, constant: float) -> Callable[[Series, np.random.Generator], Series]:
    return lambda noise, _: 1 + size * np.exp(-np.arange(noise.shape[1]) / constant) + 0 * noise


def _bimodal(noise: Series, rng: np.random.Generator) -> Series:
    """Two speeds 5% apart; each trial keeps the one before with probability 0.7."""
    state = rng.random(len(noise)) < 0.5
    levels = np.empty(noise.shape)
    for i in range(noise.shape[1]):
        state ^= rng.random(len(noise)) >= 0.7
        levels[:, i] = 1 + 0.05 * state
    return levels


def _outliers(noise: Series, rng: np.random.Generator) -> Series:
    return np.ones(noise.shape) + 0.3 * (rng.random(noise.shape) < 0.05)


# What happens, in trials of 2 s, and the level that a user would get from then on.
KINDS: tuple[Kind, ...] = (
    ("steady", _step(0, 0.0), 1.0),
    ("fast warm-up: 30%, 1 trial", _approach(0.3, 1.0), 1.0),
    ("slow warm-up: 5%, 5 trials", _approach(0.05, 5.0), 1.0),
    ("slow warm-up: 10%, 5 trials", _approach(0.1, 5.0), 1.0),
    ("slow, faster first: -5%, 5 trials", _approach(-0.05, 5.0), 1.0),
    ("5% slower from trial 3", _step(3, 0.05), 1.05),
    ("5% slower from trial 8", _step(8, 0.05), 1.05),
    ("5% slower from trial 12", _step(12, 0.05), 1.05),
    ("drift of 0.5% per trial", lambda noise, _: 1 + 0.005 * np.arange(noise.shape[1]) + 0 * noise, math.nan),
    ("two speeds, 5% apart", _bimodal, 1.025),
    ("one trial in 20 is 30% late", _outliers, 1.015),
)  # fmt: skip


def kinds_table(runs: int, cv: float, phi: float) -> None:
    print(f"\n#### Known faults: trials of 2 s, CV {100 * cv:g}%, AR {phi:g}, {runs:,} runs per row\n")
    names = " | ".join(f"{rule}: flagged % | wrong, unflagged %" for rule in RULES)
    print(f"| series | {names} |\n|---|" + "---:|" * (2 * len(RULES)))
    for number, (name, shape, truth) in enumerate(KINDS):
        rng = np.random.default_rng([SEED, int(1e4 * cv), int(100 * phi), number])
        noise = unit_noise(runs, 36, phi, rng)
        cases = [one_case(row) for row in 2 * shape(noise, rng) * (1 + cv * noise)]
        cells = []
        for rule in RULES.values():
            flagged = np.array([rule(case) for case in cases])
            wrong = np.array([not case.low <= 2 * truth <= case.high for case in cases])
            missed = "-" if math.isnan(truth) else f"{100 * np.mean(wrong & ~flagged):.1f}"
            cells.append(f"{100 * flagged.mean():.1f} | {missed}")
        print(f"| {name} | " + " | ".join(cells) + " |")


def recorded_table() -> None:
    """Recorded series, begun at several moments; the truth is the mean of all but the first third or 20."""
    print("\n#### Recorded series\n")
    columns = (
        "series", "trials", "foreign CPU %", "CV %", "lag-1 autocorrelation", "cut into", "flagged",
        "covers the mean of all", "unflagged and wrong",
    )  # fmt: skip
    print(f"| {' | '.join(columns)} |\n|---|" + "---:|" * 8)
    sums = np.zeros(4, dtype=int)
    for series in json.loads(RECORDED.read_text())["series"]:
        times = np.array(series["seconds"])
        settled = times[min(20, len(times) // 3) :]
        deviation = settled - settled.mean()
        rho = float(deviation[1:] @ deviation[:-1]) / float(deviation @ deviation)
        # Trials are made as long as 2 s, so that the rule sees blocks of one trial.
        scaled = times * (2.0 / settled.mean())
        pieces = [scaled[at : at + 36] for at in range(0, max(1, len(scaled) - 35), 18)]
        cases = [one_case(piece) for piece in pieces]
        covers = [case.low <= 2.0 <= case.high for case in cases]
        flagged = [case.flagged for case in cases]
        bad = sum(not (c or f) for c, f in zip(covers, flagged, strict=True))
        sums += (len(cases), sum(flagged), sum(covers), bad)
        foreign = series["foreign_cpu_share"]
        shown = "–" if foreign is None else f"{100 * foreign:.0f}"
        cells = (
            series["name"], len(times), shown, f"{100 * settled.std() / settled.mean():.1f}", f"{rho:.2f}",
            len(cases), sum(flagged), sum(covers), bad,
        )  # fmt: skip
        print(f"| {' | '.join(map(str, cells))} |")
    print("| all | | | | | " + " | ".join(map(str, sums)) + " |")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000, help="simulated runs per row (default 1000)")
    parser.add_argument("--recorded", action="store_true", help="the table of recorded series only")
    arguments = parser.parse_args(argv)
    runs = 0 if arguments.recorded else arguments.runs
    for cv, phi in ((0.01, 0.0), (0.01, 0.5), (0.02, 0.3)) if runs else ():
        kinds_table(runs, cv, phi)
    recorded_table()


if __name__ == "__main__":
    main()
