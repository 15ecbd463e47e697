"""What vLLM's servers say of themselves at ``/metrics``, in the text format of Prometheus.

Names: vLLM, ``vllm/v1/metrics/loggers.py`` and ``vllm/v1/spec_decode/metrics.py``. Counters are summed over
the engines of a server (one per data parallel rank). What is not there is None, never 0.
"""

from __future__ import annotations

import http.client
import math
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

TIMEOUT_S = 10.0
MAX_BYTES = 16 * 2**20
_LINE = re.compile(r"^(vllm:\w+)(?:\{(.*)\})? ([0-9.eE+-]+)$", re.MULTILINE)
_LABEL = re.compile(r'\b(\w+)="([^"]*)"')
_WHOLE = re.compile(r"[0-9]{1,15}")
# Beyond it a float does not hold every count; and no cache is so large.
_MOST = 2**53
_MOST_TOKENS = 2**32


@dataclass(frozen=True)
class ServerMetrics:
    """One look at a server; None where it does not say.

    Attributes:
        preemptions: requests thrown out of the cache since it started.
        cached_tokens: prompt tokens taken from its prefix cache since it started.
        cache_tokens: tokens that its cache holds, over all engines.
        drafts: times that speculative decoding guessed since it started.
        draft_tokens: tokens that it guessed.
        accepted_tokens: tokens of them that were right.
    """

    preemptions: int | None = None
    cached_tokens: int | None = None
    cache_tokens: int | None = None
    drafts: int | None = None
    draft_tokens: int | None = None
    accepted_tokens: int | None = None


def read_metrics(url: str) -> ServerMetrics:
    """Ask a server on loopback; what it does not answer stays None."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        text = (
            answer.read(MAX_BYTES).decode("utf-8", "replace") if answer.status == http.HTTPStatus.OK else ""
        )
    except (OSError, http.client.HTTPException):
        text = ""
    finally:
        connection.close()
    return parse_metrics(text)


def parse_metrics(text: str) -> ServerMetrics:
    """Take the text apart."""
    totals: dict[str, float] = {}
    cache_tokens: int | None = None
    for name, labels, value in _LINE.findall(text):
        totals[name] = totals.get(name, 0.0) + _number(value)
        if name == "vllm:cache_config_info":
            known = dict(_LABEL.findall(labels))
            tokens = _whole(known.get("kv_cache_size_tokens"))
            blocks, block = _whole(known.get("num_gpu_blocks")), _whole(known.get("block_size"))
            if tokens is None and blocks is not None and block is not None:
                tokens = blocks * block
            if tokens is not None:
                cache_tokens = (cache_tokens or 0) + tokens

    def total(name: str) -> int | None:
        value = totals.get(f"vllm:{name}_total", totals.get(f"vllm:{name}"))
        return int(value) if value is not None and 0 <= value <= _MOST else None

    return ServerMetrics(
        preemptions=total("num_preemptions"),
        cached_tokens=total("prefix_cache_hits"),
        cache_tokens=None if cache_tokens is None or cache_tokens > _MOST_TOKENS else cache_tokens,
        drafts=total("spec_decode_num_drafts"),
        draft_tokens=total("spec_decode_num_draft_tokens"),
        accepted_tokens=total("spec_decode_num_accepted_tokens"),
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan  # e.g. "1e+", which spoils the sum that it belongs to


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and _WHOLE.fullmatch(text) else None


def since(before: int | None, after: int | None) -> int | None:
    """Return how far a counter came between two looks, None where it is not known."""
    return None if before is None or after is None else max(0, after - before)
