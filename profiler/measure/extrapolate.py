"""From slices of a model to the whole of it: never measured, and marked so everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean

from profiler.models.slices import Depth, factors
from profiler.results.schema import CaseRecord, CaseSpec, Measurement, RunRecord, SliceRecord, StartRecord

SCOPE = "extrapolated"
_UNITS = {
    "extrapolated_prefill_s": "s",
    "extrapolated_prefill_tokens_per_s": "tokens/s",
    "extrapolated_tpot_s": "s",
    "extrapolated_decode_tokens_per_s": "tokens/s",
}


def slice_record(depth: Depth, whole: Depth) -> SliceRecord:
    """Return a slice as it goes into a case's specification."""
    return SliceRecord(dense=depth.dense, moe=depth.moe, of_dense=whole.dense, of_moe=whole.moe)


def same_but_depth(one: CaseSpec, other: CaseSpec) -> bool:
    """Whether two slices are of the same model and differ in depth at most."""
    free = {"case_id", "workload_id", "slice"}
    return (
        one.slice is not None
        and other.slice is not None
        and (one.slice.of_dense, one.slice.of_moe) == (other.slice.of_dense, other.slice.of_moe)
        and one.model_dump(exclude=free) == other.model_dump(exclude=free)
    )


def all_specs(record: RunRecord) -> list[CaseSpec]:
    """Return every case that was asked for; a slice that was skipped is lacking in the extrapolation."""
    return [case.spec for case in record.cases] + [case.spec for case in record.skipped]


def extrapolated(
    spec: CaseSpec,
    measurements: dict[str, Measurement],
    starts: Sequence[StartRecord],
    planned: Sequence[CaseSpec],
    cases: Sequence[CaseRecord],
) -> dict[str, Measurement]:
    """Return what the whole model would take, judging from slices of several depths.

    Args:
        spec: the slice that was just measured.
        measurements: its measurements.
        starts: its starts.
        planned: all cases that were asked for, those that cannot run included; nothing is extrapolated
            before the deepest slice is done.
        cases: cases that have finished before this one.
    """
    if spec.slice is None:
        return {}
    group = [other for other in planned if same_but_depth(spec, other)]
    group.sort(key=lambda other: _depth(other).total)
    depths = [_depth(other) for other in group]
    if spec.case_id != group[-1].case_id:
        return {}
    done = {case.spec.case_id: (case.measurements, case.starts) for case in cases if case.status == "ok"}
    done[spec.case_id] = measurements, tuple(starts)
    lacking = [str(other.slice) for other in group if other.case_id not in done]
    if lacking or len(group) < 2:
        reason = (
            f"the slice of {', '.join(lacking)} was not measured" if lacking else "there is one depth only"
        )
        return {name: Measurement.missing(unit, reason, scope=SCOPE) for name, unit in _UNITS.items()}
    shares = factors(depths, Depth(spec.slice.of_dense, spec.slice.of_moe))
    slices = [done[other.case_id] for other in group]
    moved = _movements([_bandwidth(made) for _, made in slices])
    found: dict[str, Measurement] = {}
    for source, rate, tokens in (
        ("prefill_s", "prefill_tokens_per_s", spec.batch * spec.prompt_tokens),
        ("tpot_s", "decode_tokens_per_s", spec.batch),
    ):
        time = _summed([measured[source] for measured, _ in slices], shares, moved)
        found[f"extrapolated_{source}"] = time
        found[f"extrapolated_{rate}"] = _rate(time, tokens)
    return found


def _depth(spec: CaseSpec) -> Depth:
    assert spec.slice is not None
    return Depth(spec.slice.dense, spec.slice.moe)


def _bandwidth(starts: Sequence[StartRecord]) -> float | None:
    """Return the mean read bandwidth round the trials of a slice, or None where nothing was probed."""
    ends = [
        end
        for start in starts
        if start.used
        for end in (start.probe_before_bytes_per_s, start.probe_after_bytes_per_s)
        if end
    ]
    return fmean(ends) if ends else None


def _movements(bandwidths: Sequence[float | None]) -> list[float]:
    """Return how far the box was from its mean while each slice ran, relative; 0 where it is not known.

    What a slice took on a slower box is not the model's doing, and factors of opposite sign make much of
    it. Whether a phase follows the bandwidth is not known, so this widens the interval and corrects nothing.
    """
    known = [one for one in bandwidths if one is not None]
    return [0.0 if one is None else abs(one / fmean(known) - 1) for one in bandwidths]


def _summed(times: Sequence[Measurement], shares: Sequence[float], moved: Sequence[float]) -> Measurement:
    """Return the time of the whole; the slices' errors are independent, so their squares add up."""
    values = [time.value for time in times]
    reason = next((time.reason for time in times if time.reason is not None), None)
    if reason is not None:
        return Measurement.missing("s", reason, scope=SCOPE)
    value = sum(share * (one or 0.0) for share, one in zip(shares, values, strict=True))
    if value <= 0:
        return Measurement.missing("s", "deeper slices were not slower: too much noise to tell", scope=SCOPE)

    drifts = [share * part * (one or 0.0) for share, part, one in zip(shares, moved, values, strict=True)]

    def side(pick: Callable[[tuple[float, float], float], float]) -> float:
        """Root of the summed squares of the errors towards one side."""
        own = (
            share * (pick(time.ci95, share) - (time.value or 0.0))
            for share, time in zip(shares, times, strict=True)
            if time.ci95 is not None
        )
        return math.sqrt(sum(error**2 for error in (*own, *drifts)))

    ends = None
    if all(time.ci95 is not None for time in times):
        # A negative share turns the ends round.
        low, high = side(lambda ci, share: ci[share < 0]), side(lambda ci, share: ci[share > 0])
        ends = (max(value - low, 0.0), value + high)
    return Measurement(
        value=value,
        unit="s",
        ci95=ends,
        n=len(times),
        method=f"linear in the number of layers, from slices of {len(times)} depths",
        scope=SCOPE,
    )


def _rate(time: Measurement, tokens: int) -> Measurement:
    if time.value is None:
        return Measurement.missing("tokens/s", time.reason or "", scope=SCOPE)
    ends = None
    if time.ci95 is not None and time.ci95[0] > 0:
        ends = (tokens / time.ci95[1], tokens / time.ci95[0])
    return Measurement(
        value=tokens / time.value, unit="tokens/s", ci95=ends, n=time.n, method=time.method, scope=SCOPE
    )
