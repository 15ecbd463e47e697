"""Cases on several devices: made-up ones, and two GPUs of a library without any."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from energy_runs import WATTS, clean, gpu_environment
from fakes.power import write_config
from served_truth import aiprof

from profiler.analysis.compare import compare_runs
from profiler.analysis.verify import verify_run
from profiler.results.read import read_run

R1 = ("sweep", "--engine", "fake", "--model", "deepseek-r1", "--precision", "fp8-block128", "--quiet")
EIGHT = ("--device", "fake-mi300x", "--tp", "8", "--ep", "8", "--budget", "2h")
WHAT = ("--scenario", "decode-128", "--concurrency", "8")


def test_deepseek_r1_on_eight_cards_is_one_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert aiprof(*R1, *EIGHT, *WHAT, "--dry-run") == 0
    assert "8 x 8" in capsys.readouterr().out  # 8 x 8x GiB
    path = tmp_path / "run"
    assert aiprof(*R1, *EIGHT, *WHAT, "--out", str(path)) == 0
    assert "8 x simulated MI300X-like device" in capsys.readouterr().out
    run = read_run(path)
    (case,) = run.cases
    assert str(case.spec.parallel) == "tp 8 · ep 8"
    assert len(set(case.spec.device_keys)) == 8
    assert len(run.record.devices) == 8
    assert case.predicted is not None
    assert case.predicted.device_needed_bytes is not None
    assert 80e9 < case.predicted.device_needed_bytes < 100e9
    mbu = case.measurements["mbu"].value
    assert mbu is not None
    assert mbu < 1  # of all eight devices
    assert verify_run(path).findings == ()
    assert "tp 8 · ep 8" in (path / "report.html").read_text()


def test_it_is_never_compared_with_one_device_or_another_spread(tmp_path: Path) -> None:
    small = ("sweep", "--engine", "fake", "--model", "llama-3.1-8b", "--device", "fake-mi300x", "--quiet")
    paths = []
    for name, flags in (("one", ()), ("two", ("--tp", "2")), ("stages", ("--pp", "2"))):
        paths.append(tmp_path / name)
        assert aiprof(*small, *WHAT, "--budget", "10m", *flags, "--out", str(paths[-1])) == 0
    runs = [read_run(path) for path in paths]
    assert len({run.cases[0].spec.workload_id for run in runs}) == 3
    for other in runs[1:]:
        found = compare_runs([runs[0], other])
        assert not found.pairs[0].cases
        assert found.pairs[0].unmatched


@pytest.mark.parametrize(
    ("flags", "message", "code"),
    [
        (("--tp", "3", "--device", "fake-mi300x"), "--tp 3 does not divide the 128 attention heads", 2),
        (
            ("--tp", "8", "--ep", "8", "--device", "fake-h100", "--budget", "2h"),
            "GB are free on fake-h100",
            4,
        ),
        (
            ("--tp", "2", "--device", "fake-0", "--device", "fake-h100", "--device", "fake-mi300x"),
            "names 3",
            2,
        ),
    ],
)
def test_what_cannot_be_is_refused_before_the_start(
    flags: tuple[str, ...], message: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert aiprof(*R1, *WHAT, *flags) == code
    assert message in capsys.readouterr().err


def test_other_engines_refuse(capsys: pytest.CaptureFixture[str]) -> None:
    for engine in ("torch", "llamacpp"):
        assert aiprof("sweep", "--engine", engine, "--device", "cpu", "--tp", "2", "--quiet") == 2
        assert f"--tp 2: engine {engine} runs on one device" in capsys.readouterr().err


def test_power_and_memory_are_of_each_device_and_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = gpu_environment(tmp_path)
    config = dict(
        line.split("=", 1) for line in (tmp_path / "fake.conf").read_text().split("\n") if "=" in line
    )
    second = {f"1.{name[2:]}": value for name, value in config.items() if name.startswith("0.")}
    second |= {"1.uuid": "GPU-00000002-1111-2222-3333-444444444444", "1.profile": f"0:{WATTS / 2}"}
    write_config(tmp_path / "fake.conf", config | second | {"gpus": 2})
    for name, value in clean(environment).items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "run"
    flags = (
        "--device",
        "cuda",
        "--tp",
        "2",
        "--scenario",
        "decode-128",
        "--concurrency",
        "1",
        "--budget",
        "14s",
    )
    options = ("--engine-option", "real_time=true", "--engine-option", "read_bandwidth=2e11", "--no-fidelity",
               "--budget", "14s")  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "profiler", "sweep", "--engine", "fake", *flags, *options, "--out", str(path)],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (case,) = read_run(path).cases
    covered = {one.covers: one for one in case.energies if one.phase == "trials"}
    keys = [f"device:{key}" for key in case.spec.device_keys]
    assert len(keys) == 2
    watts = []
    for covers in ("device", *keys):
        one = covered[covers]
        assert one.joules is not None, one.reason
        watts.append(one.joules / one.active_s)
    bound = sum((covered[key].bound_j or 0.0) / covered[key].active_s for key in keys)
    assert watts[0] == pytest.approx(1.5 * WATTS, abs=2 * bound + 1)
    assert watts[1:] == pytest.approx([WATTS, WATTS / 2], abs=2 * bound + 1)
    (start,) = case.starts
    assert start.memory is not None
    assert set(start.memory.per_device_used_bytes) == set(case.spec.device_keys)
    assert "2 devices: mean power" in done.stdout
    assert verify_run(path).findings == ()
    assert "Each device of cases on several" in (path / "report.html").read_text()


def test_too_few_devices_are_refused(tmp_path: Path) -> None:
    environment = clean(gpu_environment(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "profiler", "sweep", "--engine", "fake", "--device", "cuda", "--tp", "2"],
        capture_output=True, text=True, check=False, timeout=300, env=environment,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--tp 2 takes 2 devices; from GPU-00000001" in done.stderr
    assert done.stdout == ""
