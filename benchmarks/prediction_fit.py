"""Fitting the factors of the prediction to published measurements.

Penalised least squares on the logarithm of the measured figures, by Gauss-Newton with a Huber loss:
every factor is ``exp(common + engine + vendor + engine on vendor)`` and each part has a prior around
0 (the common ones around what is known of the engines: a matrix product reads at 80% of the peak
bandwidth, a captured layer costs some 45 µs). Rows of one source, device, engine and metric are many
and alike, so each such group counts as at most 12 rows, and 40 of them are looked at.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from prediction_data import Observation

from profiler.analysis.predict.calibration import Calibration
from profiler.analysis.predict.serving import FACTORS, Kind, Load, nominal_steps, served
from profiler.analysis.predict.terms import Array

# By FACTORS: where a common factor is expected and how sure that is; how far engines, vendors and
# engines on a vendor may depart. All in logarithms except the first row.
EXPECTED = (1.25, 1.5, 1.35, 2.0, 4.0, 3.0, 0.5, 1.5, 1.0, 1.4, 0.9, 1.3, 3.0)
SURE = (0.1, 0.2, 0.2, 0.3, 0.15, 0.3, 0.4, 0.3, 0.2, 0.2, 0.1, 0.2, 0.5)
ENGINE = (0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.6, 0.3, 0.2, 0.1, 0.2, 0.7)
VENDOR = (0.08, 0.1, 0.1, 0.1, 0.25, 0.3, 0.3, 0.2, 0.3, 0.3, 0.05, 1e-4, 1e-4)
PAIR = (0.12, 0.15, 0.2, 0.2, 0.6, 0.6, 0.5, 0.5, 0.5, 0.4, 0.05, 1e-4, 1e-4)

NOISE = 0.25
HUBER = 1.5
ROWS_COUNTED = 12
ROWS_LOOKED_AT = 40
TTFT_WEIGHT = 0.3

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Table:
    """Observations as arrays, with their nominal steps."""

    observations: list[Observation]
    decode: Array
    prefill: Array
    running: Array
    prompt: Array
    output: Array
    users: Array
    kind: NDArray[np.str_]
    metric: NDArray[np.str_]
    measured: Array
    engines: list[str]
    vendors: list[str]
    pairs: list[tuple[str, str]]
    engine: Index
    vendor: Index
    pair: Index
    chip: NDArray[np.str_]
    source: NDArray[np.str_]

    @property
    def levels(self) -> int:
        """Groups of factors: the common one, engines, vendors, pairs."""
        return 1 + len(self.engines) + len(self.vendors) + len(self.pairs)


def tabulate(observations: list[Observation]) -> Table:
    """Return the observations as arrays; ``measured`` is in logarithms."""
    steps = [nominal_steps(one.deployment, load_of(one)) for one in observations]
    engine = [one.engine for one in observations]
    vendor = [one.deployment.hardware.vendor for one in observations]
    both = list(zip(engine, vendor, strict=True))
    engines, vendors, pairs = sorted(set(engine)), sorted(set(vendor)), sorted(set(both))
    return Table(
        observations,
        np.array([step.decode for step in steps]),
        np.array([step.prefill for step in steps]),
        np.array([step.running for step in steps]),
        np.array([one.prompt for one in observations]),
        np.array([one.output for one in observations]),
        np.array([one.users for one in observations]),
        np.array([one.kind for one in observations]),
        np.array([one.metric for one in observations]),
        np.log([one.value for one in observations]),
        engines,
        vendors,
        pairs,
        np.array([engines.index(name) for name in engine]),
        np.array([vendors.index(name) for name in vendor]),
        np.array([pairs.index(name) for name in both]),
        np.array([one.chip for one in observations]),
        np.array([one.source for one in observations]),
    )


def load_of(one: Observation) -> Load:
    """The load of an observation. Engines that say no limit run up to 256 sequences on an A100, else 1024."""
    kind: Kind = one.kind  # type: ignore[assignment]
    limit = one.limit
    if kind == "drain" and not limit:
        limit = 256.0 if one.device.startswith("a100") and one.engine == "vllm" else 1024.0
    return Load(kind, one.prompt, one.output, one.users, limit)


def predict_log(table: Table, parameters: Array, rows: Index) -> Array:
    """Logarithms of the predicted figures."""
    grid = parameters.reshape(table.levels, len(FACTORS))
    engines, vendors = len(table.engines), len(table.vendors)
    logs = (
        grid[0]
        + grid[1 + table.engine[rows]]
        + grid[1 + engines + table.vendor[rows]]
        + grid[1 + engines + vendors + table.pair[rows]]
    )
    factors = np.exp(logs)
    # The median gap between tokens sees few of the stalls that the mean sees.
    median_gap = (table.metric[rows] == "tpot_s") & (table.source[rows] == "mlenergy")
    factors[median_gap, FACTORS.index("interleave")] = 0.4
    one = served(
        table.kind[rows],
        table.decode[rows],
        table.prefill[rows],
        table.running[rows],
        factors,
        prompt=table.prompt[rows],
        output=table.output[rows],
        users=table.users[rows],
    )
    metric = table.metric[rows]
    names = ("output_tokens_per_s", "tpot_s", "ttft_s", "prefill_tokens_per_s")
    figures: list[Array] = [getattr(one, name) for name in names]
    predicted: Array = np.log(np.select([metric == name for name in names], figures))
    return predicted


def start(table: Table) -> Array:
    """Parameters before any data."""
    grid = np.zeros((table.levels, len(FACTORS)))
    grid[0] = np.log(EXPECTED)
    return grid.ravel()


def fit(table: Table, rows: Index, first: Array | None = None, rounds: int = 10) -> Array:
    """Return the parameters fitted to ``rows``, from ``first`` on."""
    rows = _thinned(table, rows)
    prior = start(table)
    groups = (
        [SURE] + [ENGINE] * len(table.engines) + [VENDOR] * len(table.vendors) + [PAIR] * len(table.pairs)
    )
    precision = 1 / np.concatenate([np.array(group) for group in groups]) ** 2
    weights = _weights(table, rows)
    parameters = prior if first is None else first.copy()
    damping = 1.0
    cost, residuals = _cost(table, parameters, rows, weights, prior, precision)
    for _ in range(rounds):
        jacobian = _jacobian(table, parameters, rows)
        bounded = weights * np.minimum(1.0, HUBER / np.maximum(np.abs(residuals), 1e-9))
        curvature = (jacobian * bounded[:, None]).T @ jacobian / NOISE**2 + np.diag(precision)
        slope = (jacobian * bounded[:, None]).T @ (residuals / NOISE) + (parameters - prior) * precision
        before = cost
        while damping < 1e8:
            tried = parameters - np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), slope)
            there, then = _cost(table, tried, rows, weights, prior, precision)
            if there < cost:
                parameters, cost, residuals = tried, there, then
                damping = max(damping / 4, 1e-4)
                break
            damping *= 4
        if before - cost < 1e-2:
            break
    return parameters


def _cost(
    table: Table, parameters: Array, rows: Index, weights: Array, prior: Array, precision: Array
) -> tuple[float, Array]:
    residuals = (predict_log(table, parameters, rows) - table.measured[rows]) / NOISE
    size = np.abs(residuals)
    loss = np.where(size < HUBER, size**2, 2 * HUBER * size - HUBER**2)
    return float((weights * loss).sum() + (precision * (parameters - prior) ** 2).sum()), residuals


def _jacobian(table: Table, parameters: Array, rows: Index) -> Array:
    """All levels of one factor act through the same sum, so one derivative per factor is enough."""
    width, step = len(FACTORS), 1e-4
    base = predict_log(table, parameters, rows)
    found = np.zeros((len(rows), table.levels * width))
    every = np.arange(len(rows))
    engines, vendors = len(table.engines), len(table.vendors)
    levels = (
        np.zeros(len(rows), int),
        1 + table.engine[rows],
        1 + engines + table.vendor[rows],
        1 + engines + vendors + table.pair[rows],
    )
    for place in range(width):
        moved = parameters.copy()
        moved[place] += step
        slope = (predict_log(table, moved, rows) - base) / step
        for level in levels:
            found[every, level * width + place] = slope
    return found


def _group(table: Table, row: int) -> tuple[str, ...]:
    one = table.observations[row]
    return one.source, one.chip, one.engine, one.metric


def _thinned(table: Table, rows: Index) -> Index:
    groups: dict[tuple[str, ...], list[int]] = {}
    for row in rows:
        groups.setdefault(_group(table, int(row)), []).append(int(row))
    order = np.random.default_rng(0)
    kept = [order.permutation(group)[:ROWS_LOOKED_AT] for group in groups.values()]
    return np.sort(np.concatenate(kept))


def _weights(table: Table, rows: Index) -> Array:
    groups = [_group(table, int(row)) for row in rows]
    sizes = Counter(groups)
    return np.array(
        [
            min(sizes[group], ROWS_COUNTED) / sizes[group] * (TTFT_WEIGHT if group[-1] == "ttft_s" else 1.0)
            for group in groups
        ]
    )


def factors_by_name(table: Table, parameters: Array, rows: Index) -> dict[str, dict[str, dict[str, float]]]:
    """The parameters as the calibration file holds them, of levels that ``rows`` show."""
    grid = parameters.reshape(table.levels, len(FACTORS))
    engines, vendors = len(table.engines), len(table.vendors)

    def named(level: int) -> dict[str, float]:
        return {name: round(float(grid[level, place]), 4) for place, name in enumerate(FACTORS)}

    seen = {(int(table.engine[row]), int(table.vendor[row]), int(table.pair[row])) for row in rows}
    return {
        "common": {"all": named(0)},
        "engines": {table.engines[e]: named(1 + e) for e in sorted({e for e, _, _ in seen})},
        "vendors": {table.vendors[v]: named(1 + engines + v) for v in sorted({v for _, v, _ in seen})},
        "pairs": {
            " on ".join(table.pairs[p]): named(1 + engines + vendors + p)
            for p in sorted({p for _, _, p in seen})
        },
    }


def ground(table: Table, row: int, train: Index) -> str:
    """What the training rows show of a row's engine and vendor, as the calibration puts it."""
    if (table.pair[train] == table.pair[row]).any():
        return "pair"
    return "engine" if (table.engine[train] == table.engine[row]).any() else "none"


__all__ = ["Calibration", "Table", "factors_by_name", "fit", "ground", "predict_log", "start", "tabulate"]
