"""The benchmark of the predictions: the sources' traps, and that nothing leaks into a held-out device."""

from __future__ import annotations

import csv
import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prediction_data import Observation, power_rows, read
from prediction_fit import fit, predict_log, start, tabulate
from prediction_folds import bandwidth_guess, leave_out, quantiles, ranked, spread

DATA = Path(__file__).resolve().parents[2] / "benchmarks" / "data"
OBSERVATIONS, SKIPPED = read(DATA)


def rows_of(source: str) -> list[Observation]:
    return [one for one in OBSERVATIONS if one.source == source]


def near(values: set[float], wanted: float) -> float:
    return min(values, key=lambda value: abs(value - wanted))


def few(chips: tuple[str, ...], every: int = 12) -> list[Observation]:
    chosen = [
        one for one in OBSERVATIONS if one.chip in chips and one.source == "argonne_llm_inference_bench"
    ]
    return chosen[::every]


def test_only_rows_with_a_free_licence_ship() -> None:
    assert len(OBSERVATIONS) > 3000
    assert all("Apache-2.0" in one.licence or "BSD-3" in one.licence for one in OBSERVATIONS)
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 1_000_000


def test_argonne_counts_prompts_too_and_ours_do_not() -> None:
    """Its throughput is (in + out) * batch / latency, so one with equal lengths is twice ours."""
    with gzip.open(DATA / "argonne_llm_inference_bench.csv.gz", "rt") as file:
        rows = [row for row in csv.DictReader(file) if row["input_len"] == row["output_len"]]
    published = {float(row["value"]) for row in rows}
    ours = [one for one in rows_of("argonne_llm_inference_bench") if one.prompt == one.output]
    assert {(one.kind, one.metric) for one in ours} == {("static", "output_tokens_per_s")}
    # All but the means of figures that stand in several files of the source.
    assert sum(2 * one.value == pytest.approx(near(published, 2 * one.value)) for one in ours) > 0.9 * len(
        ours
    )


def test_what_must_not_be_used_is_left_out() -> None:
    assert SKIPPED["gpustack_performance_lab: metric that drains a queue"] > 0
    assert SKIPPED["gpustack_performance_lab: speculative decoding"] > 0
    assert SKIPPED["aiconfigurator_silicon: prefill and decode apart"] > 0
    assert all(one.kind != "drain" or one.metric == "output_tokens_per_s" for one in OBSERVATIONS)
    assert all(one.engine != "vllm-ascend" or one.users < 100 for one in OBSERVATIONS)
    assert not list(power_rows(OBSERVATIONS))


def test_a_held_out_device_does_not_reach_its_own_prediction() -> None:
    honest = few(("A100", "H100", "MI250"))
    lying = [replace(one, value=one.value * 7) if one.chip == "H100" else one for one in honest]
    held_out = []
    for observations in (honest, lying):
        table = tabulate(observations)
        residuals = leave_out(table, table.chip, start(table))
        h100 = table.chip == "H100"
        held_out.append(table.measured[h100] + residuals.error[h100])  # a rate: prediction = truth + error
    assert held_out[0] == pytest.approx(held_out[1])


def test_a_device_never_seen_is_predicted_within_the_target() -> None:
    table = tabulate(few(("A100", "H100", "MI250"), every=5))
    every = np.arange(len(table.observations))
    train, test = np.flatnonzero(table.chip != "A100"), np.flatnonzero(table.chip == "A100")
    known = test[np.isin(table.engine[test], table.engine[train])]
    error = np.abs(np.expm1(predict_log(table, fit(table, train), known) - table.measured[known]))
    assert len(known) > 50
    assert np.median(error) < 0.3
    guess = bandwidth_guess(table, table.chip)[known]
    assert np.median(error) < np.median(np.abs(np.expm1(guess - table.measured[known])))
    right, pairs = ranked(table, predict_log(table, fit(table, every), every), every)
    assert pairs > 0
    assert right / pairs > 0.9


def test_the_fit_finds_factors_that_made_the_data() -> None:
    table = tabulate(few(("A100", "H100"), every=8))
    truth = start(table)
    truth[:3] += np.array([0.1, -0.1, 0.15])
    every = np.arange(len(table.observations))
    made = replace(table, measured=predict_log(table, truth, every))
    found = predict_log(made, fit(made, every), every)
    assert np.abs(found - made.measured).max() < 0.05


def test_quantiles_count_every_device_the_same() -> None:
    error = np.concatenate([np.zeros(1000), np.ones(2)])
    chips = np.array(["often"] * 1000 + ["rare"] * 2)
    low, high = quantiles(error, chips, (0.2, 0.9))
    assert low == 0
    assert high == 1
    assert spread(np.ones(10), np.array(["one"] * 10)) > spread(np.ones(10), np.array(list("abcdefghij"))) > 1
