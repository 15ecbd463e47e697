"""The reads that the conductor has taken over from the sampler, by sensor."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from profiler.sensors.ticks import Series, series

Rows = np.ndarray[Any, np.dtype[np.int64]]


class History:
    """Reads of several sensors in the order made, each as (t_before_ns, t_after_ns, raw, failure).

    Args:
        keys: of the sensors.
        length_s: seconds of reads to keep.
    """

    def __init__(self, keys: Iterable[str], length_s: float) -> None:
        self._rows: dict[str, list[Rows]] = {key: [] for key in keys}
        self._length_ns = round(length_s * 1e9)

    def add(self, key: str, records: bytes) -> None:
        """Append records as they lie in the ring."""
        self._rows[key].append(np.frombuffer(records, dtype=np.int64).reshape(-1, 4))

    def series(self, key: str, t0_ns: int | None = None, t1_ns: int | None = None) -> Series:
        """Return the reads of a sensor, all or those between two moments; none of a key that is not known."""
        rows = self._rows.get(key)
        if rows is not None and len(rows) > 1:
            joined = np.concatenate(rows)
            rows[:] = [_since(joined, int(joined[-1, 1]) - self._length_ns)]
        reads = series(rows[0] if rows else [])
        if t0_ns is None and t1_ns is None:
            return reads
        return reads.between(t0_ns or 0, t1_ns if t1_ns is not None else time.monotonic_ns())

    def forget(self, before_ns: int) -> None:
        """Drop the reads that ended before a moment."""
        for rows in self._rows.values():
            if rows:
                rows[:] = [_since(np.concatenate(rows), before_ns)]

    @property
    def last_ns(self) -> int:
        """When the last read of any sensor ended; 0 where there is none."""
        ends = [int(rows[-1][-1, 1]) for rows in self._rows.values() if rows and len(rows[-1])]
        return max(ends, default=0)


def _since(rows: Rows, moment_ns: int) -> Rows:
    return rows[int(np.searchsorted(rows[:, 1], moment_ns)) :]
