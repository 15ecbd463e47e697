"""Predictions against published measurements of devices and sources that the fit never saw.

    python benchmarks/prediction.py [--data FOLDER] [--by source]

The shipped rows are those with a free licence; FOLDER may hold more files of the same form. Nothing is
looked up: every row is predicted by a fit that has none of its device (or none of its source), and its
interval comes from the errors on other devices. Hyperparameters of the fit (how far an engine may depart
from the common factors) were chosen while looking at these tables, the factors were not.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from prediction_data import Observation, read
from prediction_fit import Index, Table, fit, tabulate
from prediction_folds import RATES, Residuals, bandwidth_guess, covered, leave_out, ranked, time_sign

from profiler.analysis.predict.memory import fit as fit_in_memory
from profiler.analysis.predict.terms import Array

SHIPPED = Path(__file__).resolve().parent / "data"
HEAD = f"{'':44}{'rows':>6}{'error':>8}{'covered':>9}{'guess':>8}{'ranked':>8}{'guess':>8}{'pairs':>7}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=SHIPPED, help="folder of CSV files [default: shipped rows]"
    )
    parser.add_argument("--by", choices=("device", "source", "both"), default="both")
    options = parser.parse_args()
    observations, skipped = read(options.data)
    observations = [one for one in observations if one.metric != "prefill_tokens_per_s"]
    table = tabulate(observations)
    print(
        f"{len(observations)} figures of {len(set(table.chip))} devices, "
        f"{sum(skipped.values())} rows left out"
    )
    first = fit(table, np.arange(len(observations)))
    if options.by in ("device", "both"):
        report(table, table.chip, leave_out(table, table.chip, first), "device")
    if options.by in ("source", "both"):
        report(table, table.source, leave_out(table, table.source, first), "source")
    memory(observations)


def report(table: Table, groups: NDArray[np.str_], residuals: Residuals, what: str) -> None:
    inside = np.abs(residuals.error) <= covered(table, residuals, groups)
    guess = bandwidth_guess(table, groups)
    print(
        f"\nLeave one {what} out; error: median of |prediction / truth - 1|; covered: truths inside the 80%"
    )
    print("interval; guess: error of scaling by bandwidth; ranked: pairs of devices that differ by > 30%")
    print(HEAD)
    rate = np.isin(table.metric, RATES)
    known = rate & (residuals.ground != "none")
    every = np.ones(len(groups), bool)
    for source in sorted(set(table.source)):
        for metric in sorted(set(table.metric[table.source == source])):
            _line(
                table,
                residuals,
                inside,
                guess,
                (table.source == source) & (table.metric == metric),
                f"{source[:26]} {metric}",
            )
    for chip in sorted(set(table.chip)):
        _line(table, residuals, inside, guess, known & (table.chip == chip), f"{chip}, engine known")
    for seen in ("pair", "engine", "none"):
        _line(
            table,
            residuals,
            inside,
            guess,
            rate & (residuals.ground == seen),
            f"tokens/s, TPOT; seen before: {seen}",
        )
    _line(table, residuals, inside, guess, known, "tokens/s, TPOT; engine known")
    _line(table, residuals, inside, guess, rate, "tokens/s, TPOT; all")
    _line(table, residuals, inside, guess, every & ~rate, "TTFT at known concurrency")
    wrong = -time_sign(table) * residuals.error
    medians = [
        float(np.median(np.abs(np.expm1(wrong[known & (table.chip == chip)]))))
        for chip in sorted(set(table.chip[known]))
    ]
    print(f"median over devices of their median error: {100 * float(np.median(medians)):.1f}%")


def _line(
    table: Table,
    residuals: Residuals,
    inside: NDArray[np.bool_],
    guess: Array,
    chosen: NDArray[np.bool_],
    name: str,
) -> None:
    rows: Index = np.flatnonzero(chosen & ~np.isnan(residuals.error))
    if not len(rows):
        return
    predicted = table.measured - time_sign(table) * residuals.error
    both = rows[~np.isnan(guess[rows])]
    error = np.abs(np.expm1(predicted[rows] - table.measured[rows]))
    other = np.abs(np.expm1(guess[both] - table.measured[both]))
    right, pairs = ranked(table, predicted, rows)
    guessed, _ = ranked(table, guess, rows)
    share = f"{right / pairs:8.0%}{guessed / pairs:8.0%}{pairs:7d}" if pairs else f"{'–':>8}{'–':>8}{0:7d}"
    beside = f"{float(np.median(other)):8.1%}" if len(both) else f"{'–':>8}"
    print(
        f"{name:44}{len(rows):6d}{float(np.median(error)):8.1%}{float(inside[rows].mean()):9.0%}{beside}{share}"
    )


def memory(observations: list[Observation]) -> None:
    """Every run that was published did fit; what was never run cannot be told from what nobody tried."""
    said = {"fits": 0, "does not fit": 0}
    impossible = 0
    for one in observations:
        found = fit_in_memory(one.deployment)
        fits = found.fits(1, max(int(one.prompt + one.output), 1))
        said["fits" if fits else "does not fit"] += 1
        memory = one.deployment.hardware.memory_bytes
        assert memory is not None
        if fits and found.weights_bytes > one.deployment.parallel.ranks * memory.value:
            impossible += 1
    print(
        f"\nMemory: of {len(observations)} runs that did run, {said['fits']} are said to fit; "
        f"{said['does not fit']} are not (careful reserves); 'fits' with more weights than memory: "
        f"{impossible}"
    )


if __name__ == "__main__":
    main()
