"""A load on two machines: `aiprof power --record` on each, `aiprof load`, then `aiprof energy`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from fakes.power import compile_fake, write_config
from served_truth import aiprof, truth_server

UUIDS = ("GPU-00000001-1111-2222-3333-444444444444", "GPU-00000002-1111-2222-3333-444444444444")
WATTS = (300.0, 200.0)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nvml")
    if compile_fake("fake_nvml.c", folder / "libnvidia-ml.so.1") is None:
        pytest.skip("the fake library needs a C compiler (cc or gcc)")
    return folder


def record(library: Path, folder: Path, number: int) -> subprocess.Popen[str]:
    """Begin to record a node with one GPU of known power."""
    config = {"t0": repr(time.monotonic()), "gpus": 1, "0.uuid": UUIDS[number], "0.update_ms": 20}
    write_config(folder / f"node{number}.conf", config | {"0.profile": f"0:{WATTS[number]}"})
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIPROF_", "CUDA_"))}
    return subprocess.Popen(
        [sys.executable, "-m", "profiler", "power", "--record", str(folder / f"node{number}.parquet")],
        env=kept | {"LD_LIBRARY_PATH": str(library), "FAKE_NVML_CONFIG": str(folder / f"node{number}.conf")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def sampling(process: subprocess.Popen[str]) -> bool:
    """Whether the recorder has its sampler, and the sampler has had the time to open its sensors."""
    children = psutil.Process(process.pid).children()
    return any("sampler_process" in " ".join(child.cmdline()) for child in children)


def test_joules_per_token_of_a_load_on_two_machines(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorders = [record(library, tmp_path, number) for number in (0, 1)]
    try:
        for one in recorders:  # says what it reads once its sampler runs
            assert one.stderr is not None
            assert "Ctrl-C" in one.stderr.readline()
            assert sampling(one)
        time.sleep(0.5)  # a window needs reads before it
        with truth_server(ttft_ms=2, gap_ms=5) as url:
            shape = (
                "--prompt-tokens",
                "16",
                "--output-tokens",
                "32",
                "--concurrency",
                "2",
                "--seconds",
                "3s",
            )
            assert aiprof("load", url, *shape, "--out", str(tmp_path / "run"), "--quiet") == 0
        time.sleep(1.0)
    finally:
        for one in recorders:
            one.send_signal(signal.SIGINT)
        codes = [one.wait(60) for one in recorders]
        for one in recorders:
            assert one.stderr is not None
            one.stderr.close()
    assert codes == [0, 0]
    files = [str(tmp_path / f"node{number}.parquet") for number in (0, 1)]
    capsys.readouterr()
    assert aiprof("energy", str(tmp_path / "run"), *files, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["simulated"]
    (case,) = document["cases"]
    for number, part in enumerate(case["parts"]):
        assert part["device"] == UUIDS[number]
        assert abs(part["energy_j"] - WATTS[number] * case["seconds"]) <= part["energy_bound_j"]
    (total,) = case["sums"]
    assert total["parts"] == 2
    assert abs(total["energy_j"] - sum(WATTS) * case["seconds"]) <= total["energy_bound_j"]
    assert total["energy_per_output_token_j"] == pytest.approx(total["energy_j"] / case["output_tokens"])
    assert aiprof("energy", str(tmp_path / "run"), *files) == 0
    shown = capsys.readouterr().out
    assert "SIMULATED" in shown
    assert "J per output token" in shown


def test_what_is_no_recording_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.parquet").write_text("no")
    assert aiprof("energy", str(tmp_path / "run"), str(tmp_path / "x.parquet")) == 2
    assert "aiprof power --record" in capsys.readouterr().err
