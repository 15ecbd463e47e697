"""What is wrong with an environment of vLLM: one line with the remedy for each known trap."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from served_truth import aiprof

from profiler.backends.base import Device
from profiler.engines.vllm_traps import environment_in, look_at
from profiler.errors import UsageError

CPU = Device("cpu-0123456789ab", "cpu", 0, "a CPU", None)
GPU = Device("GPU-1", "cuda", 0, "an H100", None)
NPU = Device("0000:c1:00.0", "ascend", 0, "Ascend 910B4", None)


def distribution(folder: Path, name: str, version: str) -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Packages before all others; the interpreter's own are seen behind them."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))
    for variable in ("LD_PRELOAD", "VLLM_CPU_OMP_THREADS_BIND", "OMP_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    return folder


def test_the_traps_of_a_cpu_wheel(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution(environment, "vllm-cpu", "0.32.0")
    (environment / "torchvision.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "auto")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("LD_PRELOAD", "libtcmalloc_minimal_that_is_not_there.so")
    found = look_at(sys.executable, [CPU, GPU])
    assert found.versions["vllm"] == "0.32.0+cpu"
    traps = {trap.code: trap for trap in found.traps}
    assert next(iter(traps)) == "wrong_build"
    assert "the box has an H100" in traps["wrong_build"].text
    assert "does not find its own version" in traps["metadata"].text
    assert traps["vision"].remedy == "pip uninstall -y torchvision"
    assert "keeps a core free" in traps["thread_binding"].text
    assert "threads" in traps
    assert [trap.text.split()[0] for trap in found.traps if trap.code == "preload"] == ["libiomp5"]
    assert "wrong_build" not in {trap.code for trap in look_at(sys.executable, [CPU]).traps}


def test_builds_for_other_devices(environment: Path) -> None:
    distribution(environment, "vllm", "0.32.0")
    distribution(environment, "torch", "2.13.0+rocm7.2")
    (trap,) = look_at(sys.executable, [CPU]).traps
    assert (trap.code, "make vllm-cpu" in trap.remedy) == ("wrong_build", True)
    (trap,) = look_at(sys.executable, [CPU, GPU]).traps
    assert "built for rocm, and the box has an H100" in trap.text


@pytest.mark.parametrize(
    ("there", "missing"),
    [
        ((), "vllm-ascend torch-npu"),
        (("torch-npu",), "vllm-ascend"),
        (("vllm-ascend",), "torch-npu"),
        (("vllm-ascend", "torch-npu"), None),
    ],
)
def test_ascend_needs_a_plugin_and_an_adapter(
    environment: Path, there: tuple[str, ...], missing: str | None
) -> None:
    distribution(environment, "vllm", "0.32.0+empty")
    distribution(environment, "torch", "2.13.0+cpu")
    for name in there:
        distribution(environment, name, "0.32.0rc1")
    traps = {trap.code: trap for trap in look_at(sys.executable, [CPU, NPU]).traps}
    assert "wrong_build" not in traps
    assert ("no_ascend_plugin" in traps) == (missing is not None)
    if missing is not None:
        trap = traps["no_ascend_plugin"]
        assert trap.text == (
            f"the box has Ascend 910B4, which vLLM does not see without {' and '.join(missing.split())}"
        )
        assert trap.remedy.startswith(
            f"pip install {missing} in the versions that vllm-ascend names for vLLM 0.32.0"
        )
    # Nothing is missing on a box without NPUs, or with simulated ones.
    simulated = Device("0000:c1:00.0", "ascend", 0, "Ascend 910B4", None, simulated=True)
    for devices in ([CPU], [CPU, GPU], [CPU, simulated]):
        assert "no_ascend_plugin" not in {trap.code for trap in look_at(sys.executable, devices).traps}


def test_a_vllm_for_cpus_on_a_box_with_npus_is_the_wrong_build(environment: Path) -> None:
    distribution(environment, "vllm-cpu", "0.32.0")
    codes = [trap.code for trap in look_at(sys.executable, [CPU, NPU]).traps]
    assert codes[0] == "wrong_build"
    assert "no_ascend_plugin" not in codes


def test_an_environment_without_it_or_without_python(environment: Path, tmp_path: Path) -> None:
    codes = {trap.code for trap in look_at(sys.executable, [CPU]).traps}
    assert codes == {"no_vllm"}
    with pytest.raises(UsageError, match="cannot be started: No such file"):
        look_at(str(tmp_path / "python"), [CPU])
    with pytest.raises(UsageError, match="is no Python that can be looked at"):
        look_at("/bin/false", [CPU])


def test_devices_shows_them(environment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    aiprof("devices", "--python", sys.executable)
    assert "vLLM is not installed here" in capsys.readouterr().out
    aiprof("devices", "--python", sys.executable, "--json")
    document = json.loads(capsys.readouterr().out)
    assert [trap["code"] for trap in document["vllm"]["traps"]] == ["no_vllm"]


@pytest.mark.parametrize(
    "printed",
    [
        "",
        "[]",
        "7",
        '{"traps": 1}',
        '{"python": "3"}',
        '{"traps": [{"code": "a"}]}',
        '{"traps": ["a"]}',
        "[" * 9999,
    ],
)
def test_what_is_no_answer_of_the_look_is_refused(printed: str) -> None:
    with pytest.raises(UsageError, match="is no Python that can be looked at: Killed"):
        environment_in(printed, "Traceback\nKilled\n", "python3", [CPU])


def test_what_is_shown_of_an_environment_cannot_move_the_cursor_or_break_a_pipe() -> None:
    trap = {"code": "a\x1b[2J", "text": "b\ud800", "remedy": "c" * 9999}
    (found,) = environment_in(json.dumps({"traps": [trap]}), "", "python3", [CPU]).traps
    assert (found.code, found.text, len(found.remedy)) == ("a [2J", "b ", 1000)
