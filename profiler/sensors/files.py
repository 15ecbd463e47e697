"""Sensors that are a file with a number in it, as the kernel shows them in ``/sys``."""

from __future__ import annotations

import os
import time
from pathlib import Path

from profiler.backends.base import Unavailable
from profiler.sensors.base import Read

_LONGEST = 64
# A descriptor that is kept goes on showing a device that is gone, for as long as it is kept. It saves two
# of three system calls.
_KEEP_NS = 500_000_000


def file_reader(path: Path, what: str, *, remedy: str = "") -> Read:
    """Return a function that reads an integer from ``path``.

    The file is opened anew twice per second, and after every read that failed.

    Args:
        path: of the file.
        what: name of the quantity for messages.
        remedy: what to do when it may not be read.
    """
    return _File(os.fspath(path), what, remedy).read


class _File:
    def __init__(self, name: str, what: str, remedy: str) -> None:
        self._name = name
        self._what = what
        self._remedy = remedy
        self._descriptor = -1
        self._until_ns = 0

    def __del__(self) -> None:
        self._close()

    def read(self) -> int | Unavailable:
        try:
            now_ns = time.monotonic_ns()
            if now_ns >= self._until_ns:
                self._close()
                self._descriptor = os.open(self._name, os.O_RDONLY | os.O_CLOEXEC)
                self._until_ns = now_ns + _KEEP_NS
            return int(os.pread(self._descriptor, _LONGEST, 0))
        except (OSError, ValueError) as error:
            self._until_ns = 0
            return self._refusal(error)

    def _refusal(self, error: OSError | ValueError) -> Unavailable:
        if isinstance(error, PermissionError):
            return Unavailable("permission", f"{self._what} may not be read by this user", self._remedy)
        if isinstance(error, FileNotFoundError):
            return Unavailable("lost", f"{self._what} is not there")
        if isinstance(error, OSError):
            return Unavailable("unreadable", f"{self._what} cannot be read ({error.strerror or error})")
        return Unavailable("unreadable", f"{self._what} shows no number")

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
