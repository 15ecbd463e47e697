"""Figures of a column in one unit, and texts that could be of any length."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.render.report_numbers import (
    Unit,
    figure,
    half_width,
    measured_cell,
    plottable,
    rate_text,
    unit_for,
)
from profiler.render.report_view import DASH, Cell, Column, Row, Table, condensed, listed, plural, shorten
from profiler.results.schema import Measurement


def exact(value: float, **fields: object) -> Measurement:
    return Measurement.model_validate({"value": value, "unit": "s", "method": "m", "scope": "s"} | fields)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (0.1234, "0.123"),
        (9.999, "10.0"),
        (12.34, "12.3"),
        (123.4, "123"),
        (1234.5, "1,234"),
        (1e308, "1.00e+308"),
        (-5.0, "-5.00"),
        (1e-300, "1.00e-300"),
    ],
)
def test_figures_have_three_digits_and_an_end(value: float, shown: str) -> None:
    assert figure(value) == shown


@given(st.floats(min_value=1e-4, max_value=1e9, exclude_max=True))
def test_a_figure_is_within_half_a_percent_of_what_it_shows(value: float) -> None:
    assert float(figure(value).replace(",", "")) == pytest.approx(value, rel=0.0051)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_number_is_short(value: float) -> None:
    assert len(figure(value)) <= 13


def test_a_column_takes_the_unit_of_most_of_its_figures() -> None:
    assert unit_for("s", [0.002, 0.004, 3.0]) == Unit("ms", 1e-3)
    assert unit_for("bytes", [None, 3 * 2**30]) == Unit("GiB", 2**30)
    assert unit_for("ratio", [0.7]) == Unit("%", 0.01)
    assert unit_for("tokens/s", []) == Unit("tokens/s")


def test_the_interval_is_relative_and_survives_extremes() -> None:
    assert half_width(exact(2.0, ci95=(1.9, 2.1))) == "±5.0%"
    assert half_width(exact(0.0, ci95=(-1.0, 1.0))) == "±1.00"
    assert half_width(exact(1.0, ci95=(-1e308, 1e308))) == "±>1000%"
    assert half_width(exact(1.0)) == ""


def test_a_mean_without_an_interval_does_not_look_certain() -> None:
    mean = exact(0.5, method="mean of trials, no interval")
    assert measured_cell(mean, Unit("ms", 1e-3), titles=False) == Cell("500", "±?")


def test_what_is_missing_is_a_dash_with_its_reason() -> None:
    cell = measured_cell(Measurement.missing("J", "no sensor"), Unit("J"), titles=True)
    assert (cell.text, cell.title) == (DASH, "no sensor")


def test_titles_say_what_is_behind_a_figure() -> None:
    cell = measured_cell(exact(2.0, ci95=(1.9, 2.1), n=8), Unit("s"), titles=True)
    assert cell.title == "95% interval 1.90 to 2.10 s; m; n = 8; s"


def test_only_what_can_be_is_drawn() -> None:
    assert plottable(1.0, 1e-3)
    assert not any(map(plottable, (0.0, -1.0, 1e308, 1e-300, None, math.inf)))


def test_a_rate_beyond_sense_ends_too() -> None:
    assert rate_text(1e308, "B") == "1.00e+308 B/s"
    assert rate_text(2e10, "B") == "20 GB/s"


@given(st.text(), st.integers(min_value=4, max_value=80))
def test_shortened_texts_keep_both_ends(text: str, limit: int) -> None:
    short = shorten(text, limit)
    assert len(short) <= max(limit, 1)
    assert short == text or (short.startswith(text[0]) and short[-1] == text[-1])


def test_lists_and_counts_are_words() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(["a", "b", "c"], 2) == "a, b and 1 more"
    assert (plural(1, "case"), plural(2000, "case")) == ("1 case", "2,000 cases")


def test_columns_that_say_the_same_go_into_the_caption_and_hand_on_their_link() -> None:
    columns = (Column("box"), Column("model"), Column("batch", "", True))
    rows = tuple(Row((Cell("A", link=f"c{n}"), Cell("m"), Cell(str(n)))) for n in range(2))
    found = condensed(Table("t", "Data", columns, rows))
    assert found.caption == "Data: A · m"
    assert [column.name for column in found.columns] == ["batch"]
    assert found.rows[1].cells == (Cell("1", link="c1"),)


def test_a_single_row_keeps_its_columns() -> None:
    table = Table("t", "Data", (Column("box"), Column("n")), (Row((Cell("A"), Cell("1"))),))
    assert condensed(table) is table
