"""What the HTML report consists of: sections, tables and charts as text, with nothing left to compute.

The template ``reports/report.html.j2`` only lays these out. Every string here is plain text and is
escaped there, except :attr:`Panel.svg`, which :mod:`profiler.render.charts` has cleaned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from markupsafe import Markup

DASH = "–"

Badge = Literal["", "best", "ahead", "level"]


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: the figure in the unit of its column, words, or a dash.
        interval: half of the 95% interval, as ``±1.2%``, or empty.
        title: what is behind the figure, or why it is missing; shown by the pointer.
        link: id on this page that the text leads to, or empty.
        badge: how it stands among its neighbours in the table of answers.
        detail: a few words below the figure.
    """

    text: str
    interval: str = ""
    title: str = ""
    link: str = ""
    badge: Badge = ""
    detail: str = ""


@dataclass(frozen=True)
class Column:
    """Heading of a column.

    Attributes:
        name: what the column holds.
        unit: unit of every figure in it, or empty.
        numeric: whether it holds figures, which are set and sorted as such.
    """

    name: str
    unit: str = ""
    numeric: bool = False


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        cells: one per column, fewer when ``remark`` fills the rest.
        anchor: id of the row on the page, or empty.
        remark: text that spans the remaining columns, e.g. why a case failed.
    """

    cells: tuple[Cell, ...]
    anchor: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Table:
    """A table; without rows it is not shown.

    Attributes:
        name: id on the page.
        caption: what it holds.
        columns: headings.
        rows: in the order shown without scripts.
        note: how to read it, below it.
        cards: whether a narrow screen shows each row as a card instead of scrolling sideways.
    """

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""
    cards: bool = False

    @property
    def lead(self) -> int:
        """Columns of words before the first one of figures; the style aligns what follows them."""
        return next((place for place, column in enumerate(self.columns) if column.numeric), 9)

    def place(self, column: int) -> str:
        """Class of a cell of words that stands among figures, with a space; empty before them."""
        return "t " if column >= self.lead else ""


@dataclass(frozen=True)
class Panel:
    """One drawing of a figure.

    Attributes:
        name: id on the page.
        title: heading of the drawing.
        svg: the drawing, safe to be put into a page.
        specification: Vega-Lite as JSON that is safe in a script element, or empty.
    """

    name: str
    title: str
    svg: Markup
    specification: Markup


@dataclass(frozen=True)
class LegendEntry:
    """A symbol and what it stands for.

    Attributes:
        text: what it stands for.
        symbol: name of a shape in the template: of a subject, a phase or a part of memory.
        colour: name of the style's colour class, e.g. ``s1``.
        dash: SVG dash pattern of a line through the symbol; ``""`` solid, None for no line.
    """

    text: str
    symbol: str
    colour: str
    dash: str | None = None


@dataclass(frozen=True)
class Figure:
    """Drawings that share a legend, a caption and a table of what is drawn."""

    caption: str
    panels: tuple[Panel, ...]
    legend: tuple[LegendEntry, ...]
    table: Table


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: id on the page.
        title: heading.
        menu: what the list of sections calls it.
        lead: sentences on what is shown, each a paragraph.
        empty: why there is nothing to show and what would bring it; empty when there is something.
        figures: drawings.
        tables: tables.
        facts: groups of names and texts.
    """

    name: str
    title: str
    menu: str
    lead: tuple[str, ...] = ()
    empty: str = ""
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    facts: tuple[Facts, ...] = ()


@dataclass(frozen=True)
class Facts:
    """Names and texts under a heading, and a text that is to be copied as it stands."""

    heading: str
    pairs: tuple[tuple[str, str], ...]
    command: str = ""


@dataclass(frozen=True)
class Report:
    """The whole page."""

    title: str
    summary: str
    subjects: tuple[LegendEntry, ...]
    simulated: str
    warnings: tuple[str, ...]
    sections: tuple[Section, ...]


def condensed(table: Table, names: Sequence[str] = ("box", "model", "workload", "formats")) -> Table:
    """Take columns that say the same in every row out of the table and into its caption.

    Args:
        table: with two rows or more; others are returned as they are.
        names: of the columns that may go. The link of a first cell passes to its successor.
    """
    if len(table.rows) < 2:
        return table
    same: dict[int, str] = {}
    for place, column in enumerate(table.columns):
        texts = {row.cells[place].text for row in table.rows if place < len(row.cells)}
        if column.name in names and len(texts) == 1:
            same[place] = texts.pop()
    if not same:
        return table
    rows: list[Row] = []
    for row in table.rows:
        first, *others = (cell for place, cell in enumerate(row.cells) if place not in same)
        first = replace(first, link=first.link or row.cells[0].link)
        rows.append(replace(row, cells=(first, *others)))
    caption = f"{table.caption}: {' · '.join(shorten(text, 60) for text in same.values())}"
    columns = tuple(column for place, column in enumerate(table.columns) if place not in same)
    return replace(table, caption=caption, columns=columns, rows=tuple(rows))


def shorten(text: str, limit: int) -> str:
    """Cut a text that could be of any length; the middle goes, since ends tell names apart."""
    if len(text) <= limit:
        return text
    kept = limit - 1
    return f"{text[: kept - kept // 3]}…{text[len(text) - kept // 3 :]}"


def plural(count: int, what: str) -> str:
    """``1 case``, ``2 cases``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def listed(names: Sequence[str], limit: int = 4) -> str:
    """``a, b and c``, or ``a, b, c and 7 more``."""
    shown = list(names[:limit])
    if len(names) > limit:
        return f"{', '.join(shown)} and {len(names) - limit:,} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)
