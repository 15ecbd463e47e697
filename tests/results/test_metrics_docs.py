"""docs/metrics.md names everything that the code can record."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from profiler.results.load import RUN_COLUMNS, TRIAL_COLUMNS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "metrics.md").read_text()


def _section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert found, title
    return found[1]


def _first_cells(section: str) -> list[str]:
    """Names in backticks in the first cells of all tables of a section."""
    cells = re.findall(r"^\| (`[^|]*`) \|", section, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def _calls(name: str) -> Iterator[ast.Call]:
    for path in (ROOT / "profiler").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
                yield node


def _constant(node: ast.expr | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _codes(call: str, keyword: str) -> set[str]:
    """String constants given as the first argument, or as ``keyword``, in calls of ``call``."""
    found = {_constant(node.args[0]) for node in _calls(call) if node.args}
    found |= {_constant(word.value) for node in _calls(call) for word in node.keywords if word.arg == keyword}
    return {code for code in found if code is not None}


@pytest.mark.parametrize(
    ("call", "keyword", "section"),
    [
        ("Flag", "code", "Flags"),
        ("Unavailable", "code", "Why something is unavailable"),
        ("EngineError", "kind", "Status and failures"),
        ("WorkerError", "kind", "Status and failures"),
        ("StartFailedError", "kind", "Status and failures"),
    ],
)
def test_every_code_in_the_source_is_documented(call: str, keyword: str, section: str) -> None:
    codes = _codes(call, keyword)
    assert codes, f"no call of {call} was found; is it spelled differently now?"
    assert codes <= set(_first_cells(_section(section)))


def test_every_metric_that_is_recorded_is_documented() -> None:
    names: set[str | None] = set()
    measure = ROOT / "profiler" / "measure"
    sources = [path.read_text() for path in (*measure.glob("*summary.py"), measure / "memory.py")]
    for node in (node for source in sources for node in ast.walk(ast.parse(source))):
        if isinstance(node, ast.Dict):
            names |= {_constant(key) for key in node.keys}
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            names.add(_constant(node.slice))
        elif isinstance(node, ast.Call):
            names |= {_constant(argument) for argument in node.args}
    metrics = {name for name in names if name and re.fullmatch(r"[a-z0-9_]+_(s|bytes|j|w)", name)}
    assert {"prefill_s", "energy_j", "weights_bytes"} <= metrics
    assert {name for name in metrics if f"`{name}`" not in TEXT} == set()


@pytest.mark.parametrize("section", ["Flags", "Why something is unavailable", "Status and failures"])
def test_no_code_is_explained_twice(section: str) -> None:
    codes = _first_cells(_section(section))
    assert len(codes) == len(set(codes))


def test_the_columns_of_the_frames_are_documented_in_order() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\w\[\], ]+?) \|", _section("load_runs"), re.MULTILINE)
    shared = len(RUN_COLUMNS)
    assert dict(rows[:shared]) == RUN_COLUMNS
    assert [name for name, _ in rows[:shared]] == list(RUN_COLUMNS)
    own = {name: dtype for name, dtype in TRIAL_COLUMNS.items() if list(TRIAL_COLUMNS).index(name) >= 23}
    assert dict(rows[shared:]) == own
    assert list(TRIAL_COLUMNS)[:23] == list(RUN_COLUMNS)[:23]


def test_every_weight_format_is_documented() -> None:
    from profiler.models.formats import DTYPE_BYTES, WEIGHT_FORMATS

    section = _section("Number formats")
    assert set(_first_cells(section)) == set(WEIGHT_FORMATS)
    assert all(f"`{dtype}`" in section for dtype in DTYPE_BYTES)


def test_links_within_the_page_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= headings
