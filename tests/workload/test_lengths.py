from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.workload.lengths import Quantiles, sample_lengths

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
CHAT = Quantiles(LEVELS, (181, 396, 1020, 1189, 2734, 4083, 4142), 1154.7)

QUANTILES = st.lists(st.integers(1, 100_000), min_size=7, max_size=7).map(
    lambda tokens: Quantiles(LEVELS, tuple(sorted(tokens)))
)


def test_golden_vector() -> None:
    lengths = sample_lengths(CHAT, 8, scenario="chat", seed=0, part="prompt")
    assert lengths.tolist() == [470, 368, 3694, 971, 1089, 516, 1045, 429]


def test_prompt_and_output_lengths_are_independent_streams() -> None:
    prompts = sample_lengths(CHAT, 20_000, scenario="chat", seed=0, part="prompt")
    outputs = sample_lengths(CHAT, 20_000, scenario="chat", seed=0, part="output")
    assert abs(np.corrcoef(prompts, outputs)[0, 1]) < 5 / math.sqrt(20_000)


@settings(max_examples=50)
@given(quantiles=QUANTILES, seed=st.integers(0, 2**40))
def test_samples_have_the_published_quantiles(quantiles: Quantiles, seed: int) -> None:
    count = 5000
    lengths = sample_lengths(quantiles, count, scenario="any", seed=seed, part="prompt")
    for level, tokens in zip(quantiles.levels, quantiles.tokens, strict=True):
        slack = 7 * math.sqrt(level * (1 - level) / count)
        # Rounding can move a length up to its neighbour, and ties sit on both sides.
        assert np.mean(lengths <= tokens) > level - slack
        assert np.mean(lengths < tokens) < level + slack
    assert lengths.min() >= quantiles.tokens[0]
    assert lengths.max() <= quantiles.tokens[-1]


@settings(max_examples=50)
@given(quantiles=QUANTILES, probabilities=st.lists(st.floats(0, 1), min_size=2))
def test_a_higher_probability_never_gives_a_shorter_length(
    quantiles: Quantiles, probabilities: list[float]
) -> None:
    lengths = quantiles.at(np.array(sorted(probabilities)))
    assert np.all(np.diff(lengths) >= 0)


@settings(max_examples=50)
@given(quantiles=QUANTILES)
def test_the_mean_that_is_stated_is_the_mean_that_is_drawn(quantiles: Quantiles) -> None:
    grid = (np.arange(100_000) + 0.5) / 100_000
    assert quantiles.sampled_mean == pytest.approx(quantiles.at(grid).mean(), rel=1e-3, abs=0.5)


def test_lengths_between_quantiles_are_geometric_and_held_beyond() -> None:
    quantiles = Quantiles((0.25, 0.75), (100, 400))
    assert quantiles.at(np.array([0.0, 0.25, 0.5, 0.75, 1.0])).tolist() == [100, 100, 200, 400, 400]


def test_more_requests_begin_with_the_same_lengths() -> None:
    few = sample_lengths(CHAT, 10, scenario="a", seed=3, part="output")
    many = sample_lengths(CHAT, 100, scenario="a", seed=3, part="output")
    assert many[:10].tolist() == few.tolist()


@pytest.mark.parametrize(
    ("levels", "tokens", "what"),
    [
        ((), (), "at least one"),
        ((0.5,), (1, 2), "as many"),
        ((0.0,), (1,), "between 0 and 1"),
        ((0.5, 0.5), (1, 2), "rise"),
        ((0.9, 0.5), (1, 2), "rise"),
        ((0.5, 0.9), (2, 1), "not be shorter"),
        ((0.5,), (0,), "at least 1 token"),
    ],
)
def test_what_is_no_distribution_is_refused(
    levels: tuple[float, ...], tokens: tuple[int, ...], what: str
) -> None:
    with pytest.raises(ValueError, match=what):
        Quantiles(levels, tokens)
