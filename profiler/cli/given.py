"""The runs that a user names: read, and left to no garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from pathlib import Path

from profiler.results.find import find_runs, is_run, read_runs, resolve_run
from profiler.results.read import Run, collection_paused


def given_path(text: str) -> Path:
    """Return the folder of runs, or the run, that is meant by a path or a name under ``./runs``.

    Raises:
        UsageError: there is none; names the nearest.
    """
    folder = Path(text)
    return folder if not is_run(folder) and find_runs(folder) else resolve_run(text)


def read_given(paths: Iterable[Path]) -> tuple[list[Run], list[str]]:
    """Read runs as ``profiler.results.load.read_runs`` does, for a process that soon ends.

    Raises:
        InputFileError: runs are damaged; names all of them.
    """
    with collection_paused():
        found = read_runs(paths)
        # Millions of objects without cycles, all needed to the end: going through them again and again
        # would take longer than what the command does with them.
        gc.freeze()
    return found
