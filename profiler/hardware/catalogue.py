"""Finding an accelerator by the name a person gives or the name a driver reports."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from profiler.errors import InputFileError, UsageError, unknown
from profiler.hardware.part import Hardware
from profiler.hardware.schema import HardwareFile
from profiler.yamlio import load_yaml

ENTRIES = Path(__file__).resolve().parent / "entries"

# What drivers write around the name of the part itself.
_NOISE = re.compile(r"\((r|tm)\)|®|™|graphics device|\baccelerator\b", re.IGNORECASE)


def catalogue() -> dict[str, Hardware]:
    """Return all parts that ship with aiprof by name, in the order of the files.

    Raises:
        InputFileError: a file of the catalogue has faults.
    """
    return dict(_catalogue())


@cache
def _catalogue() -> dict[str, Hardware]:
    return _by_name(sorted(ENTRIES.glob("*.yaml")), shipped=True)


def with_user_files(paths: Iterable[Path]) -> dict[str, Hardware]:
    """Return the catalogue with the parts of the user's files; on the same name the user's wins.

    Args:
        paths: YAML files, or folders whose ``*.yaml`` files are read.

    Raises:
        InputFileError: with the faults of all files.
    """
    files: list[Path] = []
    for path in paths:
        files += sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    return catalogue() | _by_name(files, shipped=False)


def _by_name(files: Iterable[Path], shipped: bool) -> dict[str, Hardware]:
    parts: dict[str, Hardware] = {}
    faults: list[str] = []
    for path in files:
        try:
            document = load_yaml(path, HardwareFile)
        except InputFileError as error:
            faults += error.faults
            continue
        for part in document.hardware(shipped):
            if part.name in parts:
                faults.append(f"{path}: parts: '{part.name}' is there twice")
            parts[part.name] = part
    if faults:
        raise InputFileError(faults)
    return parts


def get_hardware(name: str, parts: dict[str, Hardware] | None = None) -> Hardware:
    """Return the part that ``name`` stands for: its name, an alias or a driver's name, in any case.

    Args:
        name: what the user gave to ``--hardware``.
        parts: where to look; the catalogue by default.

    Raises:
        UsageError: no such part; the line names the nearest.
    """
    parts = catalogue() if parts is None else parts
    found = _spellings(parts).get(_plain(name)) or find_hardware(name, parts)
    if found is None:
        known = [spelling for part in parts.values() for spelling in (part.name, *part.aliases)]
        line = unknown("hardware", name, known).split(" (known:")[0]
        raise UsageError(f"{line}; `aiprof hardware` lists all, --hardware-file adds your own")
    return found


def find_hardware(reported: str, parts: dict[str, Hardware] | None = None) -> Hardware | None:
    """Return the part that a driver calls ``reported``, or None when the catalogue has none.

    Only the whole name counts, so that a variant that is not in the catalogue (``H100 NVL`` for
    ``H100``) is never taken for another one.

    Args:
        reported: for example ``NVIDIA H100 80GB HBM3``, ``AMD Instinct MI300X`` or ``Ascend910B3``.
        parts: where to look; the catalogue by default.
    """
    parts = catalogue() if parts is None else parts
    plain = _plain(reported)
    for part in parts.values():
        if plain in {_plain(name) for name in (*part.driver_names, part.title)}:
            return part
    return None


def _spellings(parts: dict[str, Hardware]) -> dict[str, Hardware]:
    """All names a user may type; a part's own name wins over another one's alias."""
    found: dict[str, Hardware] = {}
    for part in parts.values():
        for alias in part.aliases:
            found.setdefault(_plain(alias), part)
    for part in parts.values():
        found[_plain(part.name)] = part
    return found


def _plain(name: str) -> str:
    return re.sub(r"[\s_/,-]+", "-", _NOISE.sub("", name).strip().lower()).strip("-")
