"""Intervals of a load's figures, from batches of its own requests: what holds within that one load.

How requests differ from the next load, or the next start of the server, is not in them: that takes several
loads (``docs/method.md``, "Loads").
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from profiler.load import latency
from profiler.load.table import Requests
from profiler.measure.batch_means import (
    MEAN_BATCHES,
    percentile_interval,
    rate_interval_from_slices,
    request_mean_interval,
)
from profiler.measure.stats import Estimate
from profiler.results.schema import Measurement

SCOPE = "one_load"
# A wait of nothing is below the resolution of the clock.
_LEAST_S = 1e-9
LATENCIES = ("ttft", "tpot", "e2e")
"""Those of which percentiles are given as observed, beside their upper bounds."""


def latency_figures(name: str, values: NDArray[np.float64], requests: Requests) -> dict[str, Measurement]:
    """Return mean, median and, of :data:`LATENCIES`, the percentiles observed, each with its interval.

    Args:
        name: ``ttft``, ``tpot``, …
        values: of every request, NaN where it has none; at least one is known.
        requests: the load; in percentiles its failed requests are infinitely slow.
    """
    order = np.argsort(requests["end_ns"], kind="stable")
    values, failed = values[order], ~requests.ok[order]
    known = np.isfinite(values)
    entered = np.maximum(np.where(failed, np.inf, values)[known | failed], _LEAST_S)
    found = {
        f"{name}_s": _mean(np.maximum(values[known], _LEAST_S)),
        f"{name}_p50_s": _percentile(entered, 50),
    }
    if name in LATENCIES:
        found |= {f"{name}_p{share}_observed_s": _percentile(entered, share) for share in (90, 95, 99)}
    return found


def _mean(values: NDArray[np.float64]) -> Measurement:
    return _measured(request_mean_interval(values), "s", "mean of successful requests")


def _percentile(entered: NDArray[np.float64], share: int) -> Measurement:
    if share > 50 and len(entered) * (100 - share) < 100:
        least = -(-100 // (100 - share))
        return Measurement.missing(
            "s", f"p{share} of a load needs {least} requests, {len(entered)} were measured"
        )
    estimate = percentile_interval(entered, share)
    if not np.isfinite(estimate.mean):
        at_least = "half" if share == 50 else f"{100 - share}%"
        return Measurement.missing("s", f"{at_least} of the requests failed")
    what = "median of requests" if share == 50 else f"p{share} of requests"
    return _measured(estimate, "s", what)


def steady_rates(
    requests: Requests, window: latency.Window, found: dict[str, Measurement]
) -> dict[str, Measurement]:
    """Return the rates over a steady window with intervals from its twenty slices.

    A slice must be as long as a request takes, or slices say how requests are phased and not how fast the
    server is.

    Args:
        requests: the load.
        window: its steady part.
        found: measurements without intervals.
    """
    name = "output_tokens_per_s_steady"
    rate = found[name]
    length = window.seconds / MEAN_BATCHES
    taken = latency.e2e_s(requests)
    taken = taken[np.isfinite(taken)]
    if rate.value is None or rate.value <= 0 or not len(taken) or length < float(taken.mean()):
        return {}
    edges = np.linspace(window.start_ns, window.end_ns, MEAN_BATCHES + 1).astype(np.int64)
    slices = [
        latency.tokens_within(requests, latency.Window(int(low), int(high))) * 1e9 / (high - low)
        for low, high in pairwise(edges)
    ]
    estimate = rate_interval_from_slices(rate.value, slices, rate.n)
    if estimate.low is None or estimate.high is None:
        return {}
    method = f"{rate.method}; interval from {MEAN_BATCHES} slices of it"
    return {name: rate.model_copy(update={"ci95": (max(0.0, estimate.low), estimate.high), "method": method})}


def _measured(estimate: Estimate, unit: str, what: str) -> Measurement:
    """Return an estimate as a measurement; an interval of a time does not reach below 0."""
    interval = None
    if estimate.low is not None and estimate.high is not None:
        interval = (max(0.0, estimate.low), estimate.high)
        batches = MEAN_BATCHES if estimate.method.startswith("serial") else int(estimate.n_effective or 0)
        what = f"{what}; interval from {batches} batches of consecutive requests"
    return Measurement(value=estimate.mean, unit=unit, ci95=interval, n=estimate.n, method=what, scope=SCOPE)
