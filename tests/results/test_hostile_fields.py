"""Markup and odd numbers in every field of a record, whatever fields there will be.

The records of an example run and of loads are walked over as plain JSON. Every text is replaced by markup,
and what the schema refuses is left as it was; what passes goes on a page and through every command.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from builders import write_example_run
from click.testing import CliRunner, Result
from load_runs import loads, write_loads
from pydantic import ValidationError

from profiler.cli import cli
from profiler.errors import AiprofError
from profiler.render.report import render
from profiler.render.report_sections import build_report
from profiler.results.checksums import CHECKSUMS_FILE
from profiler.results.read import read_run
from profiler.results.schema import CaseRecord, RunRecord

ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'`{{7*7}}\x1b[31m\u202e"
HUGE = 1e308
Walk = Iterator[tuple[dict[str, Any] | list[Any], Any]]


def _places(value: Any, kind: type | tuple[type, ...]) -> Walk:
    """Yield every container with the key of a leaf of a kind."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        if isinstance(item, kind) and not isinstance(item, bool):
            yield value, key
        yield from _places(item, kind)


def _everything_filled(document: dict[str, Any], model: type[CaseRecord] | type[RunRecord]) -> int:
    """Put the attack into every text that the model lets be any; return how many did."""
    changed = 0
    for container, key in _places(document, str):
        before = container[key]
        container[key] = ATTACK
        try:
            model.model_validate_json(json.dumps(document), strict=True)
            changed += 1
        except ValidationError:
            container[key] = before
    return changed


def _rewritten(path: Path, change: Callable[[dict[str, Any], Any], Any]) -> None:
    """Change the records of a run in place; nothing vouches for it any more."""
    record = json.loads((path / "run.json").read_text())
    change(record, RunRecord)
    (path / "run.json").write_text(json.dumps(record))
    lines = [json.loads(line) for line in (path / "cases.jsonl").read_text().splitlines()]
    for line in lines:
        change(line, CaseRecord)
    (path / "cases.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (path / CHECKSUMS_FILE).unlink()


class _Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: dict[str, int] = {}
        self.handlers: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found[tag] = self.found.get(tag, 0) + 1
        self.handlers |= {name for name, _ in attrs if name.startswith("on")}


def _ours(result: Result) -> None:
    """An error of ours is one clear line; anything else is a fault of ours."""
    assert result.exception is None or isinstance(result.exception, AiprofError | SystemExit)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two plain runs: cases that ran here, and loads."""
    made = tmp_path_factory.mktemp("hostile")
    write_example_run(made / "cases")
    write_loads(made / "loads", loads([1, 4], 50.0, n=30), "a server", ("ttft=1s", "tpot_p90=1s"))
    return made


@pytest.fixture(scope="module")
def attacked(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same runs with the attack in every text that may be any."""
    made = tmp_path_factory.mktemp("attacked")
    counts: list[int] = []
    for source in sorted(folder.iterdir()):
        copy = made / source.name
        copy.mkdir()
        for file in source.rglob("*"):
            if file.is_file():
                target = copy / file.relative_to(source)
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(file.read_bytes())
        _rewritten(copy, lambda document, model: counts.append(_everything_filled(document, model)))
    # Were the schema to refuse everything, this would test nothing.
    assert sum(counts) > 200
    return made


@pytest.mark.parametrize("name", ["cases", "loads"])
@pytest.mark.parametrize("interactive", [False, True])
def test_markup_in_every_text_of_a_record_stays_text_on_the_page(
    folder: Path, attacked: Path, name: str, interactive: bool
) -> None:
    plain, hostile = (
        _Tags(render(build_report([read_run(place / name)], ATTACK, interactive=interactive)))
        for place in (folder, attacked)
    )
    text = render(build_report([read_run(attacked / name)], ATTACK, interactive=interactive))
    assert "<script>alert" not in text
    assert not {"\x1b", "\u202e"} & set(text)
    assert "img" not in hostile.found
    assert hostile.handlers == set()
    # Specifications of charts are data; scripts that run are as many as without the attack.
    assert text.count("<script>") == 1
    assert hostile.found["style"] == plain.found["style"] == 1
    for specification in re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL):
        json.loads(specification)


COMMANDS = (
    ("runs", "{folder}"), ("report", "{run}", "--out", "{out}"), ("compare", "{run}", "{run}"),
    ("compare", "{run}", "{other}", "--markdown"), ("export", "{run}"), ("export", "{run}", "--vllm-json"),
    ("verify", "{run}"), ("ceilings", "{run}"), ("gate", "{policy}", "{run}"), ("cost", "{costs}", "{run}"),
    ("gate", "{policy}", "{run}", "--markdown"),
)  # fmt: skip
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.mark.parametrize("name", ["cases", "loads"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_lets_a_record_steer_the_terminal(
    attacked: Path, tmp_path: Path, command: tuple[str, ...], name: str
) -> None:
    places = {
        "folder": attacked, "run": attacked / name, "other": attacked / "cases", "out": tmp_path / "x.html",
        "policy": EXAMPLES / "chat-slo.yaml", "costs": EXAMPLES / "boxes.yaml",
    }  # fmt: skip
    result = CliRunner().invoke(cli, [part.format(**places) for part in command])
    assert result.exception is None or isinstance(result.exception, AiprofError | SystemExit), (
        result.exception
    )
    shown = result.output + (str(result.exception) if isinstance(result.exception, AiprofError) else "")
    assert "\x1b[31m" not in shown
    assert "\u202e" not in shown or command[0] in ("export", "report")
    if "--markdown" in command:
        assert "<script>" not in shown


@pytest.mark.parametrize("name", ["cases", "loads"])
@pytest.mark.parametrize("value", [HUGE, -HUGE, 5e-324, 0.0])
def test_numbers_beyond_sense_are_shown_or_refused(
    folder: Path, tmp_path: Path, name: str, value: float
) -> None:
    copy = tmp_path / name
    copy.mkdir()
    for file in ("run.json", "cases.jsonl", CHECKSUMS_FILE):
        (copy / file).write_bytes((folder / name / file).read_bytes())

    def numbers(document: dict[str, Any], model: Any) -> None:
        for container, key in _places(document, float):
            before, container[key] = container[key], value
            try:
                model.model_validate_json(json.dumps(document), strict=True)
            except ValidationError:
                container[key] = before

    _rewritten(copy, numbers)
    run = read_run(copy)
    for interactive in (False, True):
        assert "</html>" in render(build_report([run], "x", interactive=interactive))
    for command in (
        ("compare", str(copy), str(folder / name)),
        ("export", str(copy)),
        ("runs", str(tmp_path)),
    ):
        result = CliRunner().invoke(cli, list(command))
        assert result.exception is None or isinstance(result.exception, AiprofError | SystemExit)


def test_counts_beyond_sense_are_shown_or_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("cases", "loads"):
        copy = tmp_path / name
        copy.mkdir()
        for file in ("run.json", "cases.jsonl", CHECKSUMS_FILE):
            (copy / file).write_bytes((folder / name / file).read_bytes())

        def counts(document: dict[str, Any], model: Any) -> None:
            for container, key in _places(document, int):
                before, container[key] = container[key], 2**53
                try:
                    model.model_validate_json(json.dumps(document), strict=True)
                except ValidationError:
                    container[key] = before

        _rewritten(copy, counts)
        assert "</html>" in render(build_report([read_run(copy)], "x"))
        _ours(CliRunner().invoke(cli, ["compare", str(copy), str(folder / name)]))
