"""Servers that do not serve what they are said to: each is caught by its answers or the reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from architectures import LLAMA
from served_truth import aiprof, truth_server

import profiler.measure.fidelity_server as fidelity_server
from profiler.load.asking import Asked, Said, _positions, ask
from profiler.load.endpoint import parse_endpoint
from profiler.load.job import Job, Limits
from profiler.load.prompts import Features, PromptSpec
from profiler.measure.fidelity import fidelity_flags
from profiler.measure.fidelity_answers import Answer
from profiler.measure.fidelity_artefact import Artefact
from profiler.measure.fidelity_reference import Reference, ReferenceCache
from profiler.measure.fidelity_server import Claim, check_server, fidelity_of
from profiler.models.catalogue import ResolvedModel
from profiler.models.formats import formats_for
from profiler.results.read import read_run
from profiler.results.schema import Fidelity

STEPS = 16
TINY = replace(LLAMA, max_positions=128)
LIKELY = (math.log(0.9), math.log(0.09), -40.0)


def job(url: str = "http://127.0.0.1:1", model: str = "plain", **fields: Any) -> Job:
    prompts = PromptSpec("test", 0, vocab_size=TINY.vocab_size)
    endpoint, lengths = parse_endpoint(url), np.array([8])
    limits = Limits(total_s=60)
    return Job(
        (endpoint,), "completions", model, prompts, Features(), lengths, lengths, limits=limits, **fields
    )


def passed(found: Fidelity) -> dict[str, bool | None]:
    return {check.name: check.passed for check in found.checks}


@pytest.mark.parametrize(
    ("model", "fault", "words"),
    [
        ("canned", "distinct", "only 1 different answers"),
        ("short", "length", "short of 16 tokens, down to 8"),
        ("ends", "end_of_sequence", "end of sequence before 16 tokens"),
        ("other-model", "served_model", "asked for other-model, smaller answers"),
    ],
)
def test_answers_that_no_honest_server_gives_are_wrong(model: str, fault: str, words: str) -> None:
    with truth_server(ttft_ms=1, gap_ms=0.1) as url:
        found = check_server(job(url, model), Claim())
    assert found.verdict == "wrong"
    assert words in str(found.reason)
    assert passed(found)[fault] is False
    assert "fidelity_wrong" in {flag.code for flag in fidelity_flags(found)}


@pytest.mark.parametrize("model", ["plain", "ids"])
def test_honest_answers_alone_prove_nothing(model: str) -> None:
    with truth_server(ttft_ms=1, gap_ms=0.1) as url:
        found = check_server(job(url, model), Claim())
    assert found.verdict == "not_checked"
    assert "folder" in str(found.reason)
    assert passed(found) | {"cache": True} == dict.fromkeys(
        ("length", "end_of_sequence", "distinct", "served_model", "cache"), True
    )


def test_an_end_of_sequence_is_no_fault_where_nothing_can_hold_it_off() -> None:
    features = Features(ignore_eos=False)
    with truth_server(ttft_ms=1, gap_ms=0.1) as url:
        found = check_server(replace(job(url, "ends"), features=features), Claim())
    assert found.verdict == "not_checked"
    assert passed(found)["end_of_sequence"] is None


def test_a_server_that_does_not_answer_is_not_judged() -> None:
    with truth_server(ttft_ms=1, gap_ms=0.1) as url:
        found = check_server(job(url, "http-500"), Claim())
        assert (found.verdict, "http_5xx" in str(found.reason)) == ("not_checked", True)
        assert passed(found)["length"] is None
    gone = check_server(job("http://127.0.0.1:9"), Claim())
    assert (gone.verdict, "refused" in str(gone.reason)) == ("not_checked", True)


def test_a_server_that_hangs_is_waited_for_once() -> None:
    with truth_server(ttft_ms=1, gap_ms=0.1) as url:
        found = ask(replace(job(url, "silent"), limits=Limits(total_s=0.2)), [Asked([1, 2], 3)] * 50)
    assert [one.status for one in found] == ["timeout"] * 50


def test_a_question_is_asked_again_where_the_server_closes_behind_each_answer() -> None:
    """As llama-server does behind a stream, whatever its Keep-Alive says."""
    with truth_server(ttft_ms=1, gap_ms=0.1) as url:
        found = ask(job(url, "close-first"), [Asked([1, number], 3) for number in range(4)])
    assert [one.status for one in found] == ["ok"] * 4


def said(tokens: Sequence[int] = (), **fields: Any) -> Said:
    values: dict[str, Any] = {
        "tokens": STEPS,
        "ids": tuple(tokens),
        "model": "plain",
        "finish_reason": "length",
    }
    return Said("ok", **values | fields)


@pytest.mark.parametrize(
    ("first", "again", "words"),
    [
        (
            {"first_s": 0.5, "elapsed_s": 1.0},
            {"first_s": 0.01, "elapsed_s": 0.02},
            "answers come from a cache",
        ),
        (
            {"first_s": 0.5, "elapsed_s": 1.0},
            {"first_s": 0.1, "elapsed_s": 0.6},
            "prefixes come from a cache",
        ),
        ({}, {"cached_tokens": 48}, "192 tokens of repeated prompts from a prefix cache"),
        ({"first_s": 0.5, "elapsed_s": 1.0}, {"first_s": 0.4, "elapsed_s": 0.9}, None),
    ],
)
def test_a_cache_is_seen_by_time_or_by_what_the_server_says(
    first: dict[str, Any], again: dict[str, Any], words: str | None
) -> None:
    def server(_: Job, questions: Sequence[Asked]) -> list[Said]:
        assert questions[0] == questions[1] != questions[2]
        return [
            said([place // 2] * STEPS, **(again if place % 2 else first)) for place in range(len(questions))
        ]

    found = check_server(job(), Claim(), ask_server=server)
    assert found.verdict == "not_checked"
    flags = {flag.code: flag.text for flag in fidelity_flags(found)}
    assert ("cached_answers" in flags) == (words is not None)
    assert words is None or words in flags["cached_answers"]


def model_on_disk(tmp_path: Path) -> ResolvedModel:
    return ResolvedModel("tiny", TINY, "folder", tmp_path, "a test", "0" * 64)


def distribution(token: int, step: int) -> dict[int, float]:
    likely = (token, (token + 1 + step) % TINY.vocab_size, (token + 20) % TINY.vocab_size)
    return dict(zip(likely, LIKELY, strict=True))


def reference(artefact: Artefact) -> Reference:
    """Answers that depend on the prompt, with two likely tokens at each position."""
    greedy = []
    for prompt in artefact.prompts:
        tokens = tuple((sum(prompt) + 13 * step) % TINY.vocab_size for step in range(STEPS))
        likely = tuple(distribution(token, at) for at, token in enumerate(tokens))
        greedy.append(Answer(tokens, likely, (0.0,) * STEPS))
    return Reference(scored=tuple(greedy), greedy=tuple(greedy))


def model_server(
    wrong_from: int | None, *, logprobs: bool = True
) -> Callable[[Job, Sequence[Asked]], list[Said]]:
    """A server that computes the reference's model, up to a position."""

    def server(_: Job, questions: Sequence[Asked]) -> list[Said]:
        answers = []
        for question in questions:
            if question.fields.get("logprobs") and not logprobs:
                answers.append(Said("http_4xx", "HTTP 400: unknown field logprobs"))
                continue
            assert isinstance(question.prompt, list)
            tokens = [(sum(question.prompt) + 13 * step) % TINY.vocab_size for step in range(STEPS)]
            if wrong_from is not None:
                tokens[wrong_from:] = [(token + 7) % TINY.vocab_size for token in tokens[wrong_from:]]
            likely = (
                tuple(distribution(token, at) for at, token in enumerate(tokens)) if question.fields else ()
            )
            answers.append(said(tokens, logprobs=likely))
        return answers

    return server


@pytest.mark.parametrize("logprobs", [True, False])
@pytest.mark.parametrize(("wrong_from", "verdict"), [(None, "faithful"), (0, "wrong"), (5, "wrong")])
def test_known_weights_are_held_against_the_reference(
    wrong_from: int | None, verdict: str, logprobs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fidelity_server, "_reference", reference)
    claim = Claim(model_on_disk(tmp_path), formats_for("fp32"))
    server = model_server(wrong_from, logprobs=logprobs)
    found = check_server(job(), claim, ask_server=server, cache=ReferenceCache(tmp_path / "cache"))
    assert found.verdict == verdict
    assert found.figures is not None
    assert found.figures.greedy_agreed == 4 * (STEPS if wrong_from is None else wrong_from)
    assert found.figures.positions == (found.figures.greedy_tokens if logprobs else 0)
    assert found.artefact is not None
    # What was computed once is remembered.
    monkeypatch.setattr(fidelity_server, "_reference", lambda _: pytest.fail("computed again"))
    again = check_server(job(), claim, ask_server=server, cache=ReferenceCache(tmp_path / "cache"))
    assert (again.verdict, again.figures) == (found.verdict, found.figures)


def test_what_cannot_be_held_against_a_reference_says_why(tmp_path: Path) -> None:
    claim = Claim(model_on_disk(tmp_path), formats_for("fp32"))
    chat = replace(job(), api="chat")

    def words_only(_: Job, questions: Sequence[Asked]) -> list[Said]:
        return [said(text=f"{question.prompt}"[:64].rjust(64)) for question in questions]

    assert "no token ids" in str(check_server(chat, claim, ask_server=words_only).reason)
    assert "--tokenizer" in str(check_server(job(), claim, ask_server=words_only).reason)
    no_formats = replace(claim, formats=None)
    assert "--precision" in str(check_server(job(), no_formats, ask_server=words_only).reason)
    assert fidelity_of(job(), None).reason == "the load was made with --no-fidelity"


@pytest.mark.parametrize(
    "given",
    [
        {
            "tokens": ["token_id:5", "token_id:7"],
            "token_logprobs": [-0.1, -0.2],
            "top_logprobs": [{"token_id:5": -0.1, "token_id:9": -3}, {"token_id:7": -0.2}],
        },
        {
            "content": [
                {
                    "id": 5,
                    "token": "a",
                    "logprob": -0.1,
                    "top_logprobs": [{"id": 9, "token": "b", "logprob": -3}],
                },
                {"id": 7, "token": "c", "logprob": -0.2, "top_logprobs": []},
            ]
        },
    ],
)
def test_log_probabilities_by_id_are_read_in_both_forms(given: dict[str, Any]) -> None:
    assert _positions(given) == ([5, 7], [{5: -0.1, 9: -3.0}, {7: -0.2}])


@pytest.mark.parametrize(
    "given", [None, [], {"tokens": ["a"], "token_logprobs": [-1]}, {"content": [{"token": "a"}]}]
)
def test_words_tell_no_ids(given: Any) -> None:
    assert _positions(given) == ([], [])


def test_questions_are_answered_one_by_one_and_a_failure_ends_none_of_the_others() -> None:
    with truth_server(ttft_ms=1, gap_ms=0.1) as url:
        questions = [Asked([1, 2], 3), Asked([1, 2], 3, {"model": "http-400"}), Asked([3, 4], 3)]
        found = ask(job(url, "ids"), questions)
    assert [one.status for one in found] == ["ok", "http_4xx", "ok"]
    assert [len(one.ids) for one in found] == [3, 0, 3]
    assert found[0].ids != found[2].ids
    assert found[0].elapsed_s is not None
    assert found[0].first_s is not None
    assert 0 < found[0].first_s <= found[0].elapsed_s


def test_the_verdict_is_in_the_record_of_a_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    how = (
        "--prompt-tokens",
        "8",
        "--output-tokens",
        "4",
        "--concurrency",
        "1",
        "--requests",
        "2",
        "--warm-up",
        "0",
    )
    with truth_server(ttft_ms=1, gap_ms=0.1) as url:
        flags = ("load", url, *how, "--quiet", "--model", "canned")
        assert aiprof(*flags, "--out", str(tmp_path / "run")) == 0
        assert "fidelity_wrong" in capsys.readouterr().out
        assert aiprof(*flags, "--no-fidelity", "--out", str(tmp_path / "unchecked")) == 0
        assert aiprof(*flags, "--weights", str(tmp_path), "--out", str(tmp_path / "no")) == 2
        assert "config.json" in capsys.readouterr().err
    (case,) = read_run(tmp_path / "run").cases
    assert case.fidelity is not None
    assert case.fidelity.verdict == "wrong"
    (case,) = read_run(tmp_path / "unchecked").cases
    assert case.fidelity is not None
    assert (case.fidelity.verdict, case.fidelity.checks) == ("not_checked", ())
