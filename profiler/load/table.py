"""Results of a load as columns: one row per request, ragged chunk stamps beside it."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from profiler.load.exchange import Exchange
from profiler.load.outcome import Reading

MAX_CHUNKS_KEPT: Final = 20_000_000
"""Chunk stamps kept per process (320 MB); of later requests only first and last are."""

# Name, and what the column holds; -1 stands for what is not known or did not happen.
INTEGERS: Final = (
    "index", "process", "endpoint", "scheduled_ns", "sent_ns", "first_byte_ns", "first_token_ns",
    "first_answer_ns", "last_token_ns", "end_ns", "prompt_tokens_asked", "prompt_tokens", "cached_tokens",
    "output_tokens_asked", "output_tokens", "first_chunk_tokens", "chunks", "received_bytes",
    "http_status", "retries", "notes",
)  # fmt: skip
_MOST_TOKENS: Final = 2**31 - 1
_LONGEST_TEXT: Final = 100
TEXTS: Final = ("status", "token_source", "first_source", "finish_reason")


@dataclass
class Requests:
    """Columns of all requests that were due.

    Attributes:
        columns: integer columns of :data:`INTEGERS`, int64, -1 where unknown; all stamps CLOCK_MONOTONIC ns.
        texts: text columns of :data:`TEXTS`.
        chunk_start: where the chunks of each request begin in the chunk columns, n + 1 entries.
        chunk_ns: stamp of every chunk.
        chunk_tokens: tokens of every chunk, 0 where only the total is known.
        messages: for each failure one message.
    """

    columns: dict[str, NDArray[np.int64]]
    texts: dict[str, NDArray[np.str_]]
    chunk_start: NDArray[np.int64]
    chunk_ns: NDArray[np.int64]
    chunk_tokens: NDArray[np.int32]
    messages: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.columns["index"])

    def __getitem__(self, name: str) -> NDArray[np.int64]:
        return self.columns[name]

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Which requests succeeded."""
        return np.asarray(self.texts["status"] == "ok")

    def counts(self, name: str) -> dict[str, int]:
        """Return how often each value of a text column comes, most frequent first."""
        values, counts = np.unique(self.texts[name], return_counts=True)
        pairs = sorted(zip(values.tolist(), counts.tolist(), strict=True), key=lambda pair: -pair[1])
        return {str(value): int(count) for value, count in pairs}

    def samples(self) -> dict[str, Any]:
        """Return the columns of the Parquet file; chunk stamps are lists of ns since the request was sent."""
        import pyarrow

        found: dict[str, Any] = {
            name: pyarrow.array(values, mask=values < 0) for name, values in self.columns.items()
        }
        found |= {name: values.astype(object) for name, values in self.texts.items()}
        sent = np.repeat(self.columns["sent_ns"], np.diff(self.chunk_start))
        since = pyarrow.array(self.chunk_ns - sent)
        offsets = pyarrow.array(self.chunk_start.astype(np.int32))
        found["chunk_since_sent_ns"] = pyarrow.ListArray.from_arrays(offsets, since)
        found["chunk_tokens"] = pyarrow.ListArray.from_arrays(offsets, pyarrow.array(self.chunk_tokens))
        return found


def from_samples(columns: Mapping[str, Any]) -> Requests:
    """Return the requests that :meth:`Requests.samples` wrote; messages are not among them.

    Args:
        columns: Arrow columns by name.

    Raises:
        ValueError: they do not belong together.
        KeyError: a column is missing.
    """
    integers = {name: _whole_numbers(columns[name], missing=-1) for name in INTEGERS}
    starts, stamps = _ragged(columns["chunk_since_sent_ns"])
    other, tokens = _ragged(columns["chunk_tokens"])
    if not np.array_equal(starts, other):
        raise ValueError("chunks have more stamps than tokens, or fewer")
    if len(tokens) and not 0 <= tokens.min() <= tokens.max() <= _MOST_TOKENS:
        raise ValueError("a chunk has an impossible number of tokens")
    return Requests(
        integers,
        {name: _texts(columns[name]) for name in TEXTS},
        starts,
        stamps + np.repeat(integers["sent_ns"], np.diff(starts)),
        tokens.astype(np.int32),
    )


def _texts(column: Any) -> NDArray[np.str_]:
    """Return an Arrow column of short texts.

    Raises:
        ValueError: it holds something else; an array is as wide as its longest text.
    """
    found = column.to_pylist()
    if not all(isinstance(text, str) and len(text) <= _LONGEST_TEXT for text in found):
        raise ValueError("holds something else than short texts")
    return np.array(found, dtype=np.str_)


def _whole_numbers(column: Any, missing: int | None = None) -> NDArray[np.int64]:
    """Return an Arrow column as int64.

    Raises:
        ValueError: it holds something else, or something is missing and nothing stands for that.
    """
    import pyarrow

    if column.null_count and missing is None:
        raise ValueError("a number is missing")
    if not (pyarrow.types.is_integer(column.type) or pyarrow.types.is_null(column.type)):
        raise ValueError(f"holds {column.type}, not whole numbers")
    filled = column.cast(pyarrow.int64())
    return np.asarray(filled.fill_null(missing) if missing is not None else filled, dtype=np.int64)


def _ragged(column: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where each row of an Arrow column of lists begins, and the numbers of all rows.

    Raises:
        ValueError: it holds something else.
    """
    import pyarrow

    if not pyarrow.types.is_list(column.type):
        raise ValueError(f"holds {column.type}, not lists of numbers")
    if column.null_count:
        raise ValueError("the chunks of a request are missing")
    chunks = column.chunks if isinstance(column, pyarrow.ChunkedArray) else [column]
    lengths = [np.asarray(chunk.value_lengths(), dtype=np.int64) for chunk in chunks]
    flat = [_whole_numbers(chunk.flatten()) for chunk in chunks]
    starts = np.concatenate(([0], np.cumsum(np.concatenate([*lengths, np.empty(0, np.int64)]))))
    return starts.astype(np.int64), np.concatenate([*flat, np.empty(0, np.int64)])


class Builder:
    """Collects readings row by row."""

    def __init__(self, process: int = 0) -> None:
        self._process = process
        self._integers = {name: array("q") for name in INTEGERS}
        self._texts: dict[str, list[str]] = {name: [] for name in TEXTS}
        self._chunk_start = array("q", [0])
        self._chunk_ns = array("q")
        self._chunk_tokens = array("i")
        self._messages: dict[str, str] = {}

    def add(self, exchange: Exchange, reading: Reading) -> None:
        """Add one request."""
        chunks = reading.chunk_ns
        values = {
            "index": exchange.index,
            "process": self._process,
            "endpoint": exchange.endpoint,
            "scheduled_ns": exchange.scheduled_ns,
            "sent_ns": exchange.sent_ns or -1,
            "first_byte_ns": exchange.first_byte_ns or -1,
            "first_token_ns": chunks[0] if chunks else -1,
            "first_answer_ns": reading.first_answer_ns or -1,
            "last_token_ns": chunks[-1] if chunks else -1,
            "end_ns": exchange.end_ns or -1,
            "prompt_tokens_asked": exchange.prompt_tokens,
            "prompt_tokens": _known(reading.prompt_tokens),
            "cached_tokens": _known(reading.cached_tokens),
            "output_tokens_asked": exchange.output_tokens,
            "output_tokens": _known(reading.tokens),
            "first_chunk_tokens": _known(reading.first_tokens),
            "chunks": len(chunks),
            "received_bytes": exchange.received,
            "http_status": reading.http_status or -1,
            "retries": exchange.retries,
            "notes": reading.notes,
        }
        for name, value in values.items():
            self._integers[name].append(min(value, 2**63 - 1))
        texts = (reading.status, reading.token_source, reading.first_source, reading.finish_reason)
        for name, text in zip(TEXTS, texts, strict=True):
            self._texts[name].append(text)
        if len(self._chunk_ns) + len(chunks) <= MAX_CHUNKS_KEPT:
            self._chunk_ns.extend(chunks)
            tokens = reading.chunk_tokens
            if max(tokens, default=0) > _MOST_TOKENS:
                tokens = [min(one, _MOST_TOKENS) for one in tokens]
            self._chunk_tokens.extend(tokens)
        self._chunk_start.append(len(self._chunk_ns))
        if reading.status != "ok":
            self._messages.setdefault(reading.status, reading.message)

    def build(self) -> Requests:
        """Return the columns."""
        return Requests(
            {name: np.array(values, dtype=np.int64) for name, values in self._integers.items()},
            {name: np.array(texts, dtype=np.str_) for name, texts in self._texts.items()},
            np.array(self._chunk_start, dtype=np.int64),
            np.array(self._chunk_ns, dtype=np.int64),
            np.array(self._chunk_tokens, dtype=np.int32),
            dict(self._messages),
        )


def merge(parts: Sequence[Requests]) -> Requests:
    """Return the requests of several processes of one machine in the order of their numbers."""
    columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in INTEGERS}
    order = np.argsort(columns["index"], kind="stable")
    lengths = np.concatenate([np.diff(part.chunk_start) for part in parts])
    starts = np.concatenate(([0], np.cumsum(lengths)))[:-1]
    chunk_ns = np.concatenate([part.chunk_ns for part in parts])
    chunk_tokens = np.concatenate([part.chunk_tokens for part in parts])
    ordered = lengths[order]
    new_starts = np.concatenate(([0], np.cumsum(ordered))).astype(np.int64)
    # Position of every chunk in the joined columns, request by request in the new order.
    where = np.repeat(starts[order] - new_starts[:-1], ordered) + np.arange(new_starts[-1])
    messages: dict[str, str] = {}
    for part in parts:
        messages = part.messages | messages
    return Requests(
        {name: values[order] for name, values in columns.items()},
        {name: np.concatenate([part.texts[name] for part in parts])[order] for name in TEXTS},
        new_starts,
        chunk_ns[where],
        chunk_tokens[where],
        messages,
    )


def take(requests: Requests, rows: NDArray[np.bool_]) -> Requests:
    """Return some of the requests, in their order.

    Args:
        requests: of which.
        rows: which of them; shape (n,).
    """
    lengths = np.diff(requests.chunk_start)
    chunks = np.repeat(rows, lengths)
    return Requests(
        {name: values[rows] for name, values in requests.columns.items()},
        {name: values[rows] for name, values in requests.texts.items()},
        np.concatenate(([0], np.cumsum(lengths[rows]))).astype(np.int64),
        requests.chunk_ns[chunks],
        requests.chunk_tokens[chunks],
        requests.messages,
    )


def to_arrays(requests: Requests) -> dict[str, NDArray[Any]]:
    """Return everything but the messages as arrays by name, for ``numpy.savez``."""
    chunks: dict[str, NDArray[Any]] = {
        "chunk_start": requests.chunk_start,
        "chunk_ns": requests.chunk_ns,
        "chunk_tokens": requests.chunk_tokens,
    }
    texts: dict[str, NDArray[Any]] = {f"text_{name}": values for name, values in requests.texts.items()}
    columns: dict[str, NDArray[Any]] = dict(requests.columns)
    return columns | texts | chunks


def from_arrays(arrays: Mapping[str, NDArray[Any]], messages: dict[str, str]) -> Requests:
    """Return the requests that :func:`to_arrays` took apart."""
    return Requests(
        {name: arrays[name] for name in INTEGERS},
        {name: arrays[f"text_{name}"] for name in TEXTS},
        arrays["chunk_start"],
        arrays["chunk_ns"],
        arrays["chunk_tokens"],
        messages,
    )


def _known(value: int | None) -> int:
    return -1 if value is None else value
