"""What is installed is what is in the tree: the package list, and the wheel in a clean environment."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from profiler.data import data_root

ROOT = Path(__file__).resolve().parent.parent


def metadata() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_the_package_list_is_the_tree() -> None:
    found = {
        ".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "profiler").rglob("__init__.py")
    }
    listed = set(metadata()["options"]["packages"].split())
    assert listed == found | {"profiler.scenarios", "profiler.reports"}


def test_no_module_stands_where_a_data_folder_is_mapped() -> None:
    assert not any(
        (ROOT / "profiler" / name).exists() for name in ("scenarios", "scenarios.py", "reports", "reports.py")
    )


def test_data_folders_hold_no_python() -> None:
    assert not [path for kind in ("scenarios", "reports") for path in data_root(kind).rglob("*.py")]


def test_the_project_file_holds_no_metadata() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert "[project]" not in text


@pytest.mark.packaging
def test_the_wheel_works_in_a_clean_environment(tmp_path: Path) -> None:
    """Built from a clean copy (a stale build/ would leak deleted modules), run from another folder."""
    copy = tmp_path / "copy"
    tracked = ("profiler", "scenarios", "reports", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
    copy.mkdir()
    for name in tracked:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path / "dist"), str(copy)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for folder in ("scenarios", "reports"):
        expected = {
            path.name for path in (ROOT / folder).iterdir() if path.suffix in (".yaml", ".j2", ".css", ".js")
        }
        assert expected == {Path(name).name for name in names if name.startswith(f"profiler/{folder}/")}
    entries = {path.name for path in (ROOT / "profiler" / "models" / "entries").glob("*.yaml")}
    assert entries <= {Path(name).name for name in names}
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "scenarios", "reports"))]

    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    aiprof = str(environment / "bin" / "aiprof")
    shown = subprocess.run([aiprof, "scenarios"], cwd=elsewhere, capture_output=True, text=True, check=True)
    assert "decode-128" in shown.stdout
    swept = subprocess.run(
        [aiprof, "sweep", "--engine", "fake", "--out", "run", "--quiet"],
        cwd=elsewhere,
        capture_output=True,
        text=True,
    )
    assert swept.returncode == 0, swept.stderr
    assert (elsewhere / "run" / "report.html").stat().st_size > 2000
