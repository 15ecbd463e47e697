"""Leaving devices or sources out: residuals, their quantiles, and the guess by bandwidth beside them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from prediction_data import Observation
from prediction_fit import Index, Table, fit, ground, predict_log

from profiler.analysis.predict.terms import Array
from profiler.models.accounting import decode_step_bytes

RATES = ("output_tokens_per_s", "tpot_s")
DEVICES_FOR_95 = 19
ROWS_FOR_A_SPREAD = 20
# Between 1/2 (independent errors of a known kind) and 1; chosen for the coverage on devices left out.
STRETCH = 0.75


@dataclass(frozen=True)
class Residuals:
    """What came out for rows whose device (or source) was left out of the fit.

    Attributes:
        error: ln(true / predicted time), rates turned round; nan where the fold had nothing to fit on.
        ground: what the fold's training rows showed of engine and vendor.
    """

    error: Array
    ground: NDArray[np.str_]


def leave_out(table: Table, groups: NDArray[np.str_], first: Array) -> Residuals:
    """Predict each group of rows with a fit on all others; ``first`` only starts the search."""
    error = np.full(len(groups), np.nan)
    seen = np.full(len(groups), "none", dtype="<U6")
    for group in sorted(set(groups)):
        test, train = np.flatnonzero(groups == group), np.flatnonzero(groups != group)
        if not len(train):
            continue
        parameters = fit(table, train, first, rounds=6)
        error[test] = time_sign(table)[test] * (table.measured[test] - predict_log(table, parameters, test))
        seen[test] = [ground(table, int(row), train) for row in test]
    return Residuals(error, seen)


def time_sign(table: Table) -> Array:
    """1 where a figure is a time, -1 where it is a rate, so that too slow has one sign for both."""
    return np.where(np.char.endswith(table.metric, "per_s"), -1.0, 1.0)


def group_of(one: Observation) -> str:
    """``served`` or ``llamacpp``."""
    return "llamacpp" if one.engine == "llamacpp" else "served"


def metric_of(one: Observation) -> str:
    """``rate`` or ``ttft``."""
    return "rate" if one.metric in RATES else "ttft"


def quantiles(error: Array, chips: NDArray[np.str_], levels: Iterable[float]) -> list[float]:
    """Quantiles in which every device counts the same, however many rows it has."""
    order = np.argsort(error)
    counts = {chip: int((chips == chip).sum()) for chip in set(chips)}
    weight = np.array([1 / counts[chip] for chip in chips])[order]
    position = (np.cumsum(weight) - weight / 2) / weight.sum()
    return [float(np.interp(level, position, error[order])) for level in levels]


def spread(error: Array, chips: NDArray[np.str_], share: float = 0.8) -> float:
    """Half the width of the interval in logarithms: it holds ``share`` of the errors, and more.

    Symmetric, because the side on which one device errs says little about the next one, and stretched by
    ``(1 + 1/m) ** 0.75`` for ``m`` devices, because the spread of few devices is itself hardly known.
    """
    (half,) = quantiles(np.abs(error), chips, (share,))
    widened: float = half * (1 + 1 / len(set(chips))) ** STRETCH
    return widened


def like_this(
    table: Table, residuals: Residuals, others: NDArray[np.bool_], key: str, seen: str
) -> NDArray[np.bool_]:
    """Rows of the same group and metric (``key``) that had seen as much."""
    keys = np.array([f"{group_of(one)} {metric_of(one)}" for one in table.observations])
    found: NDArray[np.bool_] = (
        others & ~np.isnan(residuals.error) & (keys == key) & (residuals.ground == seen)
    )
    return found


def basis_for(
    table: Table, residuals: Residuals, others: NDArray[np.bool_], key: str, seen: str
) -> NDArray[np.bool_]:
    """Rows whose errors stand for those of a prediction: like it, or failing enough of them less like it."""
    keys = np.array([f"{group_of(one)} {metric_of(one)}" for one in table.observations])
    usable = others & ~np.isnan(residuals.error)
    metric = np.char.endswith(keys, key.split()[1])
    exact = like_this(table, residuals, others, key, seen)
    for chosen in (exact, usable & (keys == key), usable & metric):
        if chosen.sum() >= ROWS_FOR_A_SPREAD:
            return chosen
    return usable


def covered(table: Table, residuals: Residuals, groups: NDArray[np.str_]) -> Array:
    """Half the width of each row's 80% interval, from the errors on the other groups only."""
    half = np.full(len(groups), np.nan)
    keys = np.array([f"{group_of(one)} {metric_of(one)}" for one in table.observations])
    for group in sorted(set(groups)):
        for key in sorted(set(keys[groups == group])):
            for seen in ("pair", "engine", "none"):
                mine = (groups == group) & (keys == key) & (residuals.ground == seen)
                if mine.any():
                    basis = basis_for(table, residuals, groups != group, key, seen)
                    half[mine] = spread(residuals.error[basis], table.chip[basis])
    return half


def bandwidth_guess(table: Table, groups: NDArray[np.str_]) -> Array:
    """Logarithms of what scaling by peak bandwidth makes of the other groups' rows.

    The nearest work that another group measured, scaled by the bandwidth of all devices: exactly the
    same work if there is such, else the same model and load, else the same kind of load, there also
    by the bytes of a step.
    """
    keys = [_likeness(one) for one in table.observations]
    reach = np.array([_reach(one) for one in table.observations])
    guess = np.full(len(groups), np.nan)
    by_key: list[dict[object, list[int]]] = [defaultdict(list) for _ in keys[0]]
    for row, levels in enumerate(keys):
        for level, key in enumerate(levels):
            by_key[level][key].append(row)
    for row, levels in enumerate(keys):
        for level, key in enumerate(levels):
            others = [other for other in by_key[level][key] if groups[other] != groups[row]]
            if not others:
                continue
            bytes_too = level == len(levels) - 1
            sign = 1.0 if "tokens" in table.metric[row] else -1.0
            scaled = [
                table.measured[other]
                + sign
                * (reach[row, 0] - reach[other, 0] - (reach[row, 1] - reach[other, 1] if bytes_too else 0))
                for other in others
            ]
            guess[row] = np.mean(scaled)
            break
    return guess


def _likeness(one: Observation) -> tuple[object, ...]:
    arch = str(one.deployment.architecture)
    return (
        (one.work, one.metric),
        (arch, one.kind, one.metric, one.engine, one.users, one.prompt, one.output),
        (arch, one.kind, one.metric, one.users),
        (one.kind, one.metric, one.users if one.kind != "drain" else 0),
        (one.kind, one.metric),
    )


def _reach(one: Observation) -> tuple[float, float]:
    bandwidth = one.deployment.hardware.memory_bandwidth_bytes_per_s
    assert bandwidth is not None
    ranks = one.deployment.parallel.tensor * one.deployment.parallel.data
    bytes_ = decode_step_bytes(one.deployment.architecture, one.deployment.formats, 1, 1).weights_read
    return float(np.log(bandwidth.value * ranks)), float(np.log(bytes_))


def ranked(table: Table, predicted: Array, rows: Index) -> tuple[int, int]:
    """Pairs of devices on the same work that differ by more than 30%: right, all."""
    by_work: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in rows:
        one = table.observations[int(row)]
        by_work[one.work, one.metric].append(int(row))
    right = total = 0
    for same in by_work.values():
        for place, first in enumerate(same):
            for second in same[place + 1 :]:
                if table.chip[first] == table.chip[second]:
                    continue
                truth = table.measured[first] - table.measured[second]
                if abs(truth) > np.log(1.3) and not np.isnan(predicted[[first, second]]).any():
                    total += 1
                    right += int(truth * (predicted[first] - predicted[second]) > 0)
    return right, total
