"""The example policy with service-level objectives, on loads made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from load_runs import ttfts, write_loads
from load_tables import table_of

from profiler.cli.gate import command
from profiler.results.schema import FormatsRecord

POLICY = Path(__file__).parents[2] / "docs" / "examples" / "chat-slo.yaml"
BF16 = FormatsRecord(weight_format="bf16", compute_dtype="bf16", kv_dtype="bf16")
SLOS = ("ttft_p90=1s", "ttft_p99=2s", "tpot_p90=0.05s")


def judged(
    folder: Path, ttft_ms: float, *, gap_ms: float = 20.0, n: int = 800, runs: int = 3
) -> dict[str, str]:
    """Return the verdict (``""``) and the outcome of each requirement."""
    for number in range(runs):
        requests = table_of(ttfts(n, ttft_ms, number), gap_ms=gap_ms)
        write_loads(
            folder / f"run-{number}", {32: requests}, "a server", SLOS,
            model="qwen2.5-7b", scenario="chat", formats=BF16,
        )  # fmt: skip
    paths = [str(folder / f"run-{number}") for number in range(runs)]
    result = CliRunner().invoke(command, [str(POLICY), *paths, "--json"], standalone_mode=False)
    assert result.exception is None
    (candidate,) = json.loads(result.stdout)["candidates"]
    return {line["requirement"]: line["outcome"] for line in candidate["lines"]} | {
        "": str(candidate["outcome"]), "exit code": str(result.return_value)
    }  # fmt: skip


def test_a_fast_server_passes(tmp_path: Path) -> None:
    found = judged(tmp_path, 300)
    assert set(found.values()) == {"pass", "0"}
    assert len(found) == 7


@pytest.mark.parametrize(
    ("ttft_ms", "gap_ms", "failing"),
    [
        (1500, 20, {"first-word", "content-users", "good-requests"}),
        (300, 80, {"reading-speed", "content-users", "good-requests"}),
    ],
)
def test_a_slow_server_fails_what_it_misses(
    tmp_path: Path, ttft_ms: float, gap_ms: float, failing: set[str]
) -> None:
    found = judged(tmp_path, ttft_ms, gap_ms=gap_ms)
    assert (found[""], found["exit code"]) == ("fail", "1")
    assert failing <= {name for name, outcome in found.items() if outcome == "fail"}


def test_few_requests_or_one_load_are_undecided(tmp_path: Path) -> None:
    few = judged(tmp_path / "few", 300, n=100)
    assert (few["first-word"], few["first-word-of-the-unlucky"], few["exit code"]) == (
        "pass",
        "undecided",
        "3",
    )
    once = judged(tmp_path / "once", 300, runs=1)
    assert once["first-word"] == "undecided"
    assert once["exit code"] == "3"
