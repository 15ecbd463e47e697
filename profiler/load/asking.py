"""A few prompts asked one after the other, with everything that was said: what a check of answers needs.

A load keeps stamps and counts only. Here the texts, token ids and log-probabilities are kept, too, in
the forms in which servers give them.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from profiler.load.connect import Connector
from profiler.load.connection import Connection
from profiler.load.exchange import Exchange
from profiler.load.http import MalformedError
from profiler.load.job import Job
from profiler.load.outcome import Reading
from profiler.load.prompts import RequestBuilder, token_counter
from profiler.load.reading import Unframed, read_exchange
from profiler.load.redact import api_key
from profiler.load.sse import events

_TOKEN_ID = "token_id:"


@dataclass(frozen=True)
class Asked:
    """A prompt to ask.

    Attributes:
        prompt: its token ids, or its text.
        output_tokens: tokens to be generated.
        fields: further fields of the request.
    """

    prompt: list[int] | str
    output_tokens: int
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Said:
    """What was answered.

    Attributes:
        status: ``ok``, or the name of the failure (docs/metrics.md).
        message: what is behind a failure.
        text: of the answer; empty for servers that give ids only.
        tokens: how many tokens it has, or None.
        ids: its token ids, or empty where the server does not tell them.
        logprobs: log-probabilities by token id at each position, or empty where the server tells none by id.
        finish_reason: as the server says.
        model: name under which the server answers, or None.
        cached_tokens: prompt tokens that it says it took from a cache, or None.
        first_s: from sending to the first chunk, or None.
        elapsed_s: from sending to the last chunk, or None.
    """

    status: str
    message: str = ""
    text: str = ""
    tokens: int | None = None
    ids: tuple[int, ...] = ()
    logprobs: tuple[Mapping[int, float], ...] = ()
    finish_reason: str = ""
    model: str | None = None
    cached_tokens: int | None = None
    first_s: float | None = None
    elapsed_s: float | None = None


class _Asker:
    """Owns the connection on which prompts are asked."""

    streams = 1

    def __init__(self, job: Job) -> None:
        self.max_response_bytes = job.limits.max_response_bytes
        self._job = job
        self._key = api_key(job.key_variable)
        self._requests = RequestBuilder(
            job.endpoints, job.api, job.model, job.prompts, job.features, self._key
        )
        self._count = token_counter(job.tokenizer) if job.tokenizer else None
        self._connector = Connector(self, job.endpoints, job.ca_file, job.limits.connect_s)
        self._ended = asyncio.Event()
        self._received = 0
        """Bytes of the last answer."""

    def finished(self, connection: Connection, exchange: Exchange) -> None:
        """The answer is complete, or will never be."""
        self._ended.set()

    async def ask_all(self, questions: Sequence[Asked]) -> list[Said]:
        """Ask one after the other; a failure ends none of the others, except that it is a timeout."""
        connection: Connection | None = None
        answers: list[Said] = []
        try:
            for question in questions:
                if answers and "timeout" in answers[-1].status:
                    answers.append(answers[-1])  # or a server that hangs would be waited for once for each
                    continue
                if connection is None or not connection.open:
                    opened = await self._connector.open(0)
                    if not isinstance(opened, Connection):
                        answers.append(Said(*opened))
                        continue
                    connection = opened
                said = await self._ask(connection, question)
                if said.status == "stream_cut" and not self._received and connection.used > 1:
                    # The server closed the connection behind its last answer while this request was leaving.
                    opened = await self._connector.open(0)
                    if isinstance(opened, Connection):
                        connection = opened
                        said = await self._ask(connection, question)
                answers.append(said)
        finally:
            if connection is not None:
                connection.close()
            self._connector.close()
        return answers

    async def _ask(self, connection: Connection, question: Asked) -> Said:
        body = self._requests.body_of(question.prompt, question.output_tokens, **question.fields)
        exchange = Exchange(0, 0, 0, question.output_tokens)
        self._ended.clear()
        connection.send(exchange, self._requests.with_head(0, body))
        limit = self._job.limits.total_s
        try:
            async with asyncio.timeout(limit):
                await self._ended.wait()
        except TimeoutError:
            connection.fail("timeout", f"not complete after {limit:g} s")
        self._received = exchange.received
        return said_in(exchange, read_exchange(exchange, self._job.api, key=self._key, count=self._count))


def ask(job: Job, questions: Sequence[Asked]) -> list[Said]:
    """Ask the first endpoint of a job one question after the other.

    Args:
        job: the server, what it understands, and limits; its load is not used.
        questions: what to ask.
    """

    async def run() -> list[Said]:
        return await _Asker(job).ask_all(questions)

    return asyncio.run(run())


def said_in(exchange: Exchange, reading: Reading) -> Said:
    """Return what an answer says, or how it failed; whatever a server sends, nothing is raised.

    Args:
        exchange: that has ended.
        reading: what the load client makes of it.
    """
    if reading.status != "ok":
        return Said(reading.status, reading.message)
    try:
        return _said(exchange, reading)
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        return Said("malformed", f"an event is not of the form of the API ({type(error).__name__})")


def _said(exchange: Exchange, reading: Reading) -> Said:
    """Return what a successful exchange says."""
    texts: list[str] = []
    ids: list[int] = []
    logprobs: list[Mapping[int, float]] = []
    model = None
    for event in _events(exchange):
        model = model or event.get("model")
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or choice.get("message") or {}
            texts += [str(choice.get("text") or ""), *(str(delta.get(name) or "") for name in _TEXTS)]
            found, probabilities = _positions(choice.get("logprobs"))
            ids += choice.get("token_ids") or found
            logprobs += probabilities
    return Said(
        "ok",
        text="".join(texts),
        tokens=reading.tokens,
        ids=tuple(map(int, ids)),
        logprobs=tuple(logprobs) if len(logprobs) == len(ids) else (),
        finish_reason=reading.finish_reason,
        model=None if model is None else _shown(str(model)[:200]),
        cached_tokens=reading.cached_tokens,
        first_s=(reading.chunk_ns[0] - exchange.sent_ns) / 1e9,
        elapsed_s=(reading.chunk_ns[-1] - exchange.sent_ns) / 1e9,
    )


def _shown(text: str) -> str:
    """Return what a record can hold and a terminal show; JSON can spell half a character."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


_TEXTS = ("reasoning_content", "reasoning", "content")


def _events(exchange: Exchange) -> Iterator[dict[str, Any]]:
    """Yield the events of an answer that was read without a fault."""
    unframed = Unframed(exchange.pieces)
    try:
        pieces = list(unframed)
        if unframed.head is not None and unframed.head.content_type == "application/json":
            found = [json.loads(b"".join(piece for _, piece in pieces))]
        else:
            found = [json.loads(data) for _, data, _ in events(pieces) if data != b"[DONE]"]
    except (MalformedError, ValueError, RecursionError):
        return  # after the end that counted
    yield from (event for event in found if isinstance(event, dict))


def _positions(given: Any) -> tuple[list[int], list[Mapping[int, float]]]:
    """Return ids and log-probabilities of a choice, where the server tells them by id.

    Three spellings: tokens as ``token_id:5`` (vLLM with ``return_tokens_as_token_ids``), entries with
    an ``id`` (llama-server), and words only, which tell no id.
    """
    if not isinstance(given, dict):
        return [], []
    ids: list[int] = []
    logprobs: list[Mapping[int, float]] = []
    for entry in _entries(given):
        chosen = _id_of(entry)
        if chosen is None:
            return [], []
        ids.append(chosen)
        likely = [(_id_of(one), one.get("logprob")) for one in entry.get("top_logprobs") or ()]
        found = {name: float(value) for name, value in likely if name is not None and _finite(value)}
        if _finite(entry.get("logprob")):
            found.setdefault(chosen, float(entry["logprob"]))
        logprobs.append(found)
    return ids, logprobs if all(logprobs) else []


def _entries(given: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield one entry per token in the form of the chat API, whichever form was given."""
    if isinstance(given.get("content"), list):
        yield from (entry for entry in given["content"] if isinstance(entry, dict))
        return
    tokens = given.get("tokens") or ()
    values = given.get("token_logprobs") or [None] * len(tokens)
    tops = given.get("top_logprobs") or [None] * len(tokens)
    for token, value, top in zip(tokens, values, tops, strict=False):
        likely = [{"token": name, "logprob": one} for name, one in (top or {}).items()]
        yield {"token": token, "logprob": value, "top_logprobs": likely}


def _id_of(entry: Any) -> int | None:
    if not isinstance(entry, dict):
        return None
    if isinstance(entry.get("id"), int):
        return int(entry["id"])
    token = entry.get("token")
    if isinstance(token, str) and token.startswith(_TOKEN_ID) and token[len(_TOKEN_ID) :].isdecimal():
        return int(token[len(_TOKEN_ID) :])
    return None


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
