"""Every error a user can meet, with the exit code it leads to.

The tree::

    AiprofError                 70  a bug in aiprof unless a subclass says otherwise
    ├── UsageError               2  a flag, name or selector that cannot be used
    ├── InputFileError           2  a file that cannot be read, with every fault in it
    ├── ResumeRefusedError            2  the run on disk was made under other conditions
    ├── MeasurementError        1  a case failed, or its result could not be written
    └── NothingMeasuredError          4  no device, no engine, or no case that could run

A message is one line: what, where, what to do. Only ``profiler/cli`` prints and exits.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class AiprofError(Exception):
    """Base of all errors that aiprof raises on purpose."""

    exit_code = 70


class UsageError(AiprofError):
    """The command line asks for something that does not exist or does not fit."""

    exit_code = 2


class InputFileError(AiprofError):
    """A file is not what it should be; carries all faults found, not only the first.

    Attributes:
        faults: one line per fault, each starting with ``file:line:`` where known.
    """

    exit_code = 2

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


class ResumeRefusedError(AiprofError):
    """A run cannot be continued because something that shapes its results has changed."""

    exit_code = 2


class MeasurementError(AiprofError):
    """Measuring went wrong in a way that ends the sweep, with everything finished so far kept."""

    exit_code = 1


class NothingMeasuredError(AiprofError):
    """There is nothing on this box that could be measured as asked."""

    exit_code = 4


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known name, or an empty string."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    # Half a name is more likely meant than a whole one of similar spelling (fp8: fp8-block128, not fp32).
    matches = sorted(
        (candidate for candidate in by_lower if len(name) > 1 and candidate.startswith(name.lower())),
        key=lambda candidate: (len(candidate), candidate),
    )
    matches = matches or difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f"; did you mean '{by_lower[matches[0]]}'?" if matches else ""


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """One line for an unknown name: what it should have been, the nearest, and all of them."""
    names = sorted(known)
    return f"unknown {what} '{name}'{nearest(name, names)} (known: {', '.join(names) or 'none'})"
