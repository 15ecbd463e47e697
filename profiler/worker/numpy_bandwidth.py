"""How fast the CPU reads memory, with numpy and threads: a probe for engines without PyTorch."""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, Dict, List

import numpy as np

METHOD = "sum of float32 in 1 MiB pieces, one thread per core (numpy)"
_PIECE = 1 << 18  # values
_SECONDS = 0.1


def read_bandwidth(minimum_bytes: int, repeats: int, threads: int) -> Dict[str, Any]:
    """Read a buffer larger than the caches again and again.

    Args:
        minimum_bytes: of the buffer.
        repeats: values wanted; each takes about 0.1 s.
        threads: that read at once, each its own part.

    Returns:
        ``bytes_per_s`` (one per repeat), ``method``, ``buffer_bytes``.
    """
    pieces = max(2, -(-max(minimum_bytes, 256 << 20) // (4 * _PIECE * threads)))
    # Written, because memory that was only reserved is read from one cached page of zeros.
    parts = [np.ones((pieces, _PIECE), np.float32) for _ in range(threads)]
    size = sum(part.nbytes for part in parts)

    def read(passes: int) -> float:
        return _together([_reader(part, passes) for part in parts])

    read(1)
    passes = max(1, round(_SECONDS / read(1)))
    values = [size * passes / read(passes) for _ in range(repeats)]
    return {"bytes_per_s": values, "method": METHOD, "buffer_bytes": size}


def _reader(part: Any, passes: int) -> Callable[[], None]:
    def work() -> None:
        for _ in range(passes):
            for piece in part:
                np.add.reduce(piece)  # without the interpreter's lock

    return work


def _together(works: List[Callable[[], None]]) -> float:
    """Run all at once and return the seconds until the last one is done."""
    threads = [threading.Thread(target=work) for work in works]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start
