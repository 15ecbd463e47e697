"""Memory shared between the sampler process and the conductor: one ring of reads per sensor.

An anonymous file, inherited by descriptor: it has no name that could be left behind, and it is gone
when both processes are. There is one writer and one reader. A record is written before the count that
makes it visible, and the reader drops what was overwritten while it was copying.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from collections.abc import Callable

_RECORD = 4  # t_before_ns, t_after_ns, raw, failure
_WORD = 8
_LAYOUT = struct.Struct("=4q")


class Ring:
    """Rings of ``capacity`` records for each of ``channels`` sensors, in an open file.

    Args:
        descriptor: of the file; see :func:`create`.
        channels: number of sensors.
        capacity: records that each keeps.
    """

    def __init__(self, descriptor: int, channels: int, capacity: int) -> None:
        self.capacity = capacity
        self._map = mmap.mmap(descriptor, size_bytes(channels, capacity))
        self._words = memoryview(self._map).cast("q")
        self._stride = 1 + capacity * _RECORD

    def writer(self, channel: int) -> Callable[[int, int, int, int], None]:
        """Return a function that appends (t_before_ns, t_after_ns, raw, failure) to one ring.

        The oldest record is overwritten when the ring is full. It runs a hundred times per second, so what
        can be worked out beforehand is.
        """
        words, memory, capacity = self._words, self._map, self.capacity
        place = channel * self._stride
        first = (place + 1) * _WORD
        pack, size = _LAYOUT.pack_into, _LAYOUT.size
        count = words[place]

        def write(t_before_ns: int, t_after_ns: int, raw: int, failure: int) -> None:
            nonlocal count
            pack(memory, first + count % capacity * size, t_before_ns, t_after_ns, raw, failure)
            count += 1
            words[place] = count

        return write

    def read(self, channel: int, since: int) -> tuple[int, bytes]:
        """Return (the count of all records so far, the records from number ``since`` on).

        Records that were overwritten before they could be read are missing at the front: there are as
        many in the answer as it has times 32 bytes.
        """
        base = channel * self._stride
        count = self._words[base]
        first = max(since, count - self.capacity)
        raw = b"".join(self._slices(base + 1, first, count))
        # What the writer may have been overwriting meanwhile, the record in progress included.
        torn = max(0, self._words[base] + 1 - self.capacity - first)
        return count, raw[torn * _RECORD * _WORD :]

    def _slices(self, start: int, first: int, count: int) -> list[bytes]:
        if first >= count:
            return []
        low, high = first % self.capacity, (count - 1) % self.capacity + 1
        spans = [(low, high)] if low < high else [(low, self.capacity), (0, high)]
        return [bytes(self._words[start + begin * _RECORD : start + end * _RECORD]) for begin, end in spans]

    def close(self) -> None:
        """Give the memory back."""
        self._words.release()
        self._map.close()


def size_bytes(channels: int, capacity: int) -> int:
    """Return the size of the file for so many rings."""
    return max(1, channels) * (1 + capacity * _RECORD) * _WORD


def create(channels: int, capacity: int) -> int:
    """Return the descriptor of a new zeroed file of the right size."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("aiprof-sampler")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size_bytes(channels, capacity))
    return descriptor
