"""The worked example of docs/adding-a-backend.md is installed beside aiprof and does what the page says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from machines import write

ROOT = Path(__file__).parents[2]
UUIDS = ["ACME-00000000-0000-0000-0000-000000000000", "ACME-1234abcd-0000-0000-0000-000000000001"]


def block(language: str) -> str:
    """The only block of code in a language on the page."""
    page = (ROOT / "docs" / "adding-a-backend.md").read_text()
    [text] = re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert isinstance(text, str)
    return text


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder for ``sys.path`` with the module and a dist-info that registers it."""
    project = tomllib.loads(block("toml"))
    name, version = project["project"]["name"], project["project"]["version"]
    [module] = project["tool"]["setuptools"]["py-modules"]
    site = tmp_path / "site"
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (site / f"{module}.py").write_text(block("python"))
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    points = project["project"]["entry-points"].items()
    lines = [
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in own.items()) for group, own in points
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return site


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Two devices, one of which has a UUID of zeros, and the vendor's tool."""
    root = tmp_path / "root"
    for at, uuid in enumerate(UUIDS):
        folder = f"/sys/class/acme/npu{at}"
        write(
            root,
            {
                f"{folder}/uuid": uuid,
                f"{folder}/pci_address": f"0000:0{at + 1}:00.0",
                f"{folder}/product": "Acme Anvil",
                f"{folder}/memory_total": 64 << 30,
                f"{folder}/memory_used": 1 << 30,
                f"{folder}/energy_uj": 123_456_789,
                f"{folder}/power_limit_uw": 300_000_000,
                f"{folder}/temperature_mc": 41_500,
                f"/sys/bus/pci/devices/0000:0{at + 1}:00.0/max_link_speed": "32.0 GT/s PCIe",
            },
        )
    (root / "sys/class/acme/npu1/energy_uj").unlink()
    tool = tmp_path / "bin" / "acme-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 4.2\n")
    tool.chmod(0o755)
    return root


def aiprof(installed: Path, machine: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "profiler", *arguments],
        env={
            **{key: value for key, value in os.environ.items() if not key.startswith("AIPROF_")},
            "PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)]),
            "AIPROF_SYSFS_ROOT": str(machine),
            "PATH": os.pathsep.join([str(machine.parent / "bin"), os.environ.get("PATH", "")]),
            "NO_COLOR": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_example_is_a_family_like_ours(installed: Path, machine: Path) -> None:
    done = aiprof(installed, machine, "devices", "--json")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = next(
        one for one in json.loads(done.stdout)["backends"] if one["backend"] == "acme"
    )
    assert report["unavailable"] is None, report
    assert report["facts"]["driver_version"] == "4.2"
    first, second = report["devices"]
    # The UUID of zeros names nothing.
    assert [first["key"], second["key"]] == ["0000:01:00.0", UUIDS[1]]
    assert (first["name"], first["simulated"]) == ("Acme Anvil", True)
    assert first["details"]["pcie_generation_max"] == 5
    able = {one["name"]: one for one in second["capabilities"]}
    assert able["memory"]["source"] == "sysfs:/sys/class/acme"
    assert able["energy"]["unavailable"]["code"] == "unreadable"
    sensors = {one["key"]: one for one in first["sensors"]}
    assert sensors["acme:0000:01:00.0/temperature_mc"]["latest"] == 41.5
    # The file of the example never changes, and that is noticed.
    assert sensors["acme:0000:01:00.0/energy_uj"]["check"]["unavailable"] is not None
    gone = {one["key"]: one["unavailable"] for one in second["sensors"]}
    assert gone[f"acme:{UUIDS[1]}/energy_uj"]["code"] == "lost"
    assert gone[f"acme:{UUIDS[1]}/clock_hz"] is not None


def test_it_is_selected_like_ours(installed: Path, machine: Path) -> None:
    done = aiprof(installed, machine, "sweep", "--device", "acme:7", "--dry-run")
    assert done.returncode == 2
    assert "acme has only 2 device(s)" in done.stderr
    assert "acme:0 (Acme Anvil)" in done.stderr or "devices here" in done.stderr


def test_without_its_driver_it_says_so(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    done = aiprof(installed, tmp_path / "empty", "devices")
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "there is no Acme device in /sys/class/acme. To do: sudo modprobe acme" in text


def test_the_commands_that_try_it_out_do(installed: Path, tmp_path: Path) -> None:
    """As a newcomer types them, in a folder of its own, with ``aiprof`` as installed."""
    command = tmp_path / "bin" / "aiprof"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m profiler "$@"\n')
    command.chmod(0o755)
    done = subprocess.run(
        ["sh", "-e", "-c", block("sh")],
        cwd=tmp_path,
        env={
            **{key: value for key, value in os.environ.items() if not key.startswith("AIPROF_")},
            "PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)]),
            "PATH": os.pathsep.join([str(command.parent), os.environ.get("PATH", "")]),
            "NO_COLOR": "1",
            "COLUMNS": "160",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    _, _, shown = done.stdout.partition("acme:0")
    assert "Acme Anvil" in shown.splitlines()[0]
    assert "SIMULATED" in shown.splitlines()[0]
    assert "no new value during this look" in shown
    assert "42 °C now" in shown
