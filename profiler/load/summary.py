"""From the columns of a load to the measurements and flags of its case. Definitions: ``docs/metrics.md``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from profiler.load import latency
from profiler.load.intervals import LATENCIES, SCOPE, latency_figures, steady_rates
from profiler.load.search import judge
from profiler.load.slo import Slo
from profiler.load.table import Requests
from profiler.load.vitals import Vitals
from profiler.measure.percentiles import percentile_upper_bound
from profiler.results.schema import CaseSpec, ClientCeiling, LoadProcess, Measurement, ServedRecord

BOUNDED = (90, 95, 99)
GAP_PERCENTILES = (50, 99)


def measurements(
    requests: Requests, concurrency: int | None, slos: Sequence[Slo] = ()
) -> dict[str, Measurement]:
    """Return every measurement of a load.

    Args:
        requests: the load.
        concurrency: streams of a closed loop, None for an open one.
        slos: limits of goodput and attainment.
    """
    found: dict[str, Measurement] = {}
    times = {
        "ttft": latency.ttft_s(requests),
        "ttft_scheduled": latency.ttft_s(requests, "scheduled"),
        "first_answer": latency.first_answer_s(requests),
        "tpot": latency.tpot_s(requests),
        "tpot_vllm": latency.tpot_vllm_s(requests),
        "e2e": latency.e2e_s(requests),
        "e2e_scheduled": latency.e2e_s(requests, "scheduled"),
    }
    for name, values in times.items():
        found |= _latencies(name, values, requests)
    found |= _gaps(latency.gaps_s(requests))
    found |= _throughput(requests, concurrency)
    found |= steady_rates(requests, latency.steady(requests, concurrency), found)
    found |= _goodput(requests, slos)
    return found


def _latencies(name: str, values: NDArray[np.float64], requests: Requests) -> dict[str, Measurement]:
    """Return mean and percentiles; in percentiles a failed request is infinitely slow."""
    known, ok = values[np.isfinite(values)], requests.ok
    if not len(known):
        reason = "no request succeeded" if not ok.any() else "no request has one"
        names = [f"{name}_s", *(f"{name}_p{share}_s" for share in (50, *BOUNDED))]
        names += [f"{name}_p{share}_observed_s" for share in BOUNDED if name in LATENCIES]
        return {each: Measurement.missing("s", reason) for each in names}
    # Successful requests without the metric (one token has no TPOT) are left out; failed ones are not.
    entered = np.concatenate([known, np.full(int((~ok).sum()), np.inf)])
    bounds = {f"{name}_p{share}_s": _bound(entered, share) for share in BOUNDED}
    return latency_figures(name, values, requests) | bounds


def _bound(values: NDArray[np.float64], share: int) -> Measurement:
    bound = percentile_upper_bound(np.maximum(values, 1e-9), share)
    if bound.value is None:
        return Measurement.missing("s", bound.reason or "unknown")
    method = f"upper bound at 99% confidence (MLPerf early stopping, t = {bound.over})"
    return Measurement(value=bound.value, unit="s", n=bound.n, method=method, scope=SCOPE)


def _gaps(gaps: NDArray[np.float64]) -> dict[str, Measurement]:
    names = ["icl_s", *(f"icl_p{share}_s" for share in GAP_PERCENTILES), "icl_max_s"]
    if not len(gaps):
        return {name: Measurement.missing("s", "no answer came in more than one chunk") for name in names}
    values = [gaps.mean(), *(np.quantile(gaps, share / 100) for share in GAP_PERCENTILES), gaps.max()]
    methods = ["mean", *(f"p{share}" for share in GAP_PERCENTILES), "largest"]
    return {
        name: Measurement(
            value=float(value),
            unit="s",
            n=len(gaps),
            method=f"{method} of all gaps between chunks",
            scope=SCOPE,
        )
        for name, value, method in zip(names, values, methods, strict=True)
    }


def _throughput(requests: Requests, concurrency: int | None) -> dict[str, Measurement]:
    found: dict[str, Measurement] = {}
    ok = requests.ok
    spans = {"": latency.whole(requests), "_steady": latency.steady(requests, concurrency)}
    words = {"": "whole run", "_steady": "steady window"}
    for suffix, window in spans.items():
        units = {
            f"output_tokens_per_s{suffix}": "tokens/s",
            f"input_tokens_per_s{suffix}": "tokens/s",
            f"requests_per_s{suffix}": "requests/s",
            f"mean_in_flight{suffix}": "requests",
        }
        if window.reason:
            found |= {name: Measurement.missing(unit, window.reason) for name, unit in units.items()}
            continue
        ended = ok & (requests["end_ns"] >= window.start_ns) & (requests["end_ns"] <= window.end_ns)
        prompts = np.where(
            requests["prompt_tokens"] >= 0, requests["prompt_tokens"], requests["prompt_tokens_asked"]
        )
        tokens = (
            latency.tokens_within(requests, window) if suffix else float(requests["output_tokens"][ok].sum())
        )
        amounts = (tokens, float(prompts[ended].sum()), float(ended.sum()))
        values = [amount / window.seconds for amount in amounts] + [latency.mean_in_flight(requests, window)]
        for (name, unit), value in zip(units.items(), values, strict=True):
            method = f"{words[suffix]}, {window.seconds:.3f} s, successful requests"
            found[name] = Measurement(value=value, unit=unit, n=int(ended.sum()), method=method, scope=SCOPE)
    return found


def _goodput(requests: Requests, slos: Sequence[Slo]) -> dict[str, Measurement]:
    units = {"goodput_requests_per_s": "requests/s", "slo_attainment": "ratio"}
    window = latency.whole(requests)
    if not slos or window.reason:
        reason = window.reason or "no limits were given (--slo)"
        return {name: Measurement.missing(unit, reason) for name, unit in units.items()}
    good = int(latency.good(requests, slos).sum())
    values = (good / window.seconds, good / len(requests))
    method = f"within {', '.join(map(str, slos))}; failed requests and missing metrics are not"
    return {
        name: Measurement(value=value, unit=unit, n=len(requests), method=method, scope=SCOPE)
        for (name, unit), value in zip(units.items(), values, strict=True)
    }


def served_record(
    requests: Requests,
    spec: CaseSpec,
    vitals: Sequence[Vitals],
    slos: Sequence[Slo],
    *,
    asked_requests: int | None,
    asked_seconds: float | None,
    warm_up: int,
    intended_rate_per_s: float | None,
    ceiling: ClientCeiling | None,
    endpoint: dict[str, object],
    parts: Sequence[Requests] = (),
    prompt_series: int | None = None,
) -> ServedRecord:
    """Return what was sent and what became of it; ``parts``: of each start, where there are several."""
    load = spec.load
    assert load is not None
    parts = parts or (requests,)
    window = _sum(latency.whole(part) for part in parts)
    steady = _sum(latency.steady(part, load.concurrency) for part in parts)
    status = requests.counts("status")
    sent = requests["sent_ns"] >= 0
    delays = (requests["sent_ns"] - requests["scheduled_ns"])[sent] / 1e9
    received = requests["prompt_tokens"][requests["prompt_tokens"] >= 0]
    cached = requests["cached_tokens"][requests["cached_tokens"] >= 0]
    first = requests["sent_ns"][sent]
    # n requests span n - 1 gaps.
    span = float(first.max() - first.min()) / 1e9 if len(first) > 1 else 0.0
    return ServedRecord(
        requests=len(requests),
        ok=status.pop("ok", 0),
        failures=status,
        messages=requests.messages,
        asked_requests=asked_requests,
        asked_seconds=asked_seconds,
        warm_up_requests=warm_up,
        duration_s=window,
        steady_s=steady,
        token_sources=requests.counts("token_source"),
        first_chunk_sources=requests.counts("first_source"),
        prompt_tokens_asked=_mean(requests["prompt_tokens_asked"]),
        prompt_tokens_received=_mean(received),
        cached_tokens=int(cached.sum()) if len(cached) else None,
        intended_rate_per_s=intended_rate_per_s,
        sent_rate_per_s=(len(first) - 1) / span if load.loop == "open" and span > 0 else None,
        send_delay_p50_s=float(np.median(delays)) if len(delays) else None,
        send_delay_max_s=float(delays.max()) if len(delays) else None,
        slos=tuple(map(str, slos)),
        judgements=judge(requests, slos),
        processes=tuple(_process(one) for one in vitals),
        ceiling=ceiling,
        gave_up=next((one.gave_up for one in vitals if one.gave_up), None),
        endpoint=endpoint,
        prompt_series=prompt_series,
    )


def _sum(windows: Iterable[latency.Window]) -> float | None:
    """Return the length of all windows together, None where one is missing."""
    found = list(windows)
    return None if any(one.reason for one in found) else sum(one.seconds for one in found)


def _process(vitals: Vitals) -> LoadProcess:
    lags = np.asarray(vitals.lag_s)
    p50, p99, largest = (
        (float(np.median(lags)), float(np.quantile(lags, 0.99)), float(lags.max()))
        if len(lags)
        else (None, None, None)
    )
    return LoadProcess(
        requests=vitals.requests,
        wall_s=vitals.wall_s,
        cpu_s=vitals.cpu_s,
        loop=vitals.loop,
        loop_lag_p50_s=p50,
        loop_lag_p99_s=p99,
        loop_lag_max_s=largest,
        kernel_stamped=vitals.kernel_stamped,
    )


def _mean(values: NDArray[np.int64]) -> float | None:
    return float(fmean(values.tolist())) if len(values) else None
