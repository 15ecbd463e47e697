"""What is asked of a load: how a server is driven, with what, and for how long."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from hashlib import sha256

from profiler.load.endpoint import Api, Endpoint
from profiler.load.job import Limits, LoopKind
from profiler.load.plan import Shape, Trace
from profiler.load.redact import KEY_VARIABLE
from profiler.load.search import Search
from profiler.load.slo import Slo
from profiler.measure.fidelity_server import Claim
from profiler.results.schema import LoadSpec
from profiler.workload.identity import canonical_json


@dataclass(frozen=True)
class Point:
    """One way of driving the server.

    Attributes:
        concurrency: streams of a closed loop, or None for an open one.
        process: kind of arrivals of an open loop.
        rate_per_s: mean arrivals per second; at the start of a ramp.
        rate_end_per_s: arrivals per second at the end of a ramp.
        cv: coefficient of variation of the gaps, None for a trace.
    """

    concurrency: int | None = None
    process: str | None = None
    rate_per_s: float | None = None
    rate_end_per_s: float | None = None
    cv: float | None = None

    @classmethod
    def of(cls, load: LoadSpec) -> Point:
        """Return the point that a case was planned for."""
        return cls(load.concurrency, load.process, load.rate_per_s, load.rate_end_per_s, load.cv)

    @property
    def prompt_series(self) -> int:
        """Number of the series that the point's prompts are drawn from.

        It follows from the point alone, the first 48 bits of the SHA-256 of its fields as canonical JSON:
        other points of a run ask other prompts, so that no cache knows them, and a resumed run the same.
        """
        return int(sha256(canonical_json(asdict(self)).encode()).hexdigest()[:12], 16)


@dataclass(frozen=True)
class LoadRequest:
    """What is asked of a load.

    Attributes:
        endpoints: where requests go, in turn.
        model: name of the model there; None asks the server.
        api: which API.
        shape: lengths of requests.
        points: how the server is driven, one case each; empty where ``search`` chooses them.
        search: look for the highest load that keeps the limits, or None.
        requests: requests per case at most, or None.
        seconds: time per case in which requests are sent, or None.
        warm_up: requests before each case; None for one per stream, at most 32.
        ramp_s: time over which streams start (closed loop).
        slos: limits of goodput and attainment.
        seed: of prompts, lengths and arrivals.
        shared_prefix_tokens: leading tokens that all prompts have in common.
        trace: the trace to replay, for points of process ``trace``.
        vocab_size: vocabulary of the model, or None.
        tokenizer: folder of a tokenizer to count with, or None.
        name: what the server is called in the record, e.g. ``8xH100, vLLM``; None for nothing.
        processes: load processes; None decides by the load.
        limits: when a request is given up.
        key_variable: environment variable of the API key.
        ca_file: certificates to trust.
        loop: event loop.
        speculative: method of speculative decoding that the server is said to use, or None.
        claim: what the server's answers are held against before the first point; None leaves that out.
        command: the command line, for the record.
    """

    endpoints: tuple[Endpoint, ...]
    model: str | None
    api: Api
    shape: Shape
    points: tuple[Point, ...]
    requests: int | None = None
    seconds: float | None = None
    warm_up: int | None = None
    ramp_s: float = 0.0
    slos: tuple[Slo, ...] = ()
    search: Search | None = None
    seed: int = 0
    shared_prefix_tokens: int = 0
    trace: Trace | None = None
    vocab_size: int | None = None
    tokenizer: str | None = None
    name: str | None = None
    processes: int | None = None
    limits: Limits = field(default_factory=Limits)
    key_variable: str = KEY_VARIABLE
    ca_file: str | None = None
    loop: LoopKind = "auto"
    speculative: str | None = None
    claim: Claim | None = field(default_factory=Claim)
    command: tuple[str, ...] = ()
