"""What served cases say about a requirement at a number of users: percentiles, attainment and goodput.

A percentile is bounded from above by MLPerf's early stopping and from below where its limit was judged, both
at 99% confidence. Attainment is a share of requests, bounded by Clopper and Pearson's exact interval; goodput
is that share of the requests per second. Of several loads of a case the least favourable counts. Requests
that share a batch are not independent, so these bounds speak for one load; more loads are more starts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from profiler.analysis.decision import Better
from profiler.analysis.evidence import CaseEvidence
from profiler.analysis.figures import Figure
from profiler.analysis.policy import Requirement
from profiler.measure.distributions import binomial_cdf
from profiler.results.schema import CaseRecord, CaseSpec

PERCENTILE_CONFIDENCE = 0.99
UNKNOWN_FORMAT = "unknown"
_SLO = re.compile(r"(ttft|tpot|e2e|icl)(?:_p([0-9.]+))?=([0-9.e+-]+)s")
# In a percentile of a load the wait before sending counts: a client that is late is a user who waits.
_RECORDED = {"ttft_s": "ttft_scheduled", "e2e_s": "e2e_scheduled", "tpot_s": "tpot", "icl_s": "icl"}


@dataclass(frozen=True)
class _Bounds:
    value: float | None
    low: float
    high: float


def fits_served(requirement: Requirement, spec: CaseSpec) -> bool:
    """Whether a case is a closed loop of the users, model, formats and work that a requirement means."""
    selector = requirement.case
    return (
        spec.load is not None
        and spec.load.concurrency == requirement.users
        and selector.fits_model(spec)
        and selector.scenario in (None, spec.scenario)
        and selector.prompt_tokens in (None, spec.prompt_tokens)
        and selector.output_tokens in (None, spec.output_tokens)
    )


def why_none_fits(requirement: Requirement, specs: list[CaseSpec]) -> str:
    """Say why no served case fits."""
    served = [spec for spec in specs if spec.load is not None]
    if not served:
        return "no run holds a served measurement"
    users = sorted({spec.load.concurrency for spec in served if spec.load and spec.load.concurrency})
    formats = {spec.formats.weight_format for spec in served}
    selector = requirement.case
    if formats == {UNKNOWN_FORMAT} and (selector.precision or selector.weight_format):
        return (
            "the formats of a server by URL are not known: name none in case, or measure with "
            "`aiprof sweep --engine endpoint --precision …`"
        )
    if requirement.users not in users:
        listed = ", ".join(map(str, users[:20])) or "none in a closed loop"
        return f"no served case has {requirement.users} users (there are: {listed})"
    return "no served case fits"


def served_figure(requirement: Requirement, case: CaseEvidence, confidence: float) -> Figure:
    """Return what the loads of a case say about a requirement, with bounds.

    Args:
        requirement: one with users.
        case: a served case that was measured.
        confidence: of attainment and goodput; that of percentiles is 99%.
    """
    found: list[_Bounds] = []
    for record in case.records:
        bounds = _bounds(requirement, record, confidence)
        if isinstance(bounds, str):
            return Figure.missing(bounds)
        found.append(bounds)
    if not found:
        return Figure.missing("no load of it was measured")
    better = requirement.metric.better
    worst = (max if better == "lower" else min)(found, key=lambda one: _least_favourable(one, better))
    shown = worst.value if worst.value is not None else worst.high
    failed = not math.isfinite(shown)
    return Figure(
        "load",
        None if failed else shown,
        starts=sum(max(1, len(one.served.servers)) for one in case.records if one.served is not None),
        note="it falls on failed requests" if failed else "" if worst.value is not None else "upper bound",
        load_bounds=(min(one.low for one in found), max(one.high for one in found)),
        load_confidence=PERCENTILE_CONFIDENCE if requirement.percentile is not None else confidence,
    )


def _least_favourable(bounds: _Bounds, better: Better) -> float:
    return bounds.high if better == "lower" else bounds.low


def _bounds(requirement: Requirement, record: CaseRecord, confidence: float) -> _Bounds | str:
    name = requirement.metric.name
    if name in ("slo_attainment", "goodput_requests_per_s"):
        return _share(requirement, record, confidence)
    if requirement.percentile is None:
        return f"a mean of {name} at a number of users has no bounds: require a percentile"
    return _percentile(requirement, record, requirement.percentile)


def _percentile(requirement: Requirement, record: CaseRecord, share: float) -> _Bounds | str:
    name = requirement.metric.name.removesuffix("_s")
    low, high, value = 0.0, math.inf, None
    for judged in record.served.judgements if record.served is not None else ():
        parsed = _SLO.fullmatch(judged.slo)
        if parsed is None or parsed[1] != name or parsed[2] is None or float(parsed[2]) != share:
            continue
        # Without a number the bound lies on failed requests, or there are too few for one.
        low = judged.low_s or (math.inf if judged.verdict == "fails" else 0.0)
        high = math.inf if judged.high_s is None else judged.high_s
        value = judged.value_s
    recorded = record.measurements.get(f"{_RECORDED[requirement.metric.name]}_p{share:g}_s")
    # Gaps are quantiles of all gaps without a bound, and so is a median: neither may pass for one.
    bound = recorded is not None and "upper bound" in recorded.method
    if high == math.inf and recorded is not None and recorded.value is not None and bound:
        high = recorded.value
    if high == math.inf and low == 0.0:
        reason = recorded.reason if recorded is not None else None
        ask = f"measure with --slo {name}_p{share:g}={requirement.limit:g}s"
        return reason or f"there is no bound of p{share:g} of {requirement.metric.name}: {ask}"
    return _Bounds(value, low, high)


def _share(requirement: Requirement, record: CaseRecord, confidence: float) -> _Bounds | str:
    served = record.served
    attained = record.measurements.get("slo_attainment")
    if served is None or attained is None or attained.value is None or served.requests == 0:
        reason = attained.reason if attained is not None else None
        return reason or "it was measured without limits (--slo)"
    # A request is good when it keeps every limit, those of percentiles too: of each metric the least counts.
    limits: dict[str, float] = {}
    known = list(_parsed(served.slos))
    for parsed in known:
        limits[parsed[1]] = min(float(parsed[3]), limits.get(parsed[1], math.inf))
    wanted = {metric.removesuffix("_s"): limit for metric, limit in requirement.slo}
    if limits != wanted or len(known) < len(served.slos):
        flags = " ".join(f"--slo {metric}={limit:g}s" for metric, limit in wanted.items())
        return f"it was measured with the limits {', '.join(served.slos)}; measure with {flags}"
    good = round(attained.value * served.requests)
    low, high = clopper_pearson(good, served.requests, confidence)
    if requirement.metric.name == "slo_attainment":
        return _Bounds(attained.value, low, high)
    rate = record.measurements.get("goodput_requests_per_s")
    if rate is None or rate.value is None or served.duration_s is None or served.duration_s <= 0:
        return "the record holds no goodput"
    every = served.requests / served.duration_s
    return _Bounds(rate.value, low * every, high * every)


def _parsed(slos: tuple[str, ...]) -> Iterator[re.Match[str]]:
    return (parsed for slo in slos if (parsed := _SLO.fullmatch(slo)) is not None)


def clopper_pearson(good: int, n: int, confidence: float) -> tuple[float, float]:
    """Return exact bounds of a share, each of which errs with at most ``1 - confidence``.

    Source: Clopper, Pearson, Biometrika 26 (1934), 404-413.
    """
    error = 1 - confidence

    def share(holds_above: int, chance: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if binomial_cdf(holds_above, n, middle) > chance else (low, middle)
        return (low + high) / 2

    low = 0.0 if good == 0 else share(good - 1, 1 - error)
    high = 1.0 if good == n else share(good, error)
    return low, high
