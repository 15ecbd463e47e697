"""Where the data folders of the checkout (``scenarios/``, ``reports/``) are found at run time."""

from __future__ import annotations

from pathlib import Path


def data_root(kind: str) -> Path:
    """Return the folder ``kind`` in every way of installing.

    In a wheel the folder is mapped into the package (``profiler/scenarios``); in a checkout and
    in an editable install it stands beside the package.

    Args:
        kind: ``"scenarios"`` or ``"reports"``.
    """
    package = Path(__file__).resolve().parent
    packaged = package / kind
    return packaged if packaged.is_dir() else package.parent / kind
