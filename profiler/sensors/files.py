"""Sensors that are a file with a number in it, as the kernel shows them in ``/sys``."""

from __future__ import annotations

import os
from pathlib import Path

from profiler.backends.base import Unavailable
from profiler.sensors.base import Read

_LONGEST = 64


def file_reader(path: Path, what: str, *, remedy: str = "") -> Read:
    """Return a function that reads an integer from ``path``.

    The file is opened anew every time: a descriptor that is kept goes on showing a device that is gone.

    Args:
        path: of the file.
        what: name of the quantity for messages.
        remedy: what to do when it may not be read.
    """
    name = os.fspath(path)

    def read() -> int | Unavailable:
        try:
            descriptor = os.open(name, os.O_RDONLY)
            try:
                return int(os.read(descriptor, _LONGEST))
            finally:
                os.close(descriptor)
        except PermissionError:
            return Unavailable("permission", f"{what} may not be read by this user", remedy)
        except FileNotFoundError:
            return Unavailable("lost", f"{what} has vanished")
        except OSError as error:
            return Unavailable("unreadable", f"{what} cannot be read ({error.strerror or error})")
        except ValueError:
            return Unavailable("unreadable", f"{what} shows no number")

    return read
