"""Tables that leave columns out where a terminal is narrow: half a figure is worse than none."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

# Wider than any table; asks for what it would take by itself.
_ANY_WIDTH = 100_000


def fit(table: Table, console: Console, dispensable: Sequence[str]) -> list[str]:
    """Take columns out of a table until it fits.

    Args:
        table: with all its rows; it is changed.
        console: where it will be printed.
        dispensable: headings of columns that may go, the least important first.

    Returns:
        The headings of those that went.
    """
    gone: list[str] = []
    wide = console.options.update(width=_ANY_WIDTH, max_width=_ANY_WIDTH)
    for heading in dispensable:
        if console.measure(table, options=wide).maximum <= console.width:
            break
        table.columns = [column for column in table.columns if column.header != heading]
        for index, column in enumerate(table.columns):
            column._index = index
        gone.append(heading)
    return gone
