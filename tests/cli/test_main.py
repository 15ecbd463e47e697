"""The door: help, version, unknown commands, exit codes, and what must not be imported."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

import profiler.__main__ as door
from profiler import __version__
from profiler.cli import COMMANDS, cli
from profiler.errors import AiprofError, InputFileError, MeasurementError, NothingMeasuredError, UsageError

HEAVY = (
    "torch",
    "pandas",
    "numpy",
    "rich",
    "pydantic",
    "yaml",
    "jinja2",
    "pynvml",
    "psutil",
    "pyarrow",
    "asyncio",
)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], []])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
from profiler.__main__ import main
try:
    main({arguments!r})
except SystemExit:
    pass
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = f"import sys, profiler; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_of_commands_agrees_with_the_commands(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    command = cli.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    assert command.get_short_help_str(limit=200).rstrip(".") == COMMANDS[name].rstrip(".")


def test_version_says_where_it_lies() -> None:
    result = CliRunner().invoke(cli, ["--version"])
    assert result.output.startswith(f"aiprof {__version__} (")
    assert "profiler" in result.output


def test_an_unknown_command_names_the_nearest() -> None:
    result = CliRunner().invoke(cli, ["swep"])
    assert result.exit_code == 2
    assert "did you mean 'sweep'?" in result.output


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AiprofError("x"), 70),
        (UsageError("x"), 2),
        (InputFileError(["a:1: x", "a:2: y"]), 2),
        (MeasurementError("x"), 1),
        (NothingMeasuredError("x"), 4),
        (KeyboardInterrupt(), 130),
        (RuntimeError("x"), 70),
    ],
)
def test_every_ending_has_its_code_and_no_traceback(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "invoke", fail)
    with pytest.raises(SystemExit) as ended:
        door.main(["runs"])
    assert ended.value.code == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert all(line.startswith("aiprof: ") for line in shown.err.splitlines())
    if isinstance(error, InputFileError):
        assert len(shown.err.splitlines()) == 2


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise UsageError("x")

    monkeypatch.setattr(cli, "invoke", fail)
    with pytest.raises(UsageError):
        door.main(["--debug", "runs"])
