"""Reproducible random numbers that anyone can compute again: SHAKE-256 over named coordinates.

The stream of a purpose and its coordinates is the output of SHAKE-256 (FIPS 202) over the bytes of

    ["aiprof",GENERATOR_VERSION,"<purpose>",<coordinate>,...]

as JSON without spaces, in ASCII (other characters escaped as RFC 8259 has it, in lower case),
coordinates being integers and strings. Different purposes or coordinates give independent streams,
and a longer read of a stream starts with the shorter one.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
from numpy.typing import NDArray

GENERATOR_VERSION = 1
"""Raised whenever the same coordinates would give other numbers; part of every ``workload_id``."""


def stream(purpose: str, *coordinates: int | str, count: int) -> bytes:
    """Return the first ``count`` bytes of the stream of ``purpose`` and ``coordinates``.

    Raises:
        ValueError: ``count`` is negative.
    """
    if count < 0:
        raise ValueError(f"cannot read {count} bytes")
    name = json.dumps(["aiprof", GENERATOR_VERSION, purpose, *coordinates], separators=(",", ":"))
    return hashlib.shake_256(name.encode("ascii")).digest(count)


def uniforms(purpose: str, *coordinates: int | str, count: int) -> NDArray[np.float64]:
    """Return ``count`` numbers, uniform over [0, 1).

    Each is 8 bytes of the stream as a little-endian integer, shifted right by 11 bits and divided
    by 2**53.
    """
    words = np.frombuffer(stream(purpose, *coordinates, count=8 * count), dtype="<u8")
    return np.asarray((words >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


def numpy_generator(purpose: str, *coordinates: int | str) -> np.random.Generator:
    """Return NumPy's PCG64 generator, seeded with 16 bytes of the stream as a little-endian integer."""
    seed = int.from_bytes(stream(purpose, *coordinates, count=16), "little")
    return np.random.Generator(np.random.PCG64(seed))
