"""Do the intervals within one load hold the truth? Coverage on simulated latencies and speeds.

    python benchmarks/load_intervals.py

Latencies are lognormal, their logarithms a first-order autoregression; speeds wander round 1 with the
correlation time of a request. The product's own functions make the intervals. Prints the table of
``docs/method.md``, "Loads".
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from profiler.measure.batch_means import MEAN_BATCHES, rate_interval_from_slices, request_mean_interval
from profiler.measure.stats import Estimate

LOADS = 1500
SEED = 20261123
PHIS = (0.0, 0.5, 0.9, 0.97)
STEPS_PER_REQUEST = 20


def autoregression(rng: np.random.Generator, n: int, phi: float) -> NDArray[np.float64]:
    """Return series of standard normal values, shape (LOADS, n), whose neighbours correlate by ``phi``."""
    noise = rng.standard_normal((LOADS, n))
    for i in range(1, n):
        noise[:, i] = phi * noise[:, i - 1] + math.sqrt(1 - phi * phi) * noise[:, i]
    return noise


def covered(found: list[Estimate], truth: float) -> float:
    """Return the share of intervals that hold the truth, in percent."""
    held = [one.interval is not None and one.interval.low <= truth <= one.interval.high for one in found]
    return 100 * sum(held) / len(held)


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(SEED)
    print("| figure | what is simulated | coverage % |\n|---|---|---|")
    for n in (100, 1000, 5000):
        shares = []
        for phi in PHIS:
            latencies = np.exp(0.5 * autoregression(rng, n, phi))
            shares.append(covered([request_mean_interval(row) for row in latencies], math.exp(0.125)))
        print(f"| mean | {n:,} requests, φ = {PHIS} | {', '.join(f'{one:.1f}' for one in shares)} |")
    shares = []
    for length in (0.5, 1.0, 2.0, 4.0):
        n = int(MEAN_BATCHES * length * STEPS_PER_REQUEST)
        speeds = 1 + 0.1 * autoregression(rng, n, math.exp(-1 / STEPS_PER_REQUEST))
        slices = speeds.reshape(LOADS, MEAN_BATCHES, -1).mean(axis=2)
        shares.append(covered([rate_interval_from_slices(float(row.mean()), row, 1) for row in slices], 1.0))
    print(f"| throughput | slices of 0.5, 1, 2, 4 requests | {', '.join(f'{one:.1f}' for one in shares)} |")


if __name__ == "__main__":
    main()
