"""What one load process has to do; travels as JSON and arrays, never with the API key."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from profiler.load.endpoint import Api, Endpoint
from profiler.load.prompts import Features, PromptSpec
from profiler.load.redact import KEY_VARIABLE

LoopKind = Literal["auto", "asyncio", "uvloop"]


@dataclass(frozen=True)
class Limits:
    """When a request is given up.

    Attributes:
        total_s: from being sent to the end of the answer.
        idle_s: without any byte.
        connect_s: to connect, TLS included.
        max_response_bytes: largest answer.
        max_waiting_bytes: raw answers kept until there is time to read them; beyond it they are read at once.
    """

    total_s: float = 600.0
    idle_s: float = 120.0
    connect_s: float = 10.0
    max_response_bytes: int = 64 * 2**20
    max_waiting_bytes: int = 256 * 2**20


@dataclass(frozen=True)
class Job:
    """The share of a load that one process drives.

    Requests are numbered over the whole load; a process takes ``first``, ``first + step``, …

    Attributes:
        endpoints: where requests go, in turn.
        api: which API.
        model: model name on the server.
        prompts: what prompts are made of.
        features: what the server understands.
        prompt_tokens: prompt lengths by request number, repeated when there are more requests.
        output_tokens: output lengths likewise.
        due_s: when each request is due after the go (open loop), or None (closed loop).
        concurrency: streams of this process (closed loop).
        count: requests of the whole load at most.
        seconds: no request is sent later than this after the go, or None.
        ramp_s: starts of the streams are spread evenly over this time (closed loop).
        warm_up: requests sent before the go, outside of the results.
        first: number of the first request of this process.
        step: distance to the next.
        limits: when a request is given up.
        key_variable: environment variable that holds the API key.
        ca_file: certificates to trust instead of the system's, or None.
        tokenizer: folder of a tokenizer to count with, or None.
        loop: event loop; ``auto`` takes uvloop where it is installed.
    """

    endpoints: tuple[Endpoint, ...]
    api: Api
    model: str
    prompts: PromptSpec
    features: Features
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    due_s: NDArray[np.float64] | None = None
    concurrency: int = 1
    count: int = 1
    seconds: float | None = None
    ramp_s: float = 0.0
    warm_up: int = 0
    first: int = 0
    step: int = 1
    limits: Limits = field(default_factory=Limits)
    key_variable: str = KEY_VARIABLE
    ca_file: str | None = None
    tokenizer: str | None = None
    loop: LoopKind = "auto"

    def lengths(self, index: int) -> tuple[int, int]:
        """Return the tokens of prompt and output of a request."""
        prompts, outputs = self.prompt_tokens, self.output_tokens
        return int(prompts[index % len(prompts)]), int(outputs[index % len(outputs)])

    def to_json(self) -> dict[str, Any]:
        """Return the job as JSON values."""
        fields = asdict(self)
        for name in ("prompt_tokens", "output_tokens", "due_s"):
            fields[name] = None if fields[name] is None else fields[name].tolist()
        return fields

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Job:
        """Return the job that :meth:`to_json` wrote."""
        made = dict(fields)
        made["endpoints"] = tuple(Endpoint(**one) for one in made["endpoints"])
        hashes = made["prompts"]["hash_ids"]
        made["prompts"] = PromptSpec(
            **made["prompts"] | {"hash_ids": None if hashes is None else tuple(map(tuple, hashes))}
        )
        made["features"] = Features(**made["features"])
        made["limits"] = Limits(**made["limits"])
        for name in ("prompt_tokens", "output_tokens"):
            made[name] = np.asarray(made[name], dtype=np.int64)
        if made["due_s"] is not None:
            made["due_s"] = np.asarray(made["due_s"], dtype=np.float64)
        return cls(**made)
