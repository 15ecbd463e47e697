"""Random weights with numpy alone, bit for bit those of :mod:`random_weights` (which says how)."""

from __future__ import annotations

from typing import Any, Dict

import numpy as np

from .protocol import EngineError
from .weight_recipe import MAX_VALUES, MULTIPLIER_1, MULTIPLIER_2, STANDARD_DEVIATION, quantiles, tensor_key

_CHUNK = 1 << 16  # hashes per chunk: scratch buffers that stay in the second-level cache


class NumpyWeights:
    """Fills arrays.

    Args:
        seed: any integer; part of every tensor's key.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        exact = np.array(quantiles(), dtype=np.float64).astype(np.float32)
        self._tables: Dict[str, Any] = {
            "fp32": exact,
            "fp16": exact.astype(np.float16),
            "bf16": to_bf16(exact),
        }

    def fill(self, name: str, destination: Any, dtype: str) -> None:
        """Write the tensor ``name`` into ``destination``.

        Args:
            name: Hugging Face tensor name.
            destination: contiguous array of that tensor's size: float32, float16, or uint16 for bf16.
            dtype: ``fp32``, ``fp16`` or ``bf16``.

        Raises:
            EngineError: ``unsupported`` beyond 2^33 values, where the counter would repeat.
        """
        if name.endswith("norm.weight"):
            destination[...] = to_bf16(np.ones(1, np.float32)) if dtype == "bf16" else 1
            return
        self._fill(name, destination, self._tables[dtype])

    def fill_normal(self, name: str, destination: Any, deviation: float, mean: float = 0.0) -> None:
        """Write the same normal numbers with another deviation and mean, rounded to bf16.

        Args:
            name: as for :meth:`fill`, but norms are nothing special here.
            destination: contiguous array of float32.
            deviation: standard deviation.
            mean: mean.

        Raises:
            EngineError: as :meth:`fill`.
        """
        exact = np.array(quantiles(), dtype=np.float64) * (deviation / STANDARD_DEVIATION) + mean
        self._fill(name, destination, from_bf16(to_bf16(exact.astype(np.float32))))

    def _fill(self, name: str, destination: Any, table: Any) -> None:
        flat = destination.reshape(-1)
        if flat.size > MAX_VALUES:
            raise EngineError("unsupported", f"{name} has {flat.size} values, more than {MAX_VALUES}")
        key_0, key_1 = tensor_key(self._seed, name)
        counter = np.arange(_CHUNK, dtype=np.uint32)
        for start in range(0, flat.size, 2 * _CHUNK):
            part = flat[start : start + 2 * _CHUNK]
            index = _hash(counter, (start // 2 + key_0) & 0xFFFFFFFF, key_1)
            # Little-endian halves: the lower one belongs to the even index.
            part[:] = table[index.astype("<u4", copy=False).view("<u2")[: part.size]]


def _hash(counter: Any, first: int, key_1: int) -> Any:
    """Return the hashes of ``counter + first``, all modulo 2^32."""
    x = counter + np.uint32(first)
    x ^= x >> np.uint32(16)
    x *= np.uint32(MULTIPLIER_1)
    x += np.uint32(key_1)
    x ^= x >> np.uint32(15)
    x *= np.uint32(MULTIPLIER_2)
    x ^= x >> np.uint32(16)
    return x


def from_bf16(bits: Any) -> Any:
    """Return the float32 values of bits of bf16."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def to_bf16(values: Any) -> Any:
    """Return finite float32 values as the bits of bf16, rounded to nearest even."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(
        np.uint16
    )
