"""Weights of the fidelity check with numpy alone; see :mod:`fidelity_weights` for what they are."""

from __future__ import annotations

from typing import Any, Dict, Tuple

import numpy as np

from .fidelity_weights import recipe
from .numpy_weights import NumpyWeights, to_bf16


def after_recipe(name: str, shape: Tuple[int, ...], weights: NumpyWeights, arch: Dict[str, Any]) -> Any:
    """Return a tensor of the fidelity check in float32; its values are numbers of bf16."""
    made, values = recipe(name, shape, arch), np.empty(shape, np.float32)
    weights.fill_normal(name, values, made.deviation, made.mean)
    if made.rows is not None:
        values *= np.array(made.rows, np.float32).reshape(-1, *[1] * (len(shape) - 1))
    return values


class NumpyFidelity:
    """Fills arrays as :class:`numpy_weights.NumpyWeights` does.

    Args:
        seed: of the random numbers.
        architecture: fields of ``Architecture`` as JSON.
    """

    def __init__(self, seed: int, architecture: Dict[str, Any]) -> None:
        self._weights, self._architecture = NumpyWeights(seed), architecture

    def fill(self, name: str, destination: Any, dtype: str) -> None:
        """Write the tensor ``name`` into ``destination``: float32, float16, or uint16 for bf16."""
        values = after_recipe(name, tuple(destination.shape), self._weights, self._architecture)
        destination[...] = to_bf16(values) if dtype == "bf16" else values
