"""The client against a server of known truth that misbehaves on demand; stamps are held against stamps."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from truth_server import TruthServer

from profiler.load import latency
from profiler.load.client import Client
from profiler.load.endpoint import Api, parse_endpoint
from profiler.load.exchange import ANSWER_BYTES, TOKEN_BYTES
from profiler.load.job import Job, Limits
from profiler.load.prompts import Features, PromptSpec
from profiler.load.sockets import READ_BYTES
from profiler.load.table import Requests
from profiler.load.vitals import Vitals

KEY = "sk-secret-0123456789"


def drive(
    model: str, *, api: Api = "completions", tokens: int = 12, count: int = 2, ttft_ms: float = 30, **job: Any
) -> tuple[Requests, Vitals, TruthServer]:
    """Send ``count`` requests one after another and return what the client and the server say."""

    async def run() -> tuple[Requests, Vitals, TruthServer]:
        server = TruthServer(ttft_ms=ttft_ms, gap_ms=2)
        port = await server.start()
        fields: dict[str, Any] = {
            "endpoints": (parse_endpoint(f"http://127.0.0.1:{port}"),),
            "api": api,
            "model": model,
            "prompts": PromptSpec("test", 0),
            "features": Features(),
            "prompt_tokens": np.array([8]),
            "output_tokens": np.array([tokens]),
            "count": count,
            "limits": Limits(total_s=60, idle_s=30, max_response_bytes=2**20),
        }
        client = Client(Job(**fields | job))
        await client.prepare()
        requests, vitals = await client.run(0)
        await server.stop()
        return requests, vitals, server

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("model", "api", "source", "first"),
    [
        ("plain", "completions", "usage", "single"),
        ("plain", "chat", "usage", "single"),
        ("per4", "completions", "usage", "share_of_text"),
        ("role", "chat", "usage", "single"),
        ("empty", "completions", "usage", "single"),
        ("comments", "completions", "usage", "single"),
        ("utf8", "completions", "usage", "single"),
        ("crlf", "completions", "usage", "single"),
        ("no-done", "completions", "usage", "single"),
        ("held-open", "completions", "usage", "single"),
        ("no-usage", "completions", "chunks", "single"),
        ("ids", "completions", "token_ids", "token_ids"),
        ("stream-usage", "completions", "stream_usage", "stream_usage"),
        ("reasoning", "chat", "usage", "single"),
        ("until-close", "completions", "usage", "single"),
        ("close-first", "completions", "usage", "single"),
    ],
)
def test_tokens_and_stamps_are_those_that_the_server_wrote(
    model: str, api: Api, source: str, first: str
) -> None:
    requests, _, server = drive(model, api=api)
    assert requests.counts("status") == {"ok": 2}, requests.messages
    assert requests["output_tokens"].tolist() == [12, 12]
    assert requests.counts("token_source") == {source: 2}
    assert requests.counts("first_source") == {first: 2}
    streams = [stream for stream in server.streams if stream.written_ns]
    per = 4 if model == "per4" else 1
    assert requests["first_chunk_tokens"].tolist() == [per, per]
    assert requests["chunks"].tolist() == [12 // per, 12 // per]
    for number, stream in enumerate(streams):
        assert requests["sent_ns"][number] <= stream.received_ns
        assert (
            requests["first_token_ns"][number] >= stream.written_ns[0] >= stream.received_ns + server.ttft_ns
        )
        assert (
            requests["last_token_ns"][number]
            >= stream.received_ns + server.ttft_ns + (12 - per) * server.gap_ns
        )


def test_tpot_counts_tokens_and_not_chunks() -> None:
    requests, _, _ = drive("per4", tokens=16)
    after_first = (requests["last_token_ns"] - requests["first_token_ns"]) / 1e9 / 12
    assert latency.tpot_s(requests) == pytest.approx(after_first)
    assert latency.tpot_vllm_s(requests) == pytest.approx(after_first * 12 / 15)
    assert len(latency.gaps_s(requests)) == 2 * 3


def test_the_first_answer_comes_after_the_reasoning() -> None:
    requests, _, _ = drive("reasoning", api="chat")
    chunks = requests.chunk_ns[requests.chunk_start[0] : requests.chunk_start[1]]
    assert requests["first_answer_ns"][0] == chunks[6]
    assert requests["first_token_ns"][0] == chunks[0]


@pytest.mark.parametrize(
    ("model", "status"),
    [
        ("cut", "stream_cut"),
        ("ends-early", "stream_cut"),
        ("http-400", "http_4xx"),
        ("http-500", "http_5xx"),
        ("redirect", "http_3xx"),
        ("error-event", "server_error"),
        ("bad-json", "malformed"),
        ("bad-chunk", "malformed"),
        ("not-http", "malformed"),
        ("no-tokens", "no_tokens"),
        ("huge", "too_large"),
    ],
)
def test_what_goes_wrong_is_a_named_failure(model: str, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIPROF_API_KEY", KEY)
    limits = Limits(total_s=60, idle_s=1 if model == "bad-chunk" else 30, max_response_bytes=2**20)
    requests, vitals, _ = drive(model, count=1, limits=limits)
    assert requests.counts("status") == {status: 1}, requests.messages
    assert requests.messages[status]
    assert KEY not in str(requests.messages)
    assert not latency.good(requests, ()).any()
    assert vitals.max_waiting_bytes < 4 * 2**20


@pytest.mark.parametrize(
    ("model", "limits", "status"),
    [
        ("silent", Limits(total_s=0.3, idle_s=30), "timeout"),
        ("silent", Limits(total_s=30, idle_s=0.3), "idle_timeout"),
        ("stalls", Limits(total_s=30, idle_s=0.5), "idle_timeout"),
    ],
)
def test_nothing_outlives_its_timeout(model: str, limits: Limits, status: str) -> None:
    requests, _, _ = drive(model, count=1, limits=limits)
    assert requests.counts("status") == {status: 1}


def test_a_server_that_is_not_there_is_given_up() -> None:
    nowhere = (parse_endpoint("http://127.0.0.1:9"),)
    requests, vitals, _ = drive("plain", endpoints=nowhere, count=1000)
    assert set(requests.counts("status")) == {"refused"}
    assert len(requests) < 50
    assert vitals.gave_up is not None


def test_an_answer_without_end_is_cut_by_what_was_asked_for() -> None:
    requests, _, _ = drive("huge", count=3, tokens=4, concurrency=3, limits=Limits(total_s=60, idle_s=30))
    assert requests.counts("status") == {"too_large": 3}
    longest = ANSWER_BYTES + 4 * TOKEN_BYTES
    assert requests["received_bytes"].max() <= longest + READ_BYTES


def test_an_answer_of_another_length_is_a_success_with_a_note() -> None:
    requests, _, _ = drive("short")
    assert requests.ok.all()
    assert requests["output_tokens"].tolist() == [6, 6]
    assert (requests["notes"] > 0).all()


def test_prompts_are_as_long_as_asked_and_never_the_same() -> None:
    _, _, server = drive("plain", count=6, concurrency=3, warm_up=2)
    prompts = [tuple(body["prompt"]) for body in server.bodies]
    assert {len(prompt) for prompt in prompts} == {8}
    assert len(set(prompts)) == 8  # two of them warm-up


def test_an_open_loop_sends_nothing_before_it_is_due() -> None:
    due = np.array([0.0, 0.01, 0.02, 0.02, 0.05])
    requests, _, _ = drive("plain", count=5, due_s=due, ttft_ms=20)
    assert requests.ok.all()
    scheduled = requests["scheduled_ns"][np.argsort(requests["index"])]  # rows are in the order of their ends
    assert np.diff(scheduled) == pytest.approx(np.diff((due * 1e9).astype(int)))
    assert (requests["sent_ns"] >= requests["scheduled_ns"]).all()


def test_the_key_is_sent_and_kept_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIPROF_API_KEY", KEY)
    requests, _, server = drive("plain", count=1)
    assert f"Authorization: Bearer {KEY}" in server.heads[0]
    assert KEY not in repr(requests)
