"""Narrow terminals get fewer columns, never half figures."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from profiler.render.fit import fit


def shown(width: int) -> tuple[list[str], str]:
    table = Table(box=None)
    for heading in ("name", "vendor", "memory", "speed"):
        table.add_column(heading, no_wrap=True)
    table.add_row("a-part-with-a-name", "Somebody and Sons", "80.0 GiB", "3.35 TB/s")
    console = Console(file=io.StringIO(), width=width)
    gone = fit(table, console, ("vendor", "memory"))
    console.print(table)
    return gone, console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("width", "gone"), [(200, []), (60, []), (45, ["vendor"]), (32, ["vendor", "memory"])]
)
def test_the_least_important_columns_go_first(width: int, gone: list[str]) -> None:
    found, text = shown(width)
    assert found == gone
    assert ("80.0 GiB" in text) == ("memory" not in gone)
    if width >= 32:
        assert "3.35 TB/s" in text
        assert "…" not in text
