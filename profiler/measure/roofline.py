"""How near a case came to what its device can do. Definitions: ``docs/metrics.md``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from profiler.ceilings.matrix import matrix_ceiling_name
from profiler.ceilings.roofline import bound, find_ceiling
from profiler.measure.context import MeasuredStart
from profiler.measure.speculation import NO_STEPS
from profiler.measure.stats import Estimate, rate_interval
from profiler.measure.summary import as_measurement, phase_time, why_no_phase
from profiler.results.schema import CaseSpec, Ceiling, Flag, Measurement, TrialRecord, Work

NO_BANDWIDTH = "the read bandwidth was not measured with this case"
# The share of the bandwidth used in decode and of the matrix rate in prefill are what the field calls
# MBU and MFU; the other two carry their phase in the name.
METRICS = {
    "prefill": ("prefill_mbu", "mfu", "prefill_attainable_tokens_per_s", "prefill_headroom"),
    "decode": ("mbu", "decode_mfu", "decode_attainable_tokens_per_s", "decode_headroom"),
}


@dataclass(frozen=True)
class _Phase:
    """A phase of a case and the work of one trial in it.

    Attributes:
        name: ``prefill`` or ``decode``.
        value: its time in a trial, or None where it does not exist.
        tokens: tokens that the whole batch gets done in it.
    """

    name: str
    value: Callable[[TrialRecord], float | None]
    tokens: int
    flops: float
    moved_bytes: float


def roofline(
    spec: CaseSpec, work: Work, outcomes: Sequence[MeasuredStart], ceilings: Sequence[Ceiling]
) -> tuple[dict[str, Measurement], dict[str, str]]:
    """Hold both phases of a case against the ceilings of its device.

    The bandwidth is that of the probes round the same starts, because on many boxes it moves from
    minute to minute; a figure against another hour's bandwidth would say nothing. The matrix rate is
    that measured before the first case.

    Args:
        spec: the case.
        work: what a trial of it has to compute and move.
        outcomes: the starts that count, at least one.
        ceilings: of the run.

    Returns:
        The measurements by name, and by phase the ceiling that binds it.
    """
    dtype = spec.formats.compute_dtype
    matrix = find_ceiling(ceilings, spec.device_key, matrix_ceiling_name(dtype), spec.engine)
    # Each device is as good as the one that was probed; together they are so many times as good.
    count = len(spec.all_devices)
    bytes_per_s, flops_per_s = (
        _times(_probed(outcomes), count),
        _times(matrix.measurement.value if matrix else None, count),
    )
    no_matrix = f"the matrix rate in {dtype} was not measured on this device"
    found: dict[str, Measurement] = {}
    binding: dict[str, str] = {}
    for phase in _phases(spec, work):
        names = METRICS[phase.name]
        time = phase_time(outcomes, phase.value)
        if time is None:
            found |= {name: Measurement.missing(_unit(name), why_no_phase(outcomes)) for name in names}
            continue
        if phase.name == "decode" and spec.speculative is not None:
            found |= {name: Measurement.missing(_unit(name), NO_STEPS) for name in names}
            continue
        mbu, mfu, attainable, headroom = names
        found[mbu] = _share(time, phase.moved_bytes, bytes_per_s, NO_BANDWIDTH, outcomes)
        found[mfu] = _share(time, phase.flops, flops_per_s, no_matrix, outcomes)
        if bytes_per_s is None or flops_per_s is None:
            reason = NO_BANDWIDTH if bytes_per_s is None else no_matrix
            found |= {name: Measurement.missing(_unit(name), reason) for name in (attainable, headroom)}
            continue
        least = bound(
            phase.flops,
            phase.moved_bytes,
            bytes_per_s=bytes_per_s,
            flops_per_s=flops_per_s,
            compute_dtype=dtype,
        )
        binding[phase.name] = least.ceiling
        found[attainable] = Measurement(
            value=phase.tokens / least.seconds,
            unit="tokens/s",
            method=f"roofline, bound by {least.ceiling}",
            scope="device",
        )
        found[headroom] = _headroom(time, least.seconds, outcomes)
    return found, binding


def _phases(spec: CaseSpec, work: Work) -> tuple[_Phase, ...]:
    batch, outputs = spec.batch, spec.output_tokens
    return (
        _Phase("prefill", lambda trial: trial.prefill_s, batch * spec.prompt_tokens,
               work.prefill_flops, work.prefill_bytes),
        _Phase("decode", lambda trial: trial.decode_s, batch * (outputs - 1),
               work.decode_flops, work.decode_bytes),
    )  # fmt: skip


def ceiling_flags(measured: Mapping[str, Measurement]) -> list[Flag]:
    """Return a flag when a case was faster than its ceilings, beyond its own interval: these are too low.

    Args:
        measured: the measurements of the case.
    """
    above = []
    for mbu, mfu, _, _ in METRICS.values():
        for name in (mbu, mfu):
            found = measured.get(name)
            if found is not None and found.value is not None:
                surely = found.value if found.ci95 is None else found.ci95[0]
                if surely > 1:
                    above.append(f"{name} {found.value:.0%}")
    if not above:
        return []
    text = f"{', '.join(above)} of what the device was measured to do at most: measured in a slower moment"
    hint = "measure the ceilings again on a quiet box (aiprof ceilings); shares and headroom are no use here"
    return [Flag(code="above_ceiling", text=text, hint=hint)]


def _times(rate: float | None, count: int) -> float | None:
    return None if rate is None else count * rate


def _unit(name: str) -> str:
    return "tokens/s" if name.endswith("tokens_per_s") else "ratio"


def _probed(outcomes: Sequence[MeasuredStart]) -> float | None:
    records = [outcome.record for outcome in outcomes]
    probes = [record.probe_before_bytes_per_s for record in records]
    probes += [record.probe_after_bytes_per_s for record in records]
    known = [probe for probe in probes if probe is not None]
    return fmean(known) if known else None


def _share(
    time: Estimate, work: float, per_s: float | None, reason: str, outcomes: Sequence[MeasuredStart]
) -> Measurement:
    """Return which share of a ceiling was used: the work per second over the ceiling."""
    if per_s is None:
        return Measurement.missing("ratio", reason)
    return as_measurement(rate_interval(time, work / per_s), "ratio", outcomes)


def _headroom(time: Estimate, least_s: float, outcomes: Sequence[MeasuredStart]) -> Measurement:
    """Return how much faster the phase could be at most: attainable over reached speed, less 1."""
    low, high = time.low, time.high
    return Measurement(
        value=time.mean / least_s - 1,
        unit="ratio",
        ci95=None if low is None or high is None else (low / least_s - 1, high / least_s - 1),
        n=time.n,
        method=f"mean of {'trials' if len(outcomes) == 1 else 'start means'}, {time.method}",
        scope="within_process" if len(outcomes) == 1 else "across_starts",
    )
