"""Sweeps on a server by URL: loads in the same store, resumed like any other, with the sensors of the box."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from served_truth import aiprof, truth_server

from profiler.analysis.verify import verify_run
from profiler.results.read import read_run
from profiler.results.store import CHECKSUMS_FILE

WHAT = ("--engine", "endpoint", "--model", "qwen2.5-0.5b", "--precision", "bf16", "--device", "cpu")
HOW = ("--scenario", "decode-128", "--concurrency", "1", "--concurrency", "2", "--quiet")


def options(url: str, **more: str) -> list[str]:
    pairs = {"url": url, "simulated": "yes", "requests": "3", "warm_up": "0"} | more
    return [word for key, text in pairs.items() for word in ("--engine-option", f"{key}={text}")]


def test_a_sweep_on_a_server_is_a_run_like_any_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    with truth_server(ttft_ms=2, gap_ms=0.2) as url:
        code = aiprof("sweep", *WHAT, *HOW, *options(url, slo="ttft_p90=60s"), "--out", str(path))
        assert code == 0
        assert "SIMULATED" in capsys.readouterr().out
        run = read_run(path)
        assert run.complete
        assert run.record.simulated
        assert [case.spec.batch for case in run.cases] == [1, 2]
        for case in run.cases:
            assert case.simulated
            assert case.served is not None
            assert (case.served.requests, case.served.ok) == (3, 3)
            assert case.served.slos == ("ttft_p90=60s",)
            assert case.fidelity is not None
            assert case.fidelity.verdict == "not_checked"
            assert "weights" in str(case.fidelity.reason)
            assert {check.name: check.passed for check in case.fidelity.checks}["distinct"] is True
            assert {"simulated", "fidelity_not_checked"} <= {flag.code for flag in case.flags}
            assert {"trials", "idle"} <= {record.phase for record in case.energies}
            assert "energy_per_output_token_j" in case.measurements
            assert "decode_energy_per_token_j" not in case.measurements
        assert verify_run(path).findings == ()
        assert (path / "report.html").exists()
        everything = b"".join(file.read_bytes() for file in path.rglob("*") if file.is_file())
        assert b"127.0.0.1" not in everything
        # The last case is lost; resume measures it, and nothing else, once it is told where the server is.
        lines = (path / "cases.jsonl").read_bytes().splitlines(keepends=True)
        (path / "cases.jsonl").write_bytes(lines[0])
        (path / CHECKSUMS_FILE).unlink()
        assert aiprof("sweep", "--resume", str(path), "--quiet") == 2
        assert "--url http://HOST:PORT" in capsys.readouterr().err
        assert aiprof("sweep", "--resume", str(path), "--quiet", "--engine-option", f"url={url}") == 0
    again = read_run(path)
    assert again.complete
    assert again.cases[0] == run.cases[0]
    assert [case.spec.case_id for case in again.cases] == [case.spec.case_id for case in run.cases]


def test_a_server_that_fails_leaves_failed_cases(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with truth_server(ttft_ms=2, gap_ms=0.2, slots=1) as url:
        code = aiprof("sweep", *WHAT, *HOW, *options(url), "--out", str(path))
    assert code == 0  # some requests of two users succeed
    run = read_run(path)
    assert run.cases[0].served is not None
    assert run.cases[0].served.failures == {}
    assert run.cases[1].served is not None
    assert run.cases[1].served.failures.get("http_5xx", 0) > 0
    assert (
        aiprof(
            "sweep",
            *WHAT,
            *HOW,
            *options("http://127.0.0.1:9", served_model="m"),
            "--out",
            str(tmp_path / "y"),
        )
        == 4
    )
    assert not (tmp_path / "y").exists()


SEARCH = ("--scenario", "decode-128", "--slo", "ttft_p90=60s", "--slo", "tpot_p90=60s", "--quiet")


def test_limits_alone_search_for_the_most_users_that_keep_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    fast = ("--engine-option", "simulated=yes", "--engine-option", "warm_up=0", "--no-fidelity")
    # Long enough that four users overlap however busy the machine is.
    with truth_server(ttft_ms=25, gap_ms=0.01, slots=3) as url:
        how = (*WHAT, *SEARCH, *fast, "--engine-option", "requests=70", "--url", url, "--to", "8")
        assert aiprof("sweep", *how, "--out", str(path)) == 0
        shown = capsys.readouterr().out
        run = read_run(path)
        # From a fourth user on some are refused. All points are cases, and the curve on the way.
        assert [case.spec.batch for case in run.cases] == [1, 2, 4, 3]
        assert "3 users keep ttft_p90=60s, tpot_p90=60s; 4 fail" in shown
        assert all(case.served and case.served.judgements for case in run.cases)
        assert all("energy_per_output_token_j" in case.measurements for case in run.cases)
        assert verify_run(path).findings == ()
        # What is lost is measured again in the order of the search, and nothing else.
        lines = (path / "cases.jsonl").read_bytes().splitlines(keepends=True)
        (path / "cases.jsonl").write_bytes(b"".join(lines[:2]))
        (path / CHECKSUMS_FILE).unlink()
        assert aiprof("sweep", "--resume", str(path), "--quiet", "--url", url) == 0
    again = read_run(path)
    assert [case.spec.batch for case in again.cases] == [1, 2, 4, 3]
    assert again.cases[:2] == run.cases[:2]
    assert b"127.0.0.1" not in b"".join(file.read_bytes() for file in path.rglob("*") if file.is_file())


def test_a_dry_run_of_a_search_states_the_hours(capsys: pytest.CaptureFixture[str]) -> None:
    flags = (*WHAT, *SEARCH, "--url", "http://127.0.0.1:9", "--dry-run")
    assert aiprof("sweep", *flags, "--json") == 0
    (search,) = json.loads(capsys.readouterr().out)["searches"]
    assert search["hours"] == pytest.approx(search["points"] * 120 / 3600)
    assert aiprof("sweep", *flags, "--budget", "2h", "--search", "rate") == 0
    assert "at most 2.00 h" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--concurrency", "2", "--search", "rate"), "leave out --concurrency"),
        (("--from", "9", "--to", "3"), "lower end first"),
        (("--scenario", "chat"), "one --scenario"),
        (("--engine-option", "slo=e2e=1s"), "give one"),
        (("--engine-option", "search=users"), "concurrency or rate"),
        (("--engine-option", "to=many"), "a number above 0"),
    ],
)
def test_a_search_that_cannot_be_is_refused(
    flags: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert aiprof("sweep", *WHAT, *SEARCH, "--url", "http://127.0.0.1:9", "--dry-run", *flags) == 2
    assert message in capsys.readouterr().err


def test_a_dry_run_lists_the_loads(capsys: pytest.CaptureFixture[str]) -> None:
    flags = (*WHAT, *HOW, *options("http://127.0.0.1:9"), "--budget", "2m", "--dry-run", "--json")
    assert aiprof("sweep", *flags) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["seconds"] == 120
    assert [case["concurrency"] for case in document["cases"]] == [1, 2]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--model", "qwen2.5-0.5b"), "--model and --precision"),
        (("--model", "qwen2.5-0.5b", "--precision", "bf16"), "--url http://HOST:PORT"),
        (("--engine", "torch", "--model", "qwen2.5-0.5b", "--precision", "bf16"), "no other engine"),
    ],
)
def test_what_does_not_go_with_a_server_is_refused(
    flags: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert aiprof("sweep", "--engine", "endpoint", *flags, "--quiet") == 2
    assert message in capsys.readouterr().err
