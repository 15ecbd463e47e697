"""``aiprof report`` and the script that makes the example page."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner
from report_runs import write_box

from profiler.cli.report import command
from profiler.errors import InputFileError, UsageError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_box(folder / "one", "one", 1.0, batches=(1,))
    write_box(folder / "two", "two", 2.0, batches=(1,), simulated=True)
    return folder


def test_runs_and_folders_of_runs_become_one_page(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    result = CliRunner().invoke(command, [str(folder), "--out", str(out)])
    assert result.output == f"report: {out}\n"
    text = out.read_text()
    assert "<title>one and two – aiprof</title>" in text
    assert "Simulated: no hardware stands behind the figures of two." in text


def test_json_says_where_and_what(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    arguments = [str(folder / "one"), "--out", str(out), "--title", "Mine", "--json"]
    document = json.loads(CliRunner().invoke(command, arguments).output)
    assert document == {"report": str(out), "runs": [str(folder / "one")], "bytes": out.stat().st_size}
    assert "<h1>Mine</h1>" in out.read_text()


def test_interactive_pages_hold_their_runtime(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    CliRunner().invoke(command, [str(folder / "one"), "--out", str(out), "--interactive"])
    text = out.read_text()
    assert "vegaEmbed" in text
    assert out.stat().st_size < 5_000_000
    assert "<svg" in text


def test_what_cannot_be_read_or_written_is_one_clear_line(folder: Path, tmp_path: Path) -> None:
    missing = CliRunner().invoke(command, [str(tmp_path / "none")])
    assert isinstance(missing.exception, UsageError)
    out = tmp_path / "no" / "such" / "page.html"
    unwritable = CliRunner().invoke(command, [str(folder / "one"), "--out", str(out)])
    assert str(unwritable.exception) == (
        f"{out}: cannot be written: No such file or directory; choose another --out"
    )
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "run.json").write_text("{")
    assert isinstance(CliRunner().invoke(command, [str(damaged)]).exception, InputFileError)


@pytest.fixture
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_report", ROOT / "docs/examples/make_report.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_page_needs_a_measured_run(
    folder: Path, tmp_path: Path, example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example, "__file__", str(tmp_path / "make_report.py"))
    assert example.main([]) == 2
    assert example.main([str(folder / "two")]) == 2
    assert not (tmp_path / "report.html").exists()
    assert example.main([str(folder / "one"), str(folder / "two")]) == 0
    assert example.TITLE in (tmp_path / "report.html").read_text()
