"""docs/trust.md and docs/sensors.md: every test that their tables name is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEAST = {"docs/trust.md": 20, "docs/sensors.md": 60}


def named(page: str) -> set[tuple[str, str]]:
    """Return (file, test or "") of everything that a page names."""
    return set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / page).read_text()))


NAMED = sorted(set.union(*(named(page) for page in LEAST)))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_test_that_is_named_exists(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert not name or name in names


@pytest.mark.parametrize("page", LEAST)
def test_the_tables_name_tests(page: str) -> None:
    assert len(named(page)) > LEAST[page]


def test_a_fault_of_a_sensor_has_a_test_or_a_reason_for_having_none() -> None:
    faults = (ROOT / "docs/sensors.md").read_text().partition("## Faults")[2]
    rows = [line for line in faults.splitlines() if line.startswith("| ") and "shown by" not in line]
    assert len(rows) > 60
    assert [row for row in rows if "`tests/" not in row and "no test" not in row] == []
