"""Request columns made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from profiler.load.table import INTEGERS, TEXTS, Requests


def table_of(
    ttft_ms: Sequence[float], *, failed: int = 0, tokens: int = 11, gap_ms: float = 10.0
) -> Requests:
    """Return requests one after the other, each with its TTFT and equal gaps, and failed ones after them."""
    n = len(ttft_ms) + failed
    columns = {name: np.full(n, -1, dtype=np.int64) for name in INTEGERS}
    gap, sent = int(gap_ms * 1e6), 0
    stamps: list[int] = []
    lengths: list[int] = []
    for row in range(n):
        ok = row < len(ttft_ms)
        first = sent + int(ttft_ms[row] * 1e6) if ok else sent + 1
        last = first + gap * (tokens - 1)
        columns["index"][row] = row
        for name in ("process", "endpoint", "retries", "notes", "cached_tokens"):
            columns[name][row] = 0
        columns["scheduled_ns"][row] = columns["sent_ns"][row] = sent
        columns["prompt_tokens_asked"][row] = columns["prompt_tokens"][row] = 8
        columns["output_tokens_asked"][row] = tokens
        columns["end_ns"][row] = last
        if ok:
            for name, value in (
                ("first_token_ns", first),
                ("first_answer_ns", first),
                ("last_token_ns", last),
            ):
                columns[name][row] = value
            columns["output_tokens"][row] = columns["chunks"][row] = tokens
            columns["first_chunk_tokens"][row] = 1
            stamps += [first + gap * step for step in range(tokens)]
        lengths.append(tokens if ok else 0)
        sent = last + 1_000
    status = ["ok"] * len(ttft_ms) + ["http_5xx"] * failed
    texts = {name: np.array(["usage"] * n, dtype=np.str_) for name in TEXTS} | {
        "status": np.array(status, dtype=np.str_)
    }
    return Requests(
        columns,
        texts,
        np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        np.array(stamps, dtype=np.int64),
        np.ones(len(stamps), dtype=np.int32),
    )
