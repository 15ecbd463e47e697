"""In what state a device was while trials ran: clocks, temperature, throttling, errors, other users.

Most of these sensors are read twice per second, so what lasts for less can go unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from profiler.results.schema import Flag
from profiler.sensors.base import SensorInfo
from profiler.sensors.health import health_name
from profiler.sensors.throttle import HARDWARE, POWER, THERMAL, reasons
from profiler.sensors.ticks import Series

# A reason that a device gives in fewer reads than this part of them is part of its normal control.
_RARE = 0.05
_FEWEST_READS = 6
_CLOCK_CHANGE = 0.05
# Between two steps a clock may rest for a moment; for longer it is held down.
_BELOW_RATED = 0.25

_HINTS = {
    THERMAL: "improve the cooling; the figures are those of a device that is too hot",
    POWER: "this is what the device does at its power limit; compare only at equal limits",
    HARDWARE: "see the vendor's tool for the cause: heat, or power supply",
}


@dataclass(frozen=True)
class Watched:
    """A sensor's reads while the measured trials of one start ran.

    Attributes:
        info: of the sensor.
        reads: good ones only.
    """

    info: SensorInfo
    reads: Series


def condition_flags(watched: Sequence[Watched]) -> list[Flag]:
    """Return what the states of a device say against the results of its case, each code once.

    Args:
        watched: every state sensor in every start that counts.
    """
    found: dict[str, Flag] = {}
    for one in watched:
        for flag in _JUDGES.get(one.info.kind, _nothing)(one):
            found.setdefault(flag.code, flag)
    for flag in _limit_changed(watched):
        found.setdefault(flag.code, flag)
    return list(found.values())


def foreign_flag(before: int | None, loaded: int | None, after: int | None) -> Flag | None:
    """Return the flag of another process on the device, or None.

    Args:
        before: processes on it before the worker was started.
        loaded: with the worker's model loaded.
        after: after its trials.
    """
    hint = "stop other work on the device and measure again"
    if before:
        text = f"{before} other process(es) were on the device before this case began"
        return Flag(code="foreign_process", text=text, hint=hint)
    if loaded is not None and after is not None and after > loaded:
        text = f"{after - loaded} process(es) came to the device while the case ran"
        return Flag(code="foreign_process", text=text, hint=hint)
    return None


def _nothing(_: Watched) -> list[Flag]:
    return []


def _throttling(one: Watched) -> list[Flag]:
    values = one.reads.raw
    if one.info.unit == "count":
        grown = int(values[-1] - values[0]) if len(values) > 1 else 0
        text = f"{one.info.device} counted {grown} thermal throttlings during the trials"
        return [Flag(code=THERMAL, text=text, hint=_HINTS[THERMAL])] if grown > 0 else []
    given = [reasons(one.info.source, int(bits)) for bits in values]
    flags = []
    for code in (THERMAL, POWER, HARDWARE):
        share = sum(code in found for found in given) / len(given) if given else 0.0
        if share > _RARE:
            what = code.removeprefix("throttled_")
            text = f"the device was slowed down for {what} reasons in {share:.0%} of the reads"
            flags.append(Flag(code=code, text=text, hint=_HINTS[code]))
    return flags


def _errors(one: Watched) -> list[Flag]:
    grown = int(one.reads.raw[-1] - one.reads.raw[0]) if len(one.reads) > 1 else 0
    if grown <= 0:
        return []
    text = f"{grown} uncorrected memory errors during the trials"
    return [Flag(code="ecc_errors", text=text, hint="the device's memory is faulty: have it checked")]


def _clock(one: Watched) -> list[Flag]:
    """Compare the first third of the reads with the last, and all of them with the rated clock."""
    flags = _below_rated(one)
    if len(one.reads) < _FEWEST_READS or not one.info.key.endswith(("/sm_clock", "/clock", "/core_clock")):
        return flags
    third = len(one.reads) // 3
    first, last = (float(np.median(part)) for part in (one.reads.raw[:third], one.reads.raw[-third:]))
    change = last / first - 1 if first > 0 else 0.0
    if abs(change) <= _CLOCK_CHANGE:
        return flags
    before, after = (value * one.info.scale / 1e6 for value in (first, last))
    text = f"the clock went from {before:.0f} to {after:.0f} MHz while trials ran"
    hint = "see temperature and power over time in the report; measure for longer"
    return [*flags, Flag(code="clock_changed", text=text, hint=hint)]


def _below_rated(one: Watched) -> list[Flag]:
    """Judge a device that names no reasons for throttling by its rated clock."""
    nominal = one.info.nominal
    if one.info.kind != "clock" or nominal is None or len(one.reads) < _FEWEST_READS:
        return []
    share = float(np.mean(one.reads.raw < (1 - _CLOCK_CHANGE) * nominal))
    if share <= _BELOW_RATED:
        return []
    rated, seen = nominal * one.info.scale / 1e6, float(np.median(one.reads.raw)) * one.info.scale / 1e6
    text = (
        f"the clock was below the rated {rated:.0f} MHz in {share:.0%} of the reads (median: {seen:.0f} MHz)"
    )
    hint = "the device names no reason: see temperature and power, and the vendor's tool for its health"
    return [Flag(code="clock_below_rated", text=text, hint=hint)]


def _health(one: Watched) -> list[Flag]:
    if not len(one.reads) or (worst := int(one.reads.raw.max())) <= 0:
        return []
    text = f"the device's own health was '{health_name(worst)}' while the case ran"
    hint = (
        "see the vendor's tool for the cause (npu-smi info -t health); the figures are those of a sick device"
    )
    return [Flag(code="device_alarm", text=text, hint=hint)]


def _limit_changed(watched: Sequence[Watched]) -> list[Flag]:
    """Compare the limit over all starts: it can also be moved between two of them."""
    limits_w = {
        float(value) * one.info.scale
        for one in watched
        if one.info.kind == "power_limit"
        for value in np.unique(one.reads.raw)
    }
    if len(limits_w) < 2:
        return []
    text = f"the power limit was between {min(limits_w):.0f} and {max(limits_w):.0f} W"
    return [Flag(code="power_cap_changed", text=text, hint="fix the power limit and measure again")]


def _link(one: Watched) -> list[Flag]:
    nominal = one.info.nominal
    if nominal is None or not len(one.reads) or int(one.reads.raw.max()) >= nominal:
        return []
    text = f"the link has {int(one.reads.raw.max())} of {nominal} lanes while trials run"
    hint = "reseat the card, or use a slot with all lanes; loading and offloading suffer"
    return [Flag(code="link_degraded", text=text, hint=hint)]


_JUDGES: dict[str, Callable[[Watched], list[Flag]]] = {
    "throttle": _throttling,
    "ecc": _errors,
    "clock": _clock,
    "link": _link,
    "health": _health,
}
