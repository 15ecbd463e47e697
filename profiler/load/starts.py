"""A load on a server that was started several times: figures over the starts, and their raw samples.

The start is what is repeated, so means and rates are means over starts with an interval from their spread.
Percentiles want many requests; they are of the requests of all starts together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np

from profiler.load.slo import Slo
from profiler.load.summary import measurements
from profiler.load.table import Requests, from_samples, merge, take
from profiler.measure.distributions import student_t_quantile
from profiler.measure.stats import CONFIDENCE
from profiler.results.schema import Measurement

START = "start"
"""Column of the raw samples with the number of the start; only there where the server was started here."""

ACROSS, POOLED = "across_starts", "pooled_starts"


def measurements_of_starts(
    parts: Sequence[Requests], concurrency: int | None, slos: Sequence[Slo] = ()
) -> dict[str, Measurement]:
    """Return every measurement of a load.

    Args:
        parts: the requests of each start, at least one.
        concurrency: streams of a closed loop, None for an open one.
        slos: limits of goodput and attainment.
    """
    each = [measurements(part, concurrency, slos) for part in parts]
    if len(each) == 1:
        return each[0]
    together = measurements(merge(parts), concurrency, slos)
    return {
        name: _pooled(together[name], len(parts))
        if _is_quantile(name)
        else _across([figures[name] for figures in each])
        for name in together
    }


def _is_quantile(name: str) -> bool:
    """Whether a figure is a percentile or a largest value, of which there is no mean."""
    stem = name.removesuffix("_s")
    return stem.endswith("_max") or stem.rpartition("_p")[2].isdigit()


def _pooled(figure: Measurement, starts: int) -> Measurement:
    if figure.value is None:
        return figure
    method = f"{figure.method}, of {starts} starts together"
    return figure.model_copy(update={"method": method, "scope": POOLED})


def _across(figures: Sequence[Measurement]) -> Measurement:
    """Return the mean over starts, or why there is none: the reason of the first start without a value."""
    missing = next((one for one in figures if one.value is None), None)
    if missing is not None:
        return missing
    values = [one.value for one in figures if one.value is not None]
    middle = fmean(values)
    half = student_t_quantile((1 + CONFIDENCE) / 2, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Measurement(
        value=middle,
        unit=figures[0].unit,
        ci95=(max(0.0, middle - half), middle + half),
        n=len(values),
        method=f"mean over {len(values)} starts; {figures[0].method}",
        scope=ACROSS,
    )


def samples_of(parts: Sequence[Requests]) -> dict[str, Any]:
    """Return the columns of the Parquet file, with the number of the start where there are several."""
    if len(parts) == 1:
        return parts[0].samples()
    columns: dict[str, Any] = {START: np.repeat(np.arange(len(parts)), [len(part) for part in parts])}
    return columns | _end_to_end(parts).samples()


def parts_from_samples(columns: Mapping[str, Any]) -> list[Requests]:
    """Return the requests of each start that :func:`samples_of` wrote.

    Raises:
        ValueError: the columns do not belong together.
        KeyError: a column is missing.
    """
    requests = from_samples(columns)
    if START not in columns:
        return [requests]
    starts = np.array(columns[START].to_pylist(), dtype=np.int64)
    if starts.shape != (len(requests),):
        raise ValueError("there are more starts than requests, or fewer")
    return [take(requests, starts == number) for number in np.unique(starts)]


def _end_to_end(parts: Sequence[Requests]) -> Requests:
    """Return the requests of the parts one after the other."""
    first = parts[0]
    lengths = np.concatenate([np.diff(part.chunk_start) for part in parts])
    return Requests(
        {name: np.concatenate([part.columns[name] for part in parts]) for name in first.columns},
        {name: np.concatenate([part.texts[name] for part in parts]) for name in first.texts},
        np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        np.concatenate([part.chunk_ns for part in parts]),
        np.concatenate([part.chunk_tokens for part in parts]),
    )
