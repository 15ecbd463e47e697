"""The list of benchmarks is true: what it names exists, and what can be run by itself is on it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = {"gpu_check", "gpu_sensors", "llamacpp_peer", "transformers_generate", "truth_server"}


def listed() -> set[str]:
    return set(re.findall(r"^\| `([a-z_.]+)` \|", (ROOT / "benchmarks/README.md").read_text(), re.MULTILINE))


def test_every_benchmark_is_listed_and_exists() -> None:
    programs = {
        path.stem
        for path in (ROOT / "benchmarks").glob("*.py")
        if 'if __name__ == "__main__":' in path.read_text()
    }
    assert programs - PARTS == {name for name in listed() if "." not in name}
    assert all((ROOT / "benchmarks" / name).exists() for name in listed() if "." in name)


def test_make_bench_runs_listed_ones() -> None:
    text = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    match = re.search(r"^BENCHMARKS \?= (.*)$", text, re.MULTILINE)
    assert match is not None
    assert set(match[1].split()) < listed() - {"fit_prediction", "fuzz_readers"}
