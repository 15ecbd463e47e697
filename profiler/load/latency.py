"""Latencies, gaps, windows and goodput from the columns of a load (definitions: docs/metrics.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from profiler.load.slo import Slo
from profiler.load.table import Requests

Floats = NDArray[np.float64]
Since = Literal["sent", "scheduled"]
SHORTEST_WINDOW = 0.2
"""A steady window shorter than this share of the load says nothing that the whole does not."""


def _since(requests: Requests, stamp: str, since: Since) -> Floats:
    begin, end = requests[f"{since}_ns"], requests[stamp]
    known = requests.ok & (begin >= 0) & (end >= 0)
    return np.where(known, (end - begin) / 1e9, np.nan)


def ttft_s(requests: Requests, since: Since = "sent") -> Floats:
    """Time to the first chunk with content or a token, NaN for failed requests; shape (n,)."""
    return _since(requests, "first_token_ns", since)


def first_answer_s(requests: Requests, since: Since = "sent") -> Floats:
    """Time to the first content that is not reasoning, NaN where there is none; shape (n,)."""
    return _since(requests, "first_answer_ns", since)


def e2e_s(requests: Requests, since: Since = "sent") -> Floats:
    """Time to the last chunk with content, NaN for failed requests; shape (n,)."""
    return _since(requests, "last_token_ns", since)


def tpot_s(requests: Requests) -> Floats:
    """(last - first chunk) / (tokens - those of the first chunk), NaN without any after it; shape (n,)."""
    after_first = requests["output_tokens"] - requests["first_chunk_tokens"]
    return _per_token(requests, after_first)


def tpot_vllm_s(requests: Requests) -> Floats:
    """(last - first chunk) / (tokens - 1), as vLLM's and SGLang's benchmarks have it; shape (n,)."""
    return _per_token(requests, requests["output_tokens"] - 1)


def _per_token(requests: Requests, tokens: NDArray[np.int64]) -> Floats:
    usable = requests.ok & (tokens > 0) & (requests["first_chunk_tokens"] > 0) & (requests["chunks"] > 1)
    span = (requests["last_token_ns"] - requests["first_token_ns"]) / 1e9
    return np.where(usable, span / np.maximum(tokens, 1), np.nan)


def gaps_s(requests: Requests) -> Floats:
    """Gaps between the chunks of a request, pooled over successful requests; shape (gaps,)."""
    gaps, owner = _gaps(requests)
    return gaps[requests.ok[owner]]


def longest_gap_s(requests: Requests) -> Floats:
    """Longest gap within each request, NaN where there is none or it failed; shape (n,)."""
    gaps, owner = _gaps(requests)
    longest = np.full(len(requests), -np.inf)
    np.maximum.at(longest, owner, gaps)
    return np.where(requests.ok & np.isfinite(longest), longest, np.nan)


def _gaps(requests: Requests) -> tuple[Floats, NDArray[np.int64]]:
    owner = np.repeat(np.arange(len(requests)), np.diff(requests.chunk_start))
    within = owner[1:] == owner[:-1]
    return np.diff(requests.chunk_ns)[within] / 1e9, owner[1:][within]


@dataclass(frozen=True)
class Window:
    """A span of CLOCK_MONOTONIC, or why there is none."""

    start_ns: int
    end_ns: int
    reason: str | None = None

    @property
    def seconds(self) -> float:
        """Length."""
        return (self.end_ns - self.start_ns) / 1e9


def whole(requests: Requests) -> Window:
    """From the first request sent to the last end."""
    sent = requests["sent_ns"][requests["sent_ns"] >= 0]
    if not len(sent) or requests["end_ns"].max() <= sent.min():
        return Window(0, 0, "no request was sent")
    return Window(int(sent.min()), int(requests["end_ns"].max()))


def steady(requests: Requests, concurrency: int | None) -> Window:
    """The part of a load that is neither filling up nor running empty.

    It begins when as many requests have ended as run at once (open loop: when the first has ended)
    and ends when the last request is sent.

    Args:
        requests: the load.
        concurrency: streams of a closed loop, None for an open one.
    """
    everything = whole(requests)
    if everything.reason:
        return everything
    ends = np.sort(requests["end_ns"])
    filled = concurrency or 1
    if len(ends) <= filled:
        return Window(0, 0, f"{len(ends)} requests, more than {filled} are needed for a steady window")
    window = Window(int(ends[filled - 1]), int(requests["sent_ns"].max()))
    if window.seconds < SHORTEST_WINDOW * everything.seconds:
        return Window(0, 0, "the load was too short to have a steady part; more requests")
    return window


def tokens_within(requests: Requests, window: Window) -> float:
    """Output tokens of successful requests that came within a window.

    Where a chunk's tokens are not known, those of the request are spread evenly over its chunks.
    """
    owner = np.repeat(np.arange(len(requests)), np.diff(requests.chunk_start))
    total = requests["output_tokens"].astype(np.float64)
    even = total / np.maximum(requests["chunks"], 1)
    known = requests.chunk_tokens > 0
    tokens = np.where(known, requests.chunk_tokens, even[owner])
    inside = (requests.chunk_ns >= window.start_ns) & (requests.chunk_ns < window.end_ns)
    return float(tokens[inside & requests.ok[owner]].sum())


def mean_in_flight(requests: Requests, window: Window) -> float:
    """Requests on their way at once, averaged over a window."""
    sent = requests["sent_ns"] >= 0
    begin = np.clip(requests["sent_ns"][sent], window.start_ns, window.end_ns)
    end = np.clip(requests["end_ns"][sent], window.start_ns, window.end_ns)
    return float((end - begin).sum() / 1e9 / window.seconds)


def of_slo(requests: Requests, slo: Slo) -> Floats:
    """The metric that a limit is about, NaN where a request has none; shape (n,)."""
    values = {
        "ttft": lambda: ttft_s(requests, "scheduled"),
        "e2e": lambda: e2e_s(requests, "scheduled"),
        "tpot": lambda: tpot_s(requests),
        "icl": lambda: longest_gap_s(requests),
    }
    return values[slo.metric]()


def good(requests: Requests, slos: Sequence[Slo]) -> NDArray[np.bool_]:
    """Which requests succeeded and kept every limit; a metric that is missing is not kept; shape (n,).

    One-token answers have no TPOT and no gap: those two limits do not concern them.
    """
    kept = requests.ok.copy()
    single = requests["output_tokens_asked"] == 1
    for slo in slos:
        within = np.nan_to_num(of_slo(requests, slo), nan=np.inf) <= slo.limit_s
        kept &= (within | single) if slo.metric in ("tpot", "icl") else within
    return kept
