"""From what a user asks for to requests: lengths, moments, and the specification of each case."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from profiler.errors import InputFileError, UsageError
from profiler.workload.arrivals import Process, schedule
from profiler.workload.lengths import sample_lengths
from profiler.workload.scenario import Scenario

MAX_TRACE_BYTES = 512 * 2**20
MAX_REQUESTS = 1_000_000
LENGTHS_DRAWN = 65_536
"""A load with more requests than this begins again with the first lengths."""


@dataclass(frozen=True)
class Trace:
    """Requests as a service saw them.

    Attributes:
        at_s: moments since the first one, rising.
        prompt_tokens: prompt lengths.
        output_tokens: output lengths.
        hash_ids: prefix blocks of each prompt (Mooncake), or None.
        sha256: digest of the file.
    """

    at_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    hash_ids: tuple[tuple[int, ...], ...] | None
    sha256: str


def read_trace(path: Path) -> Trace:
    """Read a trace: CSV with Azure's columns or JSON lines with Mooncake's.

    Azure LLM inference traces have ``TIMESTAMP`` (date and time), ``ContextTokens`` and ``GeneratedTokens``;
    Mooncake's have ``timestamp`` (milliseconds), ``input_length``, ``output_length`` and ``hash_ids``.

    Raises:
        InputFileError: with every fault, at most ten.
    """
    try:
        if not path.is_file():  # reading a pipe could wait for ever
            raise InputFileError([f"{path}: no such file, or not a regular one"])
        with path.open("rb") as file:
            data = file.read(min(MAX_TRACE_BYTES, os.fstat(file.fileno()).st_size) + 1)
        if len(data) > MAX_TRACE_BYTES:
            raise InputFileError([f"{path}: larger than {MAX_TRACE_BYTES} bytes; give a part of it"])
    except OSError as error:
        raise InputFileError([f"{path}: cannot be read: {error.strerror}"]) from error
    text = data.decode("utf-8", "replace").removeprefix("\ufeff")
    try:
        rows, faults = (_mooncake if text.lstrip().startswith("{") else _azure)(path, text)
    except csv.Error as error:
        raise InputFileError([f"{path}: is not CSV: {error}"]) from None
    if not rows and not faults:
        faults = [f"{path}: no request in it"]
    if faults:
        raise InputFileError(faults[:10])
    rows.sort(key=lambda row: row[0])
    at = np.array([row[0] for row in rows], dtype=np.float64)
    hashes = tuple(row[3] for row in rows)
    return Trace(
        at - at[0],
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([row[2] for row in rows], dtype=np.int64),
        hashes if any(hashes) else None,
        hashlib.sha256(data).hexdigest(),
    )


Row = tuple[float, int, int, tuple[int, ...]]


def _azure(path: Path, text: str) -> tuple[list[Row], list[str]]:
    reader = csv.DictReader(io.StringIO(text, newline=None))
    wanted = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
    missing = [name for name in wanted if name not in (reader.fieldnames or ())]
    if missing:
        what = f"no column {', '.join(missing)}; Azure's CSV and Mooncake's JSON lines can be read"
        return [], [f"{path}:1: {what}"]
    rows: list[Row] = []
    faults: list[str] = []
    for number, row in enumerate(reader, start=2):
        try:
            stamp = row["TIMESTAMP"]
            # Seven digits of a second are one more than fromisoformat takes on Python 3.11.
            at = _number(stamp) if stamp.replace(".", "", 1).isdigit() else _moment(stamp)
            rows.append((at, *_lengths(row["ContextTokens"], row["GeneratedTokens"]), ()))
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            faults.append(f"{path}:{number}: {error}")
    return rows, faults


def _moment(stamp: str) -> float:
    whole, _, fraction = stamp.strip().removesuffix("Z").partition(".")
    digits, zone = fraction[:7], fraction[7:]
    for sign in ("+", "-"):
        if sign in fraction:
            digits, zone = fraction.split(sign)[0], sign + fraction.split(sign)[1]
    moment = datetime.fromisoformat(whole + (zone or "+00:00"))
    return moment.timestamp() + (float(f"0.{digits}") if digits else 0.0)


def _mooncake(path: Path, text: str) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    faults: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            lengths = _lengths(row["input_length"], row["output_length"])
            hashes = tuple(int(one) % 2**31 for one in row.get("hash_ids", ()))
            rows.append((_number(row["timestamp"]) / 1000.0, *lengths, hashes))
        except KeyError as error:
            faults.append(f"{path}:{number}: no {error.args[0]}")
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            faults.append(f"{path}:{number}: {error}")
    return rows, faults


def _number(value: Any) -> float:
    number = float(value)
    if not np.isfinite(number) or number < 0:
        raise ValueError(f"{value} is no moment")
    return number


def _lengths(prompt: Any, output: Any) -> tuple[int, int]:
    lengths = int(prompt), int(output)
    if not all(1 <= length <= 10_000_000 for length in lengths):
        raise ValueError(f"lengths of {lengths[0]} and {lengths[1]} tokens cannot be")
    return lengths


def ramp(start_per_s: float, end_per_s: float, seconds: float) -> NDArray[np.float64]:
    """Return the moments of arrivals whose rate goes evenly from one rate to another.

    The k-th arrival is due when the integral of the rate reaches k.

    Raises:
        UsageError: a rate or the time is not above 0.
    """
    if min(start_per_s, end_per_s) < 0 or max(start_per_s, end_per_s) <= 0 or seconds <= 0:
        raise UsageError("a ramp needs rates from 0 on, not both 0, and a time above 0")
    count = int((start_per_s + end_per_s) / 2 * seconds)
    numbers = np.arange(max(count, 1), dtype=np.float64)
    slope = (end_per_s - start_per_s) / seconds
    if slope == 0:
        return numbers / start_per_s
    root = np.sqrt(np.maximum(start_per_s**2 + 2 * slope * numbers, 0.0))
    return np.asarray((root - start_per_s) / slope, dtype=np.float64)


@dataclass(frozen=True)
class Shape:
    """Lengths of requests, and where they come from.

    Attributes:
        name: scenario name for the record.
        prompt_tokens: lengths, repeated when there are more requests.
        output_tokens: likewise.
        kind: as in :class:`profiler.results.schema.LoadSpec`.
        nominal: prompt and output length that stand for the case: the fixed ones, or the medians.
    """

    name: str
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    kind: Literal["fixed", "distribution", "trace"]
    nominal: tuple[int, int]


def fixed_shape(prompt_tokens: int, output_tokens: int, name: str | None = None) -> Shape:
    """Return requests of equal lengths."""
    one = np.array([prompt_tokens]), np.array([output_tokens])
    return Shape(name or f"{prompt_tokens}-{output_tokens}", *one, "fixed", (prompt_tokens, output_tokens))


def served_shape(scenario: Scenario, seed: int, *, fixed: bool = False) -> Shape:
    """Return the lengths of a scenario: drawn from its distributions, or its medians for every request."""
    if scenario.served is None or fixed:
        return fixed_shape(scenario.prompt_tokens, scenario.output_tokens, scenario.name)
    served = scenario.served
    prompts, outputs = (
        sample_lengths(quantiles, LENGTHS_DRAWN, scenario=scenario.name, seed=seed, part=part)
        for quantiles, part in ((served.prompt_tokens, "prompt"), (served.output_tokens, "output"))
    )
    nominal = (scenario.prompt_tokens, scenario.output_tokens)
    return Shape(scenario.name, prompts, outputs, "distribution", nominal)


def arrivals_of(scenario: Scenario) -> tuple[str, float]:
    """Return kind and coefficient of variation of a scenario's arrivals; Poisson where it names none."""
    served = scenario.served
    return ("poisson", 1.0) if served is None else (served.arrivals.process, served.arrivals.cv)


def trace_shape(trace: Trace) -> Shape:
    """Return the lengths of a trace."""
    nominal = int(np.median(trace.prompt_tokens)), int(np.median(trace.output_tokens))
    return Shape("trace", trace.prompt_tokens, trace.output_tokens, "trace", nominal)


def open_schedule(
    scenario: str,
    process: Process,
    rate_per_s: float,
    cv: float,
    *,
    count: int | None,
    seconds: float | None,
    seed: int,
) -> NDArray[np.float64]:
    """Return when requests are due: ``count`` of them, or as many as fall into ``seconds``.

    Raises:
        UsageError: too many requests, or arrivals that cannot be.
    """
    wanted = count
    if wanted is None:
        expected = rate_per_s * (seconds or 0.0)
        wanted = int(expected + 6 * max(cv, 0.1) * np.sqrt(expected + 1)) + 2
    if wanted > MAX_REQUESTS:
        raise UsageError(f"{wanted} requests are too many for one case; at most {MAX_REQUESTS}")
    try:
        due = schedule(
            process,
            rate_per_s=rate_per_s,
            cv=cv,
            count=wanted,
            scenario=scenario,
            seed=seed,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    return due if seconds is None else due[due < seconds]
