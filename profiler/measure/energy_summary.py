"""From the energies of a case's starts to its measurements and flags. Definitions: ``docs/metrics.md``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from profiler.measure.distributions import student_t_quantile
from profiler.measure.stats import CONFIDENCE
from profiler.results.schema import EnergyRecord, Flag, Measurement
from profiler.results.sensor_record import Phase
from profiler.sensors.meters import DEVICE

NO_DECODE = "the scenario generates one token: there is no decode phase"


@dataclass(frozen=True)
class _Figure:
    """What is made of the records of one phase.

    Attributes:
        phase: whose energy it is.
        unit: of the result.
        net: whether idle power is taken off.
        over: what the energy is divided by: ``tokens``, ``seconds``, or nothing.
    """

    phase: Phase
    unit: str
    net: bool = False
    over: str = ""


_FIGURES: dict[str, _Figure] = {
    "energy_j": _Figure("trials", "J"),
    "net_energy_j": _Figure("trials", "J", net=True),
    "power_mean_w": _Figure("trials", "W", over="seconds"),
    "power_max_1s_w": _Figure("max_1s", "W", over="seconds"),
    "idle_power_w": _Figure("idle", "W", over="seconds"),
    "energy_per_output_token_j": _Figure("trials", "J/token", over="tokens"),
    "net_energy_per_output_token_j": _Figure("trials", "J/token", net=True, over="tokens"),
    "prefill_energy_per_token_j": _Figure("prefill", "J/token", over="tokens"),
    "decode_energy_per_token_j": _Figure("decode", "J/token", over="tokens"),
}


def energy_measurements(starts: Sequence[Sequence[EnergyRecord]]) -> dict[str, Measurement]:
    """Return the figures of the device's own meter.

    Args:
        starts: energies of each start that counts, at least one start.
    """
    return {name: _measured(figure, starts) for name, figure in _FIGURES.items()}


def _measured(figure: _Figure, starts: Sequence[Sequence[EnergyRecord]]) -> Measurement:
    found = [_of(figure.phase, energies) for energies in starts]
    records = [record for record in found if record is not None]
    if not records:
        reason = NO_DECODE if figure.phase == "decode" else "no energy was looked for"
        return Measurement.missing(figure.unit, reason)
    rests = {one.start: one for energies in starts if (one := _of("idle", energies)) is not None}
    for number, record in enumerate(records):
        why = _why_missing(figure, record, rests.get(record.start))
        if why is not None:
            where = f"start {number + 1}: " if len(records) > 1 else ""
            return Measurement.missing(figure.unit, f"{where}{why}", scope=record.scope)
    flags = tuple(dict.fromkeys(flag for record in records for flag in record.flags))
    value, half = _with_bound(figure, records)
    methods = dict.fromkeys(record.method for record in records)
    spread = " and the spread between starts" if len(records) > 1 and figure.over else ""
    return Measurement(
        value=value,
        unit=figure.unit,
        ci95=(max(0.0, value - half), value + half),
        n=len(records),
        method=f"{', '.join(methods)}{', net of idle' if figure.net else ''}; ± bound of sampling{spread}",
        scope=records[0].scope,
        flags=flags,
    )


def _with_bound(figure: _Figure, records: Sequence[EnergyRecord]) -> tuple[float, float]:
    """Return the value over all starts, and half of its interval.

    Sums have the sum of the bounds. Of quotients the mean over starts is given, or the largest for the
    highest second; its interval is Student's over starts, widened by the mean bound.
    """
    pairs = [_quotient(figure, record) for record in records]
    if not figure.over:
        return sum(value for value, _ in pairs), sum(bound for _, bound in pairs)
    if figure.phase == "max_1s":
        return max(pairs)
    count = len(pairs)
    mean = sum(value for value, _ in pairs) / count
    bound = sum(bound for _, bound in pairs) / count
    if count == 1:
        return mean, bound
    deviation = math.sqrt(sum((value - mean) ** 2 for value, _ in pairs) / (count - 1))
    return mean, bound + student_t_quantile((1 + CONFIDENCE) / 2, count - 1) * deviation / math.sqrt(count)


def _quotient(figure: _Figure, record: EnergyRecord) -> tuple[float, float]:
    joules = record.net_j if figure.net else record.joules
    bound = record.net_bound_j if figure.net else record.bound_j
    assert joules is not None
    assert bound is not None
    by = {"tokens": record.tokens or 0, "seconds": record.active_s, "": 1}[figure.over]
    return joules / by, bound / by


def _why_missing(figure: _Figure, record: EnergyRecord, rest: EnergyRecord | None) -> str | None:
    if record.reason is not None:
        remedy = f" ({record.reason.remedy})" if record.reason.remedy else ""
        return f"{record.reason.text}{remedy}"
    if figure.net and record.net_j is None:
        if rest is None or rest.joules is None:
            why = "it was not looked for" if rest is None or rest.reason is None else rest.reason.text
            return f"idle power is not known: {why}"
        return "nothing is left above idle power: the work took no more than standing still"
    if figure.over == "tokens" and not record.tokens:
        return "no tokens were made in this phase"
    return None


def _of(phase: Phase, energies: Sequence[EnergyRecord]) -> EnergyRecord | None:
    return next((item for item in energies if (item.covers, item.phase) == (DEVICE, phase)), None)


# Of the energy flags those that somebody has to know of who reads the figures of the case.
_HINTS: dict[str, tuple[str, str]] = {
    "gap": (
        "readings are missing in the window of a phase",
        "something starved the sampler: look at the load",
    ),
    "read_failures": ("some reads of a sensor failed", "see the system log for the device's driver"),
    "constant_reading": ("a power sensor never changed", "compare it with the vendor's own tool"),
    "aliasing_risk": ("decode steps and power readings may be in step", "compare with another batch"),
    "scope_module": ("the counter covers CPU, GPU and memory together", "compare only with the same scope"),
}


def energy_flags(starts: Sequence[Sequence[EnergyRecord]]) -> list[Flag]:
    """Return the energy flags of all phases that have a value, each once."""
    seen: dict[str, dict[str, None]] = {}
    for energies in starts:
        for record in energies:
            for code in record.flags if record.joules is not None else ():
                if code in _HINTS:
                    seen.setdefault(code, {})[f"{record.covers} {record.phase}"] = None
    return [
        Flag(code=code, text=f"{_HINTS[code][0]} ({', '.join(where)})", hint=_HINTS[code][1])
        for code, where in seen.items()
    ]


def joules_of_trials(energies: Sequence[EnergyRecord], seconds: float) -> float | None:
    """Return the device's own energy over the measured trials.

    Where their window was too short and the same requests were repeated, it is that of the repetition for
    the time of the trials.
    """
    for item in energies:
        if (item.covers, item.phase) == (DEVICE, "trials") and item.joules is not None:
            return item.joules * seconds / item.active_s
    return None
