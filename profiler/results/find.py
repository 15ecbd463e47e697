"""Where runs are: by path, by name, and all below a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal, TypeAlias

from profiler.errors import InputFileError, UsageError, nearest
from profiler.results.checksums import CHECKSUMS_FILE
from profiler.results.read import CASES_FILE, RUN_FILE, Run, read_run

RUNS_FOLDER: Final = Path("runs")

PathLike: TypeAlias = str | os.PathLike[str]
OnError: TypeAlias = Literal["raise", "skip"]


def read_runs(
    paths: PathLike | Iterable[PathLike], *, on_error: OnError = "raise"
) -> tuple[list[Run], list[str]]:
    """Read runs and folders of runs, each run once, in the order given.

    Returns:
        The runs, and one line for everything a reader should know about them (with
        ``on_error="skip"`` also why some were left out).

    Raises:
        InputFileError: runs are damaged or missing; names all of them.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', not {on_error!r}")
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    runs: dict[Path, Run] = {}
    messages: list[str] = []
    faults: list[str] = []
    for path in map(Path, given):
        found = find_runs(path)
        if not found:
            faults.append(f"{path}: {'holds no run' if path.is_dir() else 'no such folder'}")
        for folder in found:
            if folder.resolve() in runs:
                continue
            try:
                run = runs[folder.resolve()] = read_run(folder)
                messages += run.warnings
            except InputFileError as error:
                faults += error.faults
    if faults and on_error == "raise":
        raise InputFileError(faults)
    return list(runs.values()), messages + [f"{fault}; left out" for fault in faults]


def find_runs(path: Path) -> list[Path]:
    """Return ``path`` if it is a run, else the runs right below it by name; damaged ones count.

    Raises:
        InputFileError: the folder may not be read.
    """
    if is_run(path):
        return [path]
    try:
        return sorted(entry for entry in path.iterdir() if is_run(entry)) if path.is_dir() else []
    except OSError as error:
        raise InputFileError([f"{path}: cannot be read: {error.strerror}"]) from error


def is_run(path: Path) -> bool:
    """Whether ``path`` is a folder with any file of a run in it, so that damaged runs are not overlooked."""
    return path.is_dir() and any(
        os.path.lexists(path / name) for name in (RUN_FILE, CASES_FILE, CHECKSUMS_FILE)
    )


def resolve_run(text: str) -> Path:
    """Return the folder of the run that a user means by a path or a name under ``./runs``.

    Raises:
        UsageError: there is none; names the nearest.
    """
    given = Path(text)
    candidates = [given.parent if given.name == RUN_FILE else given, RUNS_FOLDER / given.name]
    for candidate in candidates if given.name == text else candidates[:1]:
        if is_run(candidate):
            return candidate
    known = [run.name for run in find_runs(RUNS_FOLDER)]
    what = "holds no run" if given.is_dir() else "no such run"
    raise UsageError(f"{text}: {what}{nearest(given.name, known)}; `aiprof runs` lists the runs")
