"""A reader under attack: what it is fed, and how it may refuse."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from profiler.errors import AiprofError


@dataclass(frozen=True)
class Target:
    """A reader under attack.

    Attributes:
        inputs: damaged input.
        read: hands one input to the reader; anything raised but ``allowed`` is a finding.
        allowed: how the reader says no.
    """

    inputs: st.SearchStrategy[Any]
    read: Callable[[Any], object]
    allowed: tuple[type[Exception], ...] = (AiprofError,)


@contextmanager
def new_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="aiprof-fuzz-") as name:
        yield Path(name)


def through_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], None]:
    def with_content(content: bytes) -> None:
        with new_folder() as folder:
            (folder / name).write_bytes(content)
            read(folder / name)

    return with_content
