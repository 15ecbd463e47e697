"""Request lengths drawn from the quantiles that a trace's publisher gave.

Between two published quantiles the logarithm of the length is linear in the probability, because
lengths spread over decades: for the traces of the shipped scenarios the means that follow are
within 5% of the published ones, against 9% for lengths linear in the probability. Beyond the
outermost quantiles the length is held at them: what lies there is not published, and a bounded
longest request lets a plan know the context that it needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from profiler.workload.stream import uniforms


@dataclass(frozen=True)
class Quantiles:
    """A distribution of token counts as published.

    Attributes:
        levels: probabilities in (0, 1), strictly rising.
        tokens: the length at each level, at least 1, never falling.
        mean: published mean, for reference only, or None.
    """

    levels: tuple[float, ...]
    tokens: tuple[int, ...]
    mean: float | None = None

    def __post_init__(self) -> None:
        if len(self.levels) != len(self.tokens) or not self.levels:
            raise ValueError("there must be as many token counts as levels, and at least one")
        if not all(0 < level < 1 for level in self.levels):
            raise ValueError("levels must lie between 0 and 1")
        if any(low >= high for low, high in zip(self.levels, self.levels[1:], strict=False)):
            raise ValueError("levels must rise")
        if any(low > high for low, high in zip(self.tokens, self.tokens[1:], strict=False)):
            raise ValueError("a higher quantile must not be shorter than a lower one")
        if self.tokens[0] < 1:
            raise ValueError("lengths must be at least 1 token")

    def at(self, probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the length at each probability, rounded half up to whole tokens."""
        logarithms = np.interp(probabilities, self.levels, np.log(self.tokens))
        return np.floor(np.exp(logarithms) + 0.5).astype(np.int64)

    @property
    def sampled_mean(self) -> float:
        """Mean of the distribution that :meth:`at` draws from, before rounding.

        Between the lengths a and b it is the logarithmic mean (b - a) / ln(b / a).
        """
        total = self.levels[0] * self.tokens[0] + (1 - self.levels[-1]) * self.tokens[-1]
        for index in range(len(self.levels) - 1):
            low, high = self.tokens[index : index + 2]
            between = low if low == high else (high - low) / float(np.log(high / low))
            total += (self.levels[index + 1] - self.levels[index]) * between
        return total


def sample_lengths(
    quantiles: Quantiles, count: int, *, scenario: str, seed: int, part: str
) -> NDArray[np.int64]:
    """Draw the lengths of ``count`` requests, each independent of the others.

    The probabilities are the uniforms (:func:`profiler.workload.stream.uniforms`) of the purpose
    ``"lengths"`` and the coordinates ``scenario, seed, part``; more requests with the same
    coordinates begin with the same lengths.

    Args:
        quantiles: what to draw from.
        count: requests.
        scenario: name of the scenario.
        seed: the user's seed.
        part: ``"prompt"`` or ``"output"``; each has its own stream, so the two are uncorrelated.
    """
    return quantiles.at(uniforms("lengths", scenario, seed, part, count=count))
