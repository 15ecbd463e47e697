"""Hidden characters are shown by their code, and never reach what measures texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.render.charts import draw
from profiler.render.charts_shared import data
from profiler.render.visible import visible, visible_in


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1bb", "a\\x1bb"),
        ("\u202eevil", "\\u202eevil"),
        ("\uffff", "\\uffff"),
        ("é 日本\n\t", "é 日本\n\t"),
    ],
)
def test_what_nobody_sees_is_spelt_out(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible_in({"a": [text, 1, None]}) == {"a": [shown, 1, None]}


@given(st.text())
def test_what_is_visible_stays_as_it_is(text: str) -> None:
    assert visible(visible(text)) == visible(text)
    if text.isprintable():
        assert visible(text) == text


def test_a_control_character_in_a_label_does_not_end_the_process() -> None:
    """vl-convert aborts on what XML cannot carry."""
    import altair as alt

    text = "a\x1b\x00\ufffe"
    chart = alt.layer(alt.Chart(data([{"x": 1, "text": text}])).mark_text().encode(x="x:Q", text="text:N"))
    panel = draw("p", text, text, chart)
    assert "a\\x1b\\x00\\ufffe" in panel.svg
    assert "\x1b" not in panel.svg + panel.title
