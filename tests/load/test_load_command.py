"""``aiprof load`` from the command line to a run on disk, with real load processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from truth_server import TruthServer
from truth_thread import serving

from profiler.__main__ import main
from profiler.results.load import load_runs
from profiler.results.read import read_run

KEY = "sk-secret-0123456789"


@pytest.fixture(scope="module")
def server() -> Iterator[TruthServer]:
    with serving() as made:
        yield made


def aiprof(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_a_load_leaves_a_run_that_can_be_read(
    server: TruthServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIPROF_API_KEY", KEY)
    path = tmp_path / "run"
    url = f"http://127.0.0.1:{server.port}"
    shape = ("--prompt-tokens", "8", "--output-tokens", "6")
    code = aiprof(
        "load", url, *shape, "--concurrency", "2,3", "--requests", "70", "--processes", "2",
        "--slo", "ttft_p90=60s", "--json", "--quiet", "--out", str(path),
    )  # fmt: skip
    assert code == 0
    document = json.loads(capsys.readouterr().out)
    assert [case["spec"]["load"]["concurrency"] for case in document["cases"]] == [2, 3]
    run = read_run(path)
    for case in run.cases:
        served = case.served
        assert served is not None
        assert (served.requests, served.ok, len(served.processes)) == (70, 70, 2)
        shares = [one.kernel_stamped for one in served.processes]
        assert all(share is not None and 0 <= share <= 1 for share in shares)
        assert case.measurements["slo_attainment"].value == 1
        assert case.measurements["ttft_p90_s"].value is not None
        assert "662" in str(case.measurements["ttft_p99_s"].reason)
        assert case.samples is not None
        rows = parquet.read_table(path / case.samples.file).to_pylist()
        assert len(rows) == 70
        assert all(len(row["chunk_since_sent_ns"]) == 6 for row in rows)
    frame = load_runs(path)
    assert set(frame["status"]) == {"ok"}
    everything = b"".join(file.read_bytes() for file in path.rglob("*") if file.is_file())
    assert KEY.encode() not in everything
    assert b"127.0.0.1" not in everything


def test_no_prompt_of_a_load_comes_twice_and_the_same_command_asks_the_same(
    server: TruthServer, tmp_path: Path
) -> None:
    def asked(name: str, *more: str) -> list[tuple[int, ...]]:
        server.bodies.clear()
        code = aiprof(
            "load", f"http://127.0.0.1:{server.port}", "--prompt-tokens", "21", "--output-tokens", "3",
            "--concurrency", "1,2", "--requests", "5", "--warm-up", "2", "--no-fidelity", "--quiet",
            "--out", str(tmp_path / name), *more,
        )  # fmt: skip
        assert code == 0
        return [tuple(body["prompt"]) for body in server.bodies if len(body["prompt"]) == 21]

    prompts = asked("first")
    assert len(prompts) == len(set(prompts)) == 2 * (5 + 2)
    series = [case.served.prompt_series for case in read_run(tmp_path / "first").cases if case.served]
    assert len(set(series)) == 2
    assert sorted(asked("again")) == sorted(prompts)
    assert not set(asked("other", "--seed", "1")) & set(prompts)
    prefixes = {prompt[:10] for prompt in asked("shared", "--shared-prefix", "10")}
    assert len(prefixes) == 1


def test_a_server_that_refuses_everything_measures_nothing(
    server: TruthServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--prompt-tokens", "8", "--output-tokens", "6", "--concurrency", "1", "--quiet")
    url = f"http://127.0.0.1:{server.port}"
    code = aiprof("load", url, "--model", "http-400", *flags, "--out", str(tmp_path / "x"))
    assert code == 4
    assert "HTTP 400" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "flags",
    [
        ("--concurrency", "1"),
        ("--concurrency", "0", "--scenario", "chat"),
        ("--concurrency", "1", "--rate", "2", "--scenario", "chat"),
        ("--rate", "1", "--scenario", "chat", "--arrivals", "gamma"),
        ("--concurrency", "1", "--scenario", "chat", "--slo", "tttf=1s"),
        ("--concurrency", "1", "--scenario", "chat", "--requests", "5", "--seconds", "3s"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(flags: tuple[str, ...]) -> None:
    assert aiprof("load", "http://127.0.0.1:9", "--model", "m", *flags) == 2


def test_what_a_server_does_not_understand_is_left_out(server: TruthServer, tmp_path: Path) -> None:
    server.bodies.clear()
    code = aiprof(
        "load", f"http://127.0.0.1:{server.port}", "--model", "strict", "--prompt-tokens", "40",
        "--output-tokens", "4", "--rate", "30", "--requests", "6", "--quiet", "--out", str(tmp_path / "run"),
    )  # fmt: skip
    assert code == 0
    (case,) = read_run(tmp_path / "run").cases
    assert case.spec.load is not None
    assert case.spec.load.prompt == "text"
    assert case.served is not None
    # The server counts words and adds three tokens; two prompts of known length told the client.
    assert case.served.prompt_tokens_received == pytest.approx(40)
    last: dict[str, Any] = server.bodies[-1]
    assert {"ignore_eos", "return_token_ids"} & set(last) == set()


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_ollama_is_driven_with_text_and_its_short_answers_are_flagged(
    server: TruthServer, tmp_path: Path, api: str
) -> None:
    """It refuses token ids, overlooks ``ignore_eos`` without a word, and ends where the model ends."""
    code = aiprof(
        "load", f"http://127.0.0.1:{server.port}", "--model", "ollama", "--api", api, "--prompt-tokens", "40",
        "--output-tokens", "8", "--concurrency", "2", "--requests", "6", "--quiet",
        "--out", str(tmp_path / "run"),
    )  # fmt: skip
    assert code == 0
    (case,) = read_run(tmp_path / "run").cases
    served = case.served
    assert case.spec.load is not None
    assert served is not None
    assert case.spec.load.prompt == "text"
    assert (served.ok, served.token_sources) == (6, {"usage": 6})
    assert served.prompt_tokens_received == pytest.approx(40)
    assert case.samples is not None
    rows = parquet.read_table(tmp_path / "run" / case.samples.file).to_pylist()
    # Four tokens, one a chunk; neither the empty chunk at the end nor that with the usage is one.
    assert all(len(row["chunk_since_sent_ns"]) == 4 for row in rows)
    assert "output_length" in {flag.code for flag in case.flags}
