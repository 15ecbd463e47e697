"""The bytes of each request: prompts nobody has seen before, as token ids or as text."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from profiler.load.endpoint import PATHS, Api, Endpoint
from profiler.workload.stream import stream
from profiler.workload.token_ids import token_ids

UNKNOWN_VOCAB = 16_000
"""Ids are drawn below this when the vocabulary is not known; every model served today has more."""
SPECIAL_IDS = 100
"""The first ids are left out then: padding, begin and end of text stand there."""
HASH_BLOCK_TOKENS = 512
"""Tokens behind each ``hash_ids`` entry of a Mooncake trace (Mooncake FAST'25 traces, README)."""
SHARED, MEASURED, WARM_UP = 0, 1, 2
"""Where prompts stand among the starts of the generator: none of one kind comes again as another."""

# Short words that tokenizers keep whole, so that words and tokens are nearly the same count.
WORDS = (  # noqa: SIM905
    "the of and to in is that it was for on are as with his they at be this from have or by one had not "
    "but what all were when we there can an your which their said if do will each about how up out them "
    "then she many some so these would other into has more her two like him see time could no make than "
    "first been its who now people my made over did down only way find use may water long little very "
    "after words called just where most know get through back much go good new write our used me man too "
    "any day same right look think also around another came come work three word must because does part"
).split()


@dataclass(frozen=True)
class Features:
    """What of a request the server understands; found out before the load.

    Attributes:
        token_ids: prompts may be token ids.
        ignore_eos: the end of the answer can be held off, so that lengths are as asked.
        usage: ``stream_options.include_usage``.
        stream_usage: usage with every event (``continuous_usage_stats``).
        return_token_ids: ids with every event.
        max_completion_tokens: the chat API wants this name instead of ``max_tokens``.
    """

    token_ids: bool = True
    ignore_eos: bool = True
    usage: bool = True
    stream_usage: bool = True
    return_token_ids: bool = True
    max_completion_tokens: bool = False


@dataclass(frozen=True)
class PromptSpec:
    """What prompts are made of.

    Attributes:
        scenario: name that goes into the generator.
        seed: the user's seed.
        vocab_size: ids are below this; None when it is not known.
        shared_prefix_tokens: leading tokens that all requests have in common.
        words_per_token: for text: words that make a token, as calibrated.
        overhead_tokens: for text: tokens that the server adds (chat template, begin of text).
        hash_ids: for a trace with prefix hashes: those of each request; each stands for 512 tokens.
        series: prompts of another series are other prompts; only what is shared is the same.
    """

    scenario: str
    seed: int
    vocab_size: int | None = None
    shared_prefix_tokens: int = 0
    words_per_token: float = 1.0
    overhead_tokens: float = 0.0
    hash_ids: tuple[tuple[int, ...], ...] | None = field(default=None, repr=False)
    series: int = 0


class RequestBuilder:
    """Builds requests: ``build(index, prompt_tokens, output_tokens)`` gives the bytes to send.

    Args:
        endpoints: where they go.
        api: which API.
        model: name of the model on the server.
        prompts: what prompts are made of.
        features: what the server understands.
        key: API key, or None.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        api: Api,
        model: str,
        prompts: PromptSpec,
        features: Features,
        key: str | None = None,
    ) -> None:
        self._prompts = prompts
        self._features = features
        self._api: Api = api
        self._model = model
        authorization = f"Authorization: Bearer {key}\r\n" if key else ""
        self._heads = [
            (
                f"POST {endpoint.base}{PATHS[api]} HTTP/1.1\r\nHost: {endpoint.authority}\r\n"
                f"Content-Type: application/json\r\nAccept: text/event-stream\r\nUser-Agent: aiprof\r\n"
                f"{authorization}Content-Length: "
            ).encode("ascii")
            for endpoint in endpoints
        ]

    def body(self, index: int, prompt_tokens: int, output_tokens: int, kind: int = MEASURED) -> bytes:
        """Return the JSON of a request; ``kind`` is :data:`MEASURED` or :data:`WARM_UP`."""
        if self._api == "completions" and self._features.token_ids:
            return self.body_of(self.ids(index, prompt_tokens, kind), output_tokens)
        return self.body_of(self.text(index, prompt_tokens, kind), output_tokens)

    def body_of(self, prompt: list[int] | str, output_tokens: int, **more: Any) -> bytes:
        """Return the JSON of a request with a prompt of one's own and, if wanted, further fields."""
        features = self._features
        body: dict[str, Any] = {"model": self._model, "stream": True, "temperature": 0}
        if self._api == "chat":
            body["messages"] = [{"role": "user", "content": prompt}]
        else:
            body["prompt"] = prompt
        body["max_completion_tokens" if features.max_completion_tokens else "max_tokens"] = output_tokens
        if features.ignore_eos:
            body["ignore_eos"] = True
        if features.usage:
            body["stream_options"] = {"include_usage": True}
            if features.stream_usage:
                body["stream_options"]["continuous_usage_stats"] = True
        if features.return_token_ids:
            body["return_token_ids"] = True
        return json.dumps(body | more, separators=(",", ":")).encode()

    def with_head(self, endpoint: int, body: bytes) -> bytes:
        """Return the whole request for an endpoint."""
        return b"%s%d\r\n\r\n%s" % (self._heads[endpoint], len(body), body)

    def ids(self, index: int, count: int, kind: int = MEASURED) -> list[int]:
        """Return the token ids of a prompt."""
        spec = self._prompts
        if spec.hash_ids is not None:
            blocks = spec.hash_ids[index % len(spec.hash_ids)]
            made: list[int] = []
            for block in blocks:
                made += self._draw(SHARED, 2, block, min(HASH_BLOCK_TOKENS, count - len(made)))
                if len(made) >= count:
                    return made
            return made + self._draw(kind, spec.series, index, count - len(made))
        shared = min(spec.shared_prefix_tokens, count)
        prefix = self._draw(SHARED, 1, 0, shared) if shared else []
        return prefix + self._draw(kind, spec.series, index, count - shared)

    def _draw(self, start: int, trial: int, request: int, count: int) -> list[int]:
        spec = self._prompts
        if spec.vocab_size is not None:
            return token_ids(spec.scenario, spec.seed, start, trial, request, count, spec.vocab_size)
        known = UNKNOWN_VOCAB - SPECIAL_IDS
        drawn = token_ids(spec.scenario, spec.seed, start, trial, request, count, known)
        return [SPECIAL_IDS + token for token in drawn]

    def text(self, index: int, tokens: int, kind: int = MEASURED) -> str:
        """Return a prompt of words that the server should see as about ``tokens`` tokens."""
        spec = self._prompts
        words = max(1, round((tokens - spec.overhead_tokens) * spec.words_per_token))
        if spec.hash_ids is not None:
            return " ".join(
                self._blocks_of_words(spec.hash_ids[index % len(spec.hash_ids)], words, index, kind)
            )
        shared = min(round(spec.shared_prefix_tokens * spec.words_per_token), words)
        picked = _words("shared text", spec, shared) if shared else []
        return " ".join(picked + _words("text", spec, words - shared, kind, spec.series, index))

    def _blocks_of_words(self, blocks: Sequence[int], words: int, index: int, kind: int) -> list[str]:
        """Return the words of a trace's prompt: those of its blocks, which others share, then its own."""
        spec = self._prompts
        size = max(1, round(HASH_BLOCK_TOKENS * spec.words_per_token))
        made: list[str] = []
        for block in blocks:
            if len(made) >= words:
                break
            # Drawn whole, so that prompts of different lengths share what both have of a block.
            made += _words("text block", spec, size, block)
        return made[:words] + _words("text", spec, max(0, words - len(made)), kind, spec.series, index)


def _words(purpose: str, spec: PromptSpec, count: int, *place: int) -> list[str]:
    raw = stream(purpose, spec.scenario, spec.seed, *place, count=2 * count)
    return [WORDS[(raw[2 * at] << 8 | raw[2 * at + 1]) % len(WORDS)] for at in range(count)]


def token_counter(folder: str) -> Callable[[str], int]:
    """Return a function that counts the tokens of a text; see :func:`token_encoder`."""
    encode = token_encoder(folder)
    return lambda text: len(encode(text))


def token_encoder(folder: str) -> Callable[[str], list[int]]:
    """Return a function that gives the ids of a text's tokens, by the ``tokenizer.json`` of a folder.

    Args:
        folder: the folder, or the file itself.

    Raises:
        UsageError: the library or the file is missing.
    """
    from pathlib import Path

    from profiler.errors import UsageError

    path = Path(folder)
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"{file}: no such file; give a folder with a tokenizer.json")
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise UsageError(
            "--tokenizer needs the package 'tokenizers': pip install aiprof[tokenizer]"
        ) from None
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise UsageError(f"{file}: not a tokenizer: {error}") from None
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)
