"""Cost and verdict on the page, through the command that puts them there."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from profiler.cli import cli
from profiler.measure.request import SweepRequest
from profiler.measure.sweep import Sweep

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


class Text(HTMLParser):
    """The words of a page by section."""

    def __init__(self) -> None:
        super().__init__()
        self.sections: dict[str, str] = {}
        self._open = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "section":
            self._open = dict(attrs).get("id") or ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self.sections[self._open] = self.sections.get(self._open, "") + " " + " ".join(data.split())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("verdict") / "run"
    request = SweepRequest(
        preset="standard",
        engines=("fake",),
        devices=("fake-h100",),
        models=("qwen2.5-7b",),
        scenarios=("chat", "decode-128"),
        batches=(1, 8),
        budget_s=36_000.0,
    )
    Sweep(request, lambda event: None).run(path)
    return path


def sections(page: Path) -> dict[str, str]:
    reader = Text()
    reader.feed(page.read_text())
    return reader.sections


def test_policy_and_costs_are_on_the_page(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    policy, costs = EXAMPLES / "chat-qwen2.5-7b.yaml", EXAMPLES / "boxes.yaml"
    arguments = ["report", str(run), "--out", str(page), "--policy", str(policy), "--costs", str(costs)]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    found = sections(page)
    assert "is undecided" in found["verdict"]
    assert "no hardware stands behind it; it would pass" in found["verdict"]
    assert "aiprof sweep --preset standard" in found["verdict"]
    assert "USD / M tokens" in found["cost"]
    assert "placeholder, not a quote" in found["cost"]


def test_without_them_their_sections_are_not_there(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    CliRunner().invoke(cli, ["report", str(run), "--out", str(page)], catch_exceptions=False)
    assert not {"verdict", "cost"} & sections(page).keys()


def test_a_policy_that_is_none_is_refused_with_its_faults(run: Path, tmp_path: Path) -> None:
    from profiler.errors import InputFileError

    arguments = ["report", str(run), "--out", str(tmp_path / "x"), "--policy", str(EXAMPLES / "boxes.yaml")]
    result = CliRunner().invoke(cli, arguments)
    assert isinstance(result.exception, InputFileError)
    assert not (tmp_path / "x").exists()
