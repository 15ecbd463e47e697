from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import machines
import pytest
from click.testing import CliRunner, Result

from profiler import registry
from profiler.backends.cpu import CpuBackend
from profiler.backends.fake import FakeBackend
from profiler.backends.rocm import RocmBackend
from profiler.cli.devices import command
from profiler.errors import NothingMeasuredError


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up server with two AMD GPUs as the machine that aiprof runs on."""
    root = machines.intel_server(tmp_path / "root")
    machines.amd_gpu(root, 1, "0000:c1:00.0", "a1b2c3d4e5f60718", node=1)
    machines.amd_gpu(root, 2, "0000:c6:00.0", None, node=2)
    backends: dict[str, Any] = {
        "rocm": lambda: RocmBackend(root, {}),
        "cpu": lambda: CpuBackend(root),
        "fake": FakeBackend,
    }
    monkeypatch.setattr(registry, "names", lambda _group: list(backends))
    monkeypatch.setattr(registry, "load", lambda _group, name: backends[name]())
    monkeypatch.setitem(__import__("sys").modules, "amdsmi", None)
    return root


def run(*arguments: str, columns: int = 80) -> Result:
    return CliRunner(env={"COLUMNS": str(columns), "NO_COLOR": "1"}).invoke(command, arguments)


def test_json_holds_everything(box: Path) -> None:
    result = run("--json")
    assert result.exit_code == 0
    rocm, cpu, fake = json.loads(result.stdout)["backends"]
    assert [device["key"] for device in rocm["devices"]] == ["GPU-a1b2c3d4e5f60718", "0000:c6:00.0"]
    assert rocm["verified"] == "never run on real hardware"
    [device] = cpu["devices"]
    assert device["details"]["isa"]["amx_bf16"] is True
    able = {one["name"]: one for one in device["capabilities"]}
    assert able["energy"]["source"] == "rapl:package-0+package-1"
    assert able["energy"]["unavailable"] is None
    assert fake["devices"][0]["simulated"] is True
    assert cpu["verified"].startswith("verified on AMD EPYC")


def test_the_table_has_what_a_buyer_asks_for(box: Path) -> None:
    text = run(columns=120).stdout
    for words in (
        "2 sockets, 4 cores, 8 logical CPUs, SMT on",
        "AMX-BF16",
        "251 GiB",
        "L3 2 × 105 MiB",
        "intel_pstate, governor performance and powersave, 0.80 to 3.80 GHz, boost on",
        "bare metal",
        "NUMA 2",
        "750 W",
        "192 GiB",
        "never run on real hardware",
        "rapl:package-0+package-1",
        "pip install /opt/rocm/share/amd_smi",
    ):
        assert words in text, words
    assert "cpu:0" in text
    assert "fake:0" not in text


@pytest.mark.parametrize("columns", [80, 60])
def test_the_table_fits_narrow_terminals_without_colour(box: Path, columns: int) -> None:
    text = run(columns=columns).stdout
    assert "\x1b" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= columns
    assert "…" not in text


def test_why_a_backend_has_nothing_and_what_to_do(box: Path) -> None:
    (box / "dev/kfd").unlink()
    text = " ".join(run().stdout.split())
    assert "2 AMD GPU(s) are there, but /dev/kfd, which computing needs, is not." in text
    assert "To do: in a container: start it with --device /dev/kfd" in text


def test_limits_of_a_container_are_shown(box: Path) -> None:
    machines.write(
        box,
        {
            "/proc/self/cgroup": "0::/",
            "/proc/self/status": "Cpus_allowed_list:\t2-3",
            "/sys/fs/cgroup/cpu.max": "150000 100000",
            "/sys/fs/cgroup/memory.max": 16 * 2**30,
            "/sys/fs/cgroup/memory.current": 2**30,
        },
    )
    text = run(columns=120).stdout
    assert "this process may use 2 (2-3)" in text
    assert "1.5 CPUs of time and 16 GiB of memory (cgroup v2)" in text
    assert "16 GiB allowed of 251 GiB" in text


def test_nothing_to_measure_ends_with_4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "names", lambda _group: ["fake"])
    result = run("--json")
    assert json.loads(result.stdout)["backends"][0]["devices"]
    assert isinstance(result.exception, NothingMeasuredError)
    assert result.exception.exit_code == 4


def test_a_bundle_is_listed_and_json_stays_json(tmp_path: Path, box: Path) -> None:
    path = tmp_path / "bundle.tar.gz"
    result = run("--json", "--bundle", str(path))
    assert result.exit_code == 0
    json.loads(result.stdout)
    assert "devices.json" in result.stderr
    assert "host name" in result.stderr
    with tarfile.open(path) as archive:
        assert "aiprof-bundle/devices.json" in archive.getnames()


def test_this_machine() -> None:
    assert run().exit_code == 0
    assert run("--json").exit_code == 0
