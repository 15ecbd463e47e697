"""What the server of known truth answers: the words of its streams and how each behaviour distorts them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

BEHAVIOURS = {
    "plain": "one token per chunk, usage at the end",
    "per4": "four tokens per chunk",
    "role": "chat: a role-only chunk at once, the first token after the TTFT",
    "empty": "empty chunks between the others",
    "comments": "keep-alive comments between the chunks",
    "utf8": "three-byte characters, every write split within one",
    "crlf": "events that end with CRLF",
    "no-done": "no [DONE] at the end",
    "held-open": "[DONE], and the answer is never ended",
    "no-usage": "no usage",
    "ids": "token ids with every chunk",
    "stream-usage": "usage with every chunk; every third token without text",
    "reasoning": "chat: the first half is reasoning, the rest a tool call",
    "until-close": "no framing: the answer ends with the connection",
    "close-first": "the connection is closed before the second request on it is read",
    "short": "half of the tokens asked for",
    "canned": "the same answer to every prompt",
    "other-model": "another model answers, and says so",
    "remembers": "an answer that was given before comes at once",
    "ends": "half of the tokens asked for, then the end of sequence",
    "cut": "the connection is closed in the middle",
    "ends-early": "the answer ends properly in the middle, without finish_reason, usage and [DONE]",
    "silent": "no answer at all",
    "stalls": "half an answer, then nothing",
    "http-400": "a refusal that quotes the key",
    "http-500": "a failure",
    "redirect": "a redirection",
    "error-event": "an error within the stream",
    "huge": "an answer without end",
    "bad-json": "an event that is not JSON",
    "bad-chunk": "a chunk without a size",
    "not-http": "something that is not HTTP",
    "no-tokens": "a complete answer without a token",
    "strict": "refuses what OpenAI's API does not have",
    "ollama": "as Ollama: text prompts, other fields overlooked, a role in each chunk, an empty one last",
}


@dataclass(eq=False)
class Stream:
    """One request and what was written for it."""

    received_ns: int
    tokens: int
    model: str
    chat: bool
    usage: bool
    prompt_tokens: int
    prompt: int = 0
    known: bool = False
    written_ns: list[int] = field(default_factory=list)
    sent: int = 0
    due_ns: int = 0


def per_chunk(model: str) -> int:
    return 4 if model == "per4" else 1


# Of equal length, so that chunks of equal numbers of tokens are; which ones come depends on the prompt.
_WORDS = [f" {word}" for word in "the and for was his not you had but all one out day man who".split()]  # noqa: SIM905


def numbers(stream: Stream, tokens: int) -> range:
    """Places of the next tokens in their answer."""
    return range(stream.sent, stream.sent + tokens)


def text(stream: Stream, tokens: int) -> str:
    if stream.model == "stream-usage" and stream.sent % 3 == 2:
        return ""
    if stream.model == "utf8":
        return "語" * tokens
    if stream.model == "canned":
        return " the" * tokens
    return "".join(
        _WORDS[(stream.prompt * (2 * at + 1) >> 5) % len(_WORDS)]
        for at in range(stream.sent, stream.sent + tokens)
    )


def name(stream: Stream) -> str:
    return "smaller" if stream.model == "other-model" else stream.model


def reason(stream: Stream) -> str:
    return "stop" if stream.model in ("ends", "ollama") else "length"


def choice(stream: Stream, text: str, tokens: int = 0, reason: str | None = None) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "finish_reason": reason}
    if stream.model == "reasoning":
        call = {"tool_calls": [{"index": 0, "function": {"name": None, "arguments": text}}]}
        choice["delta"] = {"reasoning_content": text} if stream.sent < stream.tokens // 2 else call
    elif stream.chat:
        role = {"role": "assistant"} if stream.model == "ollama" else {}
        choice["delta"] = role | {"content": text}
    else:
        choice["text"] = text
    if stream.model == "ids":
        choice["text"] = ""
        choice["token_ids"] = [
            (stream.prompt * (2 * at + 1) >> 5) % 251 for at in range(stream.sent, stream.sent + tokens)
        ]
    return choice


def at_once(model: str, head: str, body: dict[str, Any], answered: int) -> tuple[int, Any] | None:
    """Return status and content of an answer that is no stream; status 0 stands for raw bytes."""
    if model == "http-400":
        key = next((line.split()[-1] for line in head.split("\r\n") if line.startswith("Authorization")), "")
        return 400, {"error": {"message": f"wrong key {key} for Bearer {key}"}}
    if model == "close-first" and answered == 2:
        return 0, b""
    if model == "strict":
        unknown = {"ignore_eos", "return_token_ids"} & set(body)
        if (
            unknown
            or "continuous_usage_stats" in (body.get("stream_options") or {})
            or isinstance(body.get("prompt"), list)
        ):
            return 400, {"error": {"message": f"unknown fields {sorted(unknown)}"}}
    if model == "ollama" and isinstance(body.get("prompt"), list):
        what = "json: cannot unmarshal array into Go struct field CompletionRequest.prompt of type string"
        return 400, {"error": {"message": what, "type": "invalid_request_error", "param": None, "code": None}}
    empty = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 14\r\n\r\ndata: [DONE]\n\n"
    )
    return {
        "http-500": (500, {"detail": "it broke"}),
        "redirect": (307, {}),
        "silent": (0, b""),
        "not-http": (0, b"SSH-2.0-nothing\r\n"),
        "no-tokens": (0, empty),
    }.get(model)


def framed(model: str, data: bytes) -> bytes:
    """Return bytes as one HTTP chunk, or as they are where the answer lasts until the connection closes."""
    return data if model == "until-close" else b"%x\r\n%s\r\n" % (len(data), data)


def event_bytes(stream: Stream, event: dict[str, Any]) -> bytes:
    """Return a server-sent event with what every event of a stream has."""
    kind = "chat.completion.chunk" if stream.chat else "text_completion"
    whole = {"id": "cmpl-1", "object": kind, "created": 1760000000, "model": name(stream)} | event
    text = json.dumps(whole, ensure_ascii=False).encode()
    return b"data: " + text + (b"\r\n\r\n" if stream.model == "crlf" else b"\n\n")


def tail(stream: Stream) -> bytes:
    """Return what follows the last chunk with text: usage, ``[DONE]`` and the end of the framing."""
    parts = b""
    if stream.model == "ollama":
        parts += framed(
            stream.model, event_bytes(stream, {"choices": [choice(stream, "", 0, reason(stream))]})
        )
    if stream.usage and stream.model != "stream-usage":
        counts = {"prompt_tokens": stream.prompt_tokens, "completion_tokens": stream.sent}
        usage = json.dumps({"choices": [], "usage": counts}).encode()
        parts += framed(stream.model, b"data: " + usage + b"\n\n")
    if stream.model not in ("no-done", "ends-early"):
        parts += framed(stream.model, b"data: [DONE]\n\n")
    if stream.model not in ("held-open", "until-close"):
        parts += b"0\r\n\r\n"
    return parts


def broken_ending(model: str) -> bytes | None:
    """Return what ends the answer in its middle, None for models whose answers are whole."""
    endings = {
        "cut": b"",
        "bad-json": framed(model, b"data: {nonsense\n\n") + b"0\r\n\r\n",
        "bad-chunk": b"zz\r\nwhat\r\n",
        "error-event": framed(model, b'data: {"error": {"message": "out of memory"}}\n\ndata: [DONE]\n\n')
        + b"0\r\n\r\n",
        "ends-early": b"0\r\n\r\n",
    }
    return endings.get(model)
