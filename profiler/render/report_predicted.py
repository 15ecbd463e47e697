"""The report's section of devices that are not here: marked, apart from everything measured."""

from __future__ import annotations

from collections.abc import Sequence

from profiler.analysis.evidence import case_label
from profiler.analysis.predict.candidate import Elsewhere, case_figures, elsewhere, selected
from profiler.analysis.predict.forecast import Predicted
from profiler.render.predict import figure_text, interval_text, rests_on
from profiler.render.report_view import DASH, Cell, Column, Row, Section, Table
from profiler.results.read import Run, printable

_COLUMNS = (
    Column("case"),
    Column("decode, predicted", numeric=True),
    Column("time per token, predicted", numeric=True),
    Column("prefill, predicted", numeric=True),
    Column("decode is bound by"),
)
_SHOWN = ("decode_tokens_per_s", "tpot_s", "prefill_s")


def predicted_section(runs: Sequence[Run], selectors: Sequence[str]) -> Section:
    """Return the section with one table per selector, ``H200:1`` for one H200.

    Raises:
        UsageError: a selector names no part.
    """
    tables = []
    for place, text in enumerate(selectors):
        hardware, count = selected(text)
        cases = elsewhere(runs, hardware, count)
        caption = f"Predicted, not measured: {count} x {hardware.title}"
        rows = tuple(_row(one) for one in cases)
        basis = next((rests_on(one.forecast) for one in cases if one.forecast is not None), "")
        tables.append(Table(f"predicted-{place}", caption, _COLUMNS, rows, printable(basis), cards=True))
    return Section(
        "predicted",
        "Predicted on hardware that is not here",
        "Predicted",
        lead=(
            "≈ marks a prediction. Nothing in this section was measured, and nothing of it stands in the "
            "charts and answers of this page. Below each figure stands its 80% interval.",
        ),
        empty="" if any(table.rows for table in tables) else "These runs have no offline case to predict.",
        tables=tuple(tables),
    )


def _row(one: Elsewhere) -> Row:
    name = Cell(printable(case_label(one.spec)))
    if one.forecast is None:
        return Row((name,), remark=printable(one.reason))
    figures = case_figures(one.forecast)
    cells = (_cell(figures.get(metric)) for metric in _SHOWN)
    return Row((name, *cells, Cell(one.forecast.decode.binds)))


def _cell(figure: Predicted | None) -> Cell:
    if figure is None:
        return Cell(DASH)
    return Cell(
        f"≈ {figure_text(figure.value, figure.unit)}", detail=interval_text(figure), title="predicted"
    )
