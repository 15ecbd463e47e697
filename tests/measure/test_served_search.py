"""Searches for the most users of a server that is started for each point."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from served_truth import aiprof
from vllm_stand_in import Worker, alive, pids_in, use_stand_in, write_model

from profiler.analysis.slo_search import search_answer
from profiler.analysis.verify import verify_run
from profiler.engines.vllm import VllmEngine
from profiler.errors import UsageError
from profiler.load.ceiling import ClientCost
from profiler.load.search import Search
from profiler.measure import prepare, served_search, served_start
from profiler.measure.request import SweepRequest
from profiler.measure.served_search import _highest
from profiler.results.read import read_run
from profiler.results.schema import EngineRecord, NoiseFloor
from profiler.results.store import CHECKSUMS_FILE

LIMITS = ("--slo", "ttft_p90=60s", "--slo", "tpot_p90=60s")
HOW = ("--device", "cpu", "--scenario", "decode-128", "--no-fidelity", "--quiet")
FAST = ("--engine-option", "requests=70", "--engine-option", "warm_up=0")


@pytest.fixture(autouse=True)
def _without_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be asked of a vLLM but what the stand-in for its server answers."""

    def acquaint(selection, engine, device, timeouts, log_path):  # type: ignore[no-untyped-def]
        record = EngineRecord(name="vllm", version="1", python="3.11", simulated=False, details={})
        rates = (1e10, 1e10)
        floor = NoiseFloor(
            device_key=device.key, engine="vllm", method="read", bytes_per_s=rates, tolerance=0.05
        )
        return record, floor, []

    monkeypatch.setattr(prepare, "_acquaint", acquaint)
    monkeypatch.setattr(served_start, "WorkerProcess", Worker)
    for module in (served_start, served_search):
        monkeypatch.setattr(module, "client_cost", lambda tokens: ClientCost(1e-4, 1e-5))


def what(folder: Path) -> tuple[str, ...]:
    return ("--engine", "vllm", "--model", str(write_model(folder)), *HOW)


def test_every_point_is_a_case_on_a_server_of_its_own_and_resume_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pids = use_stand_in(tmp_path, monkeypatch, "small")
    path = tmp_path / "run"
    write_model(tmp_path)
    # Temporary folders are left out of records, so that their models could not be found again.
    monkeypatch.chdir(tmp_path)
    flags = (
        "--engine",
        "vllm",
        "--model",
        "./tiny",
        *HOW,
        *FAST,
        "--search",
        *LIMITS,
        "--to",
        "8",
        "--out",
        str(path),
    )
    assert aiprof("sweep", *flags) == 1  # servers for three users and more do not start
    assert "2 users keep ttft_p90=60s, tpot_p90=60s; 3 fail" in capsys.readouterr().out
    run = read_run(path)
    assert run.complete
    assert [case.spec.batch for case in run.cases] == [1, 2, 4, 3]
    assert [case.status for case in run.cases] == ["ok", "ok", "failed", "failed"]
    for case in run.cases[:2]:
        assert case.served is not None
        assert [one.verdict for one in case.served.judgements] == ["holds", "holds"]
        (server,) = case.served.servers
        assert server.flags[server.flags.index("--max-num-seqs") + 1] == str(case.spec.batch)
    assert "no room for the cache" in " ".join(run.cases[2].failure.log_tail)  # type: ignore[union-attr]
    settings = run.record.settings.search
    assert settings is not None
    assert (settings.over, settings.low, settings.high) == ("concurrency", 1.0, 8.0)
    assert verify_run(path).findings == ()
    assert not any(map(alive, pids_in(pids)))
    # What is lost is measured again in the order of the search, and nothing else.
    lines = (path / "cases.jsonl").read_bytes().splitlines(keepends=True)
    (path / "cases.jsonl").write_bytes(b"".join(lines[:2]))
    (path / CHECKSUMS_FILE).unlink()
    assert aiprof("sweep", "--resume", str(path), "--quiet") == 1
    again = read_run(path)
    assert again.complete
    assert [case.spec.case_id for case in again.cases] == [case.spec.case_id for case in run.cases]
    assert again.cases[:2] == run.cases[:2]
    answer = search_answer(again)
    assert answer is not None
    assert (answer.holds, answer.fails, answer.complete) == (2.0, 3.0, True)


def test_a_dry_run_states_the_hours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = (*what(tmp_path), *LIMITS, "--to", "8", "--dry-run", "--budget", "2h")
    assert aiprof("sweep", *flags) == 0
    shown = capsys.readouterr().out
    assert "search for the highest users from 1 to 8 that keep ttft_p90=60s, tpot_p90=60s" in shown
    points = Search("concurrency", 1.0, 8.0).most_points()
    assert f"at most {points} point(s) of at most {7200 / points:.0f} s: at most 2.00 h" in shown
    (tmp_path / "more").mkdir()
    assert aiprof("sweep", *what(tmp_path / "more"), *LIMITS, "--dry-run", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["search"]["hours"] == pytest.approx(document["settings"]["budget_s"] / 3600)
    assert document["search"]["points"] * document["cases"][0]["seconds"] == pytest.approx(
        document["settings"]["budget_s"]
    )


def test_a_preset_of_limits_travels_as_its_limits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = (
        *what(tmp_path),
        "--slo-preset",
        "mlperf-llama3.1-8b",
        "--slo",
        "tpot_p99=50ms",
        "--dry-run",
        "--json",
    )
    assert aiprof("sweep", *flags) == 0
    search = json.loads(capsys.readouterr().out)["settings"]["search"]
    assert search["slos"] == ["tpot_p99=0.05s", "ttft_p99=2s"]
    # The command of the record holds the limits, and a run goes on with them.
    use_stand_in(tmp_path, monkeypatch)
    (tmp_path / "more").mkdir()
    monkeypatch.chdir(tmp_path / "more")
    write_model(tmp_path / "more")
    preset = ("--slo-preset", "mlperf-llama2-70b")
    flags = ("--engine", "vllm", "--model", "./tiny", *HOW, *FAST, "--concurrency", "1", "--concurrency", "2")
    assert aiprof("sweep", *flags, *preset, "--out", "run") == 0
    capsys.readouterr()
    run = read_run(Path("run"))
    assert (
        SweepRequest.from_arguments(run.record.command).engine_options["slo"] == "ttft_p99=2s,tpot_p99=0.2s"
    )
    assert [one.served.slos for one in run.cases if one.served] == [("ttft_p99=2s", "tpot_p99=0.2s")] * 2
    lines = Path("run/cases.jsonl").read_bytes().splitlines(keepends=True)
    Path("run/cases.jsonl").write_bytes(lines[0])
    Path("run", CHECKSUMS_FILE).unlink()
    assert aiprof("sweep", "--resume", "run", "--quiet", "--slo-preset", "mlperf-llama3.1-8b", *FAST) == 2
    assert "was made with other flags" in capsys.readouterr().err
    assert aiprof("sweep", "--resume", "run", "--quiet", *preset, *FAST) == 0
    assert len(read_run(Path("run")).cases) == 2


def test_the_search_ends_where_memory_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # 20 MB beside the reserve of a case; a user takes 65 kB.
    monkeypatch.setattr(prepare, "_free_bytes", lambda selection, device: 512 * 2**20 + 20 * 10**6)
    assert aiprof("sweep", *what(tmp_path), *LIMITS, "--dry-run", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    high = int(document["settings"]["search"]["high"])
    (beyond,) = document["skipped"]
    assert 1 < high < 1024
    assert beyond["spec"]["load"]["concurrency"] == high + 1
    assert beyond["lacking_bytes"] > 0


def test_a_search_over_rates_drives_one_kind_of_server_and_resume_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pids = use_stand_in(tmp_path, monkeypatch)
    path = tmp_path / "run"
    write_model(tmp_path)
    monkeypatch.chdir(tmp_path)
    flags = (
        "--engine", "vllm", "--model", "./tiny", *HOW, *FAST, "--engine-option", "max_num_seqs=6",
        "--search", "rate", "--from", "40", "--to", "80", *LIMITS, "--out", str(path),
    )  # fmt: skip
    assert aiprof("sweep", *flags) == 0
    assert "80 requests/s keep ttft_p90=60s, tpot_p90=60s, the highest allowed" in capsys.readouterr().out
    run = read_run(path)
    assert run.complete
    assert verify_run(path).findings == ()
    for case, rate in zip(run.cases, (40.0, 80.0), strict=True):
        assert case.spec.load is not None
        assert (case.spec.load.loop, case.spec.load.rate_per_s, case.spec.batch) == ("open", rate, 6)
        assert case.served is not None
        assert case.served.requests == 70
        assert [one.verdict for one in case.served.judgements] == ["holds", "holds"]
        (server,) = case.served.servers
        assert server.flags[server.flags.index("--max-num-seqs") + 1] == "6"
    assert not any(map(alive, pids_in(pids)))
    lines = (path / "cases.jsonl").read_bytes().splitlines(keepends=True)
    (path / "cases.jsonl").write_bytes(lines[0])
    (path / CHECKSUMS_FILE).unlink()
    assert aiprof("sweep", "--resume", str(path), "--quiet") == 0
    again = read_run(path)
    assert [case.spec.case_id for case in again.cases] == [case.spec.case_id for case in run.cases]
    assert again.cases[0] == run.cases[0]


def test_a_search_that_saw_too_few_requests_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_stand_in(tmp_path, monkeypatch)
    few = ("--engine-option", "requests=8", "--engine-option", "warm_up=0")
    assert aiprof("sweep", *what(tmp_path), *LIMITS, *few, "--to", "4", "--out", str(tmp_path / "run")) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert (
        "no load that was measured keeps ttft_p90=60s, tpot_p90=60s; undecided: 1 (too few requests" in words
    )
    assert len(read_run(tmp_path / "run").cases) == 1


def test_a_rate_finds_as_many_seats_as_fit_and_ends_where_the_client_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def planned(free_bytes: int, *more: str) -> dict[str, Any]:
        monkeypatch.setattr(prepare, "_free_bytes", lambda selection, device: free_bytes)
        folder = tmp_path / str(free_bytes)
        folder.mkdir(exist_ok=True)
        model = folder / "tiny" if (folder / "tiny").exists() else write_model(folder)
        flags = ("--engine", "vllm", "--model", str(model), *HOW, "--search", "rate", *more)
        assert aiprof("sweep", *flags, *LIMITS, "--dry-run", "--json") == 0
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return document

    plenty, scarce = planned(64 * 2**30), planned(2 * (512 * 2**20 + 10 * 10**6))
    assert plenty["cases"][0]["spec"]["batch"] == served_search.MOST_SEATS
    assert 1 < scarce["cases"][0]["spec"]["batch"] < served_search.MOST_SEATS
    assert planned(64 * 2**30, "--engine-option", "max_num_seqs=5")["cases"][0]["spec"]["batch"] == 5
    # 1e-4 s a request and 1e-5 s for each of 128 tokens.
    ceiling = served_search.CLIENT_SHARE * len(os.sched_getaffinity(0)) / (1e-4 + 128e-5)
    assert plenty["settings"]["search"]["high"] == pytest.approx(min(1024.0, ceiling), rel=0.01)
    beyond = planned(64 * 2**30, "--to", "1000000")
    assert beyond["settings"]["search"]["high"] == pytest.approx(ceiling, rel=0.01)
    (skipped,) = beyond["skipped"]
    assert skipped["spec"]["load"]["rate_per_s"] == 1e6
    assert "the client can drive" in skipped["reason"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--search", "--concurrency", "2", *LIMITS), "--search chooses the load itself"),
        (("--search",), "--search needs limits of percentiles"),
        (("--slo-preset", "mlperf-llama3.1-8"), "mlperf-llama3.1-8b"),
        (("--slo-preset", "mlperf-llama3.1-8b", "--engine-option", "slo=e2e=1s"), "give one"),
        (("--slo-preset", "mlperf-llama3.1-8b", "--concurrency", "2", "--search"), "chooses the load itself"),
        (("--search", "rate", "--from", "1e5", "--to", "1e6", *LIMITS), "the client can drive"),
        (("--search", "rate", "--concurrency", "2", *LIMITS), "leave out --concurrency"),
        (("--search", "rate", "--budget", "9s", *LIMITS), "requests/s has up to"),
        (("--engine-option", "search=rate", "--engine-option", "from=0", *LIMITS), "from 0.001 to"),
        (("--concurrency", "2", "--to", "8", *LIMITS), "--from and --to go with --search"),
        (("--scenario", "chat", *LIMITS), "name one --scenario"),
        (("--budget", "9s", *LIMITS), "narrower --from, --to"),
        (("--to", "2.5", *LIMITS), "must be a whole number"),
        (("--engine-option", "mode=offline", *LIMITS), "is for loads on a server"),
    ],
)
def test_what_does_not_go_with_a_search_is_refused_in_one_line(
    flags: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert aiprof("sweep", *what(tmp_path), *flags, "--out", str(tmp_path / "run")) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("engine", ["fake", "torch", "llamacpp"])
def test_engines_without_a_server_refuse_in_one_line(engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    what = ("--engine", engine, "--model", "qwen2.5-0.5b", "--scenario", "decode-128", "--quiet")
    assert aiprof("sweep", *what, "--search", *LIMITS) == 2
    error = capsys.readouterr().err.strip()
    assert f"engine {engine} makes no loads" in error
    assert "aiprof load URL --search concurrency" in error
    assert len(error.splitlines()) == 1
    assert aiprof("sweep", *what, "--slo-preset", "mlperf-llama3.1-8b") == 2
    assert f"engine {engine} makes no loads" in capsys.readouterr().err


def test_users_of_a_search_are_whole_numbers_however_the_flag_writes_them() -> None:
    given = {"search": "concurrency", "from": "2.0", "to": "16", "slo": "ttft_p90=1s"}
    serving = VllmEngine().serving(given, asked=True)
    assert serving is not None
    assert (serving.search, serving.low, serving.high) == ("concurrency", 2, 16)
    with pytest.raises(UsageError, match="whole number"):
        VllmEngine().serving({**given, "to": "2.5"}, asked=True)


@pytest.mark.parametrize("most", [1, 2, 500, 1023])
def test_the_highest_that_fits_is_found(most: int) -> None:
    assert _highest(lambda level: level <= most, 1, 1024) == most
