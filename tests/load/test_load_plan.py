"""URLs, limits, keys, traces and ramps: what a user gives."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from profiler.errors import InputFileError, UsageError
from profiler.load.arrivals import peak_rate
from profiler.load.endpoint import parse_endpoint
from profiler.load.fleet import split
from profiler.load.job import Job
from profiler.load.plan import ramp, read_trace
from profiler.load.prompts import Features, PromptSpec, RequestBuilder
from profiler.load.redact import api_key, redact
from profiler.load.slo import Slo, parse_slo, parse_slos


@pytest.mark.parametrize(
    ("text", "port", "base", "reach"),
    [
        ("localhost:8000", 8000, "/v1", "loopback"),
        ("http://10.0.0.1", 80, "/v1", "private"),
        ("https://api.example.com/openai/v1/", 443, "/openai/v1", "public"),
        ("http://[::1]:9/v1/chat/completions", 9, "/v1", "loopback"),
    ],
)
def test_urls_are_taken_apart(text: str, port: int, base: str, reach: str) -> None:
    endpoint = parse_endpoint(text)
    assert (endpoint.port, endpoint.base, endpoint.reach) == (port, base, reach)
    assert endpoint.host not in endpoint.key


@pytest.mark.parametrize(
    "text", ["http://user:secret@x", "ftp://x", "http://", "http://x?key=secret", "http://x:99999"]
)
def test_urls_that_cannot_be_used_are_refused_without_their_secrets(text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_endpoint(text)
    assert "secret" not in str(error.value)


def test_limits_are_read() -> None:
    assert parse_slo("ttft_p99=0.5s") == Slo("ttft", 0.5, 99.0)
    assert parse_slo("tpot=50ms") == Slo("tpot", 0.05)


@pytest.mark.parametrize("text", ["ttft", "tfft_p99=1s", "ttft_p99=1", "ttft=0s", "ttft_p0=1s"])
def test_limits_that_say_nothing_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_slo(text)


def test_a_metric_has_one_limit() -> None:
    with pytest.raises(UsageError):
        parse_slos(("ttft=1s", "ttft=2s"))


def test_messages_lose_keys_and_urls() -> None:
    text = redact("key abc123 (Bearer sk-12345678) at https://host.example/path\x1b[31m", "abc123")
    assert "abc123" not in text
    assert "12345678" not in text
    assert "host.example" not in text
    assert "\x1b" not in text


def test_a_key_must_fit_into_a_header() -> None:
    assert api_key("K", {"K": " sk-1 "}) == "sk-1"
    assert api_key("K", {}) is None
    with pytest.raises(UsageError):
        api_key("K", {"K": "a\r\nX: y"})


def test_traces_of_both_kinds(tmp_path: Path) -> None:
    azure = tmp_path / "azure.csv"
    azure.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.9799600,374,44\n2023-11-16 18:17:04.0319600,396,109\n"
    )
    trace = read_trace(azure)
    assert trace.at_s == pytest.approx([0, 0.052], abs=1e-6)
    assert trace.output_tokens.tolist() == [44, 109]
    mooncake = tmp_path / "mooncake.jsonl"
    mooncake.write_text(
        '{"timestamp": 3000, "input_length": 700, "output_length": 5, "hash_ids": [1, 2]}\n'
        '{"timestamp": 0, "input_length": 600, "output_length": 7, "hash_ids": [1, 3]}\n'
    )
    trace = read_trace(mooncake)
    assert trace.at_s.tolist() == [0, 3]
    spec = PromptSpec("trace", 0, hash_ids=trace.hash_ids)
    builder = RequestBuilder((), "completions", "m", spec, Features())
    first, second = builder.ids(0, 600), builder.ids(1, 700)
    assert (len(first), len(second)) == (600, 700)
    assert first[:512] == second[:512]
    assert first[512:] != second[512:600]


def test_a_trace_with_faults_names_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"timestamp": -1, "input_length": 1, "output_length": 1}\n{"timestamp": 1}\n')
    with pytest.raises(InputFileError) as error:
        read_trace(path)
    assert [fault.split(":")[1] for fault in error.value.faults] == ["1", "2"]


def test_a_ramp_has_the_rate_that_it_should_at_every_moment() -> None:
    due = ramp(10, 30, 10)
    assert len(due) == 200
    assert due.max() < 10
    for moment in (0.0, 5.0, 9.0):
        wanted = 10 * moment + moment**2
        assert np.searchsorted(due, moment) == pytest.approx(wanted, abs=1)
    assert peak_rate(np.arange(100) / 50) == pytest.approx(50, rel=0.03)


def test_processes_share_all_streams_and_requests() -> None:
    job = Job(
        (parse_endpoint("x:1"),), "completions", "m", PromptSpec("s", 0), Features(),
        np.array([1]), np.array([1]), concurrency=7, count=100, warm_up=5,
    )  # fmt: skip
    shares = split(job, 3)
    assert sum(share.concurrency for share in shares) == 7
    assert sum(share.warm_up for share in shares) == 5
    numbers = [index for share in shares for index in range(share.first, 100, share.step)]
    assert sorted(numbers) == list(range(100))
    assert Job.from_json(job.to_json()).to_json() == job.to_json()


@pytest.mark.parametrize(
    "content",
    [
        b"TIMESTAMP,ContextTokens\r,GeneratedTokens\n1,2,3\n",
        b"TIMESTAMP,ContextTokens,GeneratedTokens\n1,2,\r9\n",
        b"TIMESTAMP,ContextTokens,GeneratedTokens\n1," + b"2" * 200_000 + b",3\n",
        b'{"timestamp": ' + b"[" * 100_000,
        b'{"timestamp": ' + b"9" * 400 + b', "input_length": 1, "output_length": 1}',
    ],
)
def test_what_a_fuzzer_found_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "trace"
    path.write_bytes(content)
    with pytest.raises(InputFileError):
        read_trace(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "trace")
    with pytest.raises(InputFileError, match="not a regular one"):
        read_trace(tmp_path / "trace")
