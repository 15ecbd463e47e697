from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from profiler.cli.scenarios import command
from profiler.data import data_root
from profiler.errors import UsageError
from profiler.workload.scenario import scenarios


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(command, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stderr == ""
    return result


def test_the_table_has_a_line_for_each_scenario() -> None:
    lines = run().stdout.splitlines()
    for scenario in scenarios().values():
        (line,) = [line for line in lines if line.split()[:1] == [scenario.name]]
        quick = scenario.point("quick", 1)
        assert f"{scenario.prompt_tokens:,} → {scenario.output_tokens:,}" in line
        assert f"{quick.prompt_tokens:,} → {quick.output_tokens:,}" in line
        assert scenario.description in line
        assert scenario.source.name in line


@pytest.mark.parametrize("name", list(scenarios()))
def test_one_scenario_is_shown_with_everything(name: str) -> None:
    scenario = scenarios()[name]
    shown = run(name).stdout
    assert "\x1b" not in shown
    for part in (scenario.description, scenario.notes, scenario.quick_purpose, scenario.source.url):
        assert part in shown
    if scenario.served is not None:
        assert f"p50 {scenario.prompt_tokens:,}" in shown
        assert scenario.served.arrivals.source in shown
    else:
        assert f"no: {scenario.offline_only}" in shown


def test_json_says_the_same_for_one_and_for_all() -> None:
    listed = json.loads(run("--json").stdout)
    assert [one["name"] for one in listed] == list(scenarios())
    chat = json.loads(run("chat", "--json").stdout)
    assert chat in listed
    assert chat["full"] == {"prompt_tokens": 1020, "output_tokens": 129}
    assert chat["quick"]["fraction"] == "1/4"
    assert chat["served"]["arrivals"]["rate_per_s"] == 5.5301
    assert json.loads(run("decode-128", "--json").stdout)["served"] is None


def test_a_file_is_shown_without_its_escape_codes(tmp_path: Path) -> None:
    text = (data_root("scenarios") / "chat.yaml").read_text()
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("name: chat", "name: mine").replace('"Chat: a', '"\\e[31m[red]\\u202e: a'))
    shown = run(str(path)).stdout
    assert "\\x1b[31m[red]\\u202e: a question" in shown


def test_an_unknown_name_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="did you mean 'chat'"):
        CliRunner().invoke(command, ["chta"], catch_exceptions=False)
