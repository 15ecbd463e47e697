"""The recipe of the random weights, without the arithmetic that fills tensors; standard library only.

See :mod:`random_weights` for the whole of it.
"""

from __future__ import annotations

import functools
import hashlib
import statistics

SCHEME = "aiprof-weights-1"
STANDARD_DEVIATION = 0.02
TABLE_SIZE = 1 << 16
MULTIPLIER_1 = 0x7FEB352D
MULTIPLIER_2 = 0x846CA68B
MAX_VALUES = 1 << 33  # beyond it the counter repeats


def tensor_key(seed: int, name: str) -> tuple[int, int]:
    """Return the two unsigned 32-bit keys of the tensor ``name`` under ``seed``."""
    digest = hashlib.sha256(f"{SCHEME}|{seed}|{name}".encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


@functools.lru_cache(maxsize=1)
def quantiles() -> tuple[float, ...]:
    """Return the 65,536 midpoint quantiles of N(0, 0.02), ascending, in double precision."""
    inverse = statistics.NormalDist().inv_cdf
    return tuple(STANDARD_DEVIATION * inverse((j + 0.5) / TABLE_SIZE) for j in range(TABLE_SIZE))
