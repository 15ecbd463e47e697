"""Finding out what a server understands, with a few small requests before the load."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from profiler.errors import NothingMeasuredError, UsageError
from profiler.load.client import Client
from profiler.load.endpoint import Api, Endpoint
from profiler.load.job import Job, Limits
from profiler.load.prompts import Features, PromptSpec
from profiler.load.redact import KEY_VARIABLE
from profiler.load.table import Requests

PROBE_TOKENS = 4
SHORT_PROMPT, LONG_PROMPT = 16, 144
_REFUSED = "http_4xx"

# What is left out, one after the other, when the server refuses a request.
_LADDER: tuple[tuple[str, Any], ...] = (
    ("return_token_ids", False),
    ("stream_usage", False),
    ("max_completion_tokens", True),
    ("ignore_eos", False),
    ("token_ids", False),
    ("usage", False),
)


@dataclass(frozen=True)
class Agreement:
    """What was found out about a server.

    Attributes:
        model: name of the model there.
        features: what it understands.
        words_per_token: for text prompts: words that make a token for this server.
        overhead_tokens: for text prompts: tokens that it adds.
        details: what is known of it, for the record; never its name.
    """

    model: str
    features: Features
    words_per_token: float
    overhead_tokens: float
    details: dict[str, Any]


def negotiate(
    endpoints: Sequence[Endpoint],
    api: Api,
    model: str | None,
    *,
    key_variable: str = KEY_VARIABLE,
    ca_file: str | None = None,
    limits: Limits | None = None,
    tokenizer: str | None = None,
    vocab_size: int | None = None,
) -> Agreement:
    """Send small requests to every URL until one form of them is accepted by all.

    Args:
        endpoints: the URLs.
        api: which API.
        model: its name there; None asks the server.
        key_variable: environment variable of the API key.
        ca_file: certificates to trust.
        limits: when a request is given up.
        tokenizer: folder of a tokenizer to count with, or None.
        vocab_size: token ids are below this, where it is known; some servers die of others.

    Raises:
        NothingMeasuredError: no answer, or no form is accepted; says what the server said.
        UsageError: the model is not there.
    """
    limits = replace(limits or Limits(), total_s=min((limits or Limits()).total_s, 120.0))
    job = Job(
        endpoints=tuple(endpoints),
        api=api,
        model=model or "",
        prompts=PromptSpec("negotiation", 0, vocab_size),
        features=Features(max_completion_tokens=False, token_ids=api == "completions"),
        prompt_tokens=np.array([SHORT_PROMPT]),
        output_tokens=np.array([PROBE_TOKENS]),
        concurrency=1,
        count=len(endpoints),
        limits=limits,
        key_variable=key_variable,
        ca_file=ca_file,
        tokenizer=tokenizer,
        loop="asyncio",
    )
    if model is None:
        job = replace(job, model=_only_model(job))
    features = _agree(job)
    job = replace(job, features=features)
    words, overhead = 1.0, 0.0
    if not features.token_ids:
        words, overhead = _calibrate(job)
    details = {
        "api": api,
        "reach": endpoints[0].reach,
        "tls": endpoints[0].scheme == "https",
        **asdict(features),
    }
    return Agreement(job.model, features, words, overhead, {**details, "urls": len(endpoints)})


def _probe(job: Job) -> Requests:
    async def run() -> Requests:
        client = Client(job)
        await client.prepare()
        requests, _ = await client.run(0)
        return requests

    return asyncio.run(run())


def _agree(job: Job) -> Features:
    features = job.features
    steps = [step for step in _LADDER if getattr(features, step[0]) != step[1]]
    if job.api == "completions":
        steps = [step for step in steps if step[0] != "max_completion_tokens"]
    while True:
        requests = _probe(replace(job, features=features))
        if len(requests) and requests.ok.all():
            return features
        status = next(iter(requests.messages), "refused")
        message = requests.messages.get(status, "no answer")
        if status == _REFUSED and any(code in message for code in ("HTTP 401", "HTTP 403")):
            hint = f"set the API key in {job.key_variable}"
            raise NothingMeasuredError(f"the server refuses: {message}; {hint}")
        if status == _REFUSED and "HTTP 404" in message:
            raise NothingMeasuredError(f"{message}; is the URL right, and the model's name ({job.model})?")
        if not steps or status not in (_REFUSED, "http_5xx", "no_tokens", "server_error"):
            raise NothingMeasuredError(f"the server does not answer as it should: {status}: {message}")
        name, value = steps.pop(0)
        features = replace(features, **{name: value})


def _calibrate(job: Job) -> tuple[float, float]:
    """Return words per token, and tokens that the server adds, from two prompts of known words."""
    lengths: list[float] = []
    for words in (SHORT_PROMPT, LONG_PROMPT):
        requests = _probe(replace(job, prompt_tokens=np.array([words])))
        received = requests["prompt_tokens"][requests["prompt_tokens"] > 0]
        if not len(received):
            return 1.0, 0.0  # it does not say; the load's flags will
        lengths.append(float(received.mean()))
    per_word = (lengths[1] - lengths[0]) / (LONG_PROMPT - SHORT_PROMPT)
    if per_word <= 0:
        return 1.0, 0.0
    return 1.0 / per_word, max(0.0, lengths[0] - SHORT_PROMPT * per_word)


def _only_model(job: Job) -> str:
    """Return the one model that the server has.

    Raises:
        UsageError: it has several, or does not say.
    """
    names = models_of(job)
    if len(names) == 1:
        return names[0]
    if not names:
        raise UsageError("no server answers there, or it does not list its models; then give --model NAME")
    raise UsageError(f"give --model NAME: it has {', '.join(names[:10])}")


def models_of(job: Job, fetch: Callable[[Job], bytes] | None = None) -> list[str]:
    """Return the names that ``/v1/models`` lists; an empty list when it does not answer."""
    try:
        listed = json.loads((fetch or _get_models)(job))
        return [str(one["id"])[:200] for one in listed["data"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _get_models(job: Job) -> bytes:
    import urllib.request

    from profiler.load.redact import api_key

    endpoint = job.endpoints[0]
    key = api_key(job.key_variable)
    request = urllib.request.Request(f"{endpoint.scheme}://{endpoint.authority}{endpoint.base}/models")
    if key:
        request.add_unredirected_header("Authorization", f"Bearer {key}")
    with urllib.request.urlopen(
        request, timeout=job.limits.connect_s, context=endpoint.tls(job.ca_file)
    ) as answer:
        # Each read has the timeout, so that a server that sends byte by byte needs an end of its own.
        until, content = time.monotonic() + job.limits.connect_s, b""
        while len(content) < 2**20 and time.monotonic() < until and (part := answer.read1(65536)):
            content += part
    return content
