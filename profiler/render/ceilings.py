"""What a box can do, and how fast models could be on it, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from profiler.ceilings.datasheet import Datasheet, datasheet
from profiler.ceilings.sustained import Sustained
from profiler.ceilings.upper_bound import UpperBound
from profiler.models.formats import Formats
from profiler.render.charts_roofline import ceiling_label
from profiler.render.units import UNKNOWN, format_bytes, format_rate, format_seconds
from profiler.results.schema import Ceiling

_UNITS = {"bytes/s": "B", "FLOP/s": "FLOP"}


@dataclass(frozen=True)
class ShownDevice:
    """A device with everything known about what it can do.

    Attributes:
        key: of the device.
        name: as its driver calls it.
        memory_bytes: that models can use, or None.
        simulated: whether no hardware stands behind it.
        ceilings: its ceilings.
        sustained: its sustained load, or None.
    """

    key: str
    name: str
    memory_bytes: int | None
    simulated: bool
    ceilings: tuple[Ceiling, ...]
    sustained: Sustained | None = None


@dataclass(frozen=True)
class ShownBound:
    """The upper bounds of one model on one device, or why there are none."""

    device: ShownDevice
    model: str
    formats: Formats
    bounds: list[UpperBound] | str


def ceilings_document(
    source: str, devices: Sequence[ShownDevice], bounds: Sequence[ShownBound], failures: Sequence[str]
) -> dict[str, Any]:
    """Return everything as JSON values in base units.

    Args:
        source: where the ceilings come from, in words.
        devices: the devices.
        bounds: of the models asked for.
        failures: one line per device that could not be measured.
    """
    return {
        "source": source,
        "devices": [_device_document(device) for device in devices],
        "bounds": [_bound_document(shown, bound) for shown in bounds for bound in _bounds(shown)],
        "no_bounds": [
            {"device_key": shown.device.key, "model": shown.model, "reason": shown.bounds}
            for shown in bounds
            if isinstance(shown.bounds, str)
        ],
        "failures": list(failures),
    }


def _device_document(device: ShownDevice) -> dict[str, Any]:
    entries = []
    for ceiling in device.ceilings:
        beside = datasheet(ceiling, device.name)
        known = isinstance(beside, Datasheet)
        entries.append(
            ceiling.model_dump(mode="json")
            | {
                "datasheet": asdict(beside) if isinstance(beside, Datasheet) else None,
                "datasheet_reason": None if known else beside,
            }
        )
    held = device.sustained
    return {
        "key": device.key,
        "name": device.name,
        "memory_bytes": device.memory_bytes,
        "simulated": device.simulated,
        "ceilings": entries,
        "sustained": None
        if held is None
        else {
            "name": held.ceiling.name,
            "flops_per_s": list(held.rates),
            "clocks": [asdict(clock) for clock in held.clocks],
            "no_clock": held.no_clock,
        },
    }


def _bounds(shown: ShownBound) -> list[UpperBound]:
    return shown.bounds if isinstance(shown.bounds, list) else []


def _bound_document(shown: ShownBound, bound: UpperBound) -> dict[str, Any]:
    point = bound.point
    phases = {"prefill": bound.prefill, "decode": bound.decode}
    return {
        "device_key": shown.device.key,
        "model": shown.model,
        "formats": asdict(shown.formats),
        "scenario": point.scenario.name,
        "prompt_tokens": point.prompt_tokens,
        "output_tokens": point.output_tokens,
        "batch": point.batch,
        "prefill_attainable_tokens_per_s": bound.prefill_tokens_per_s,
        "decode_attainable_tokens_per_s": bound.decode_tokens_per_s,
        "prefill_least_s": bound.prefill.seconds,
        "binding_ceilings": {name: phase.ceiling for name, phase in phases.items() if phase is not None},
        "needed_bytes": bound.needed_bytes,
        "fits": _fits(shown.device, bound),
        "expected": bound.expected,
    }


def _fits(device: ShownDevice, bound: UpperBound) -> bool | None:
    return None if device.memory_bytes is None else bound.needed_bytes <= device.memory_bytes


def print_ceilings(
    source: str, devices: Sequence[ShownDevice], bounds: Sequence[ShownBound], console: Console
) -> None:
    """Print the ceilings of each device, then the upper bounds of each model."""
    if any(device.simulated for device in devices):
        console.print(Text("SIMULATED: no hardware stands behind these numbers", style="bold yellow"))
    for device in devices:
        console.print(Text.assemble((device.name, "bold"), (f"  {source}", "dim")))
        console.print(_ceiling_table(device))
        for line in _remarks(device):
            console.print(Text(f"  {line}", style="dim"))
    for shown in bounds:
        formats = shown.formats
        title = f"Upper bounds: {shown.model} · {formats.weight_format} · {shown.device.name}"
        console.print(Text(title, style="bold"))
        if isinstance(shown.bounds, str):
            console.print(Text(f"  none: {shown.bounds}", style="yellow"))
            continue
        console.print(_bound_table(shown))
        if any(bound.expected for bound in shown.bounds):
            console.print(Text("  Bytes rest on the expected number of distinct experts.", style="dim"))
    if bounds:
        text = "An engine that beats its bound skips work, or the device is faster than it was when measured."
        console.print(Text(text, style="dim"))


def _ceiling_table(device: ShownDevice) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("ceiling", no_wrap=True)
    for heading in ("measured", "at most", "datasheet", "reached"):
        table.add_column(heading, justify="right", no_wrap=True)
    for ceiling in device.ceilings:
        measurement = ceiling.measurement
        if measurement.value is None:
            continue
        unit = _UNITS.get(measurement.unit, measurement.unit)
        beside = datasheet(ceiling, device.name)
        documented, reached = UNKNOWN, UNKNOWN
        if isinstance(beside, Datasheet):
            documented = format_rate(beside.value, unit)
            reached = UNKNOWN if beside.share is None else f"{beside.share:.0%}"
        high = format_rate(measurement.ci95[1], unit) if measurement.ci95 else UNKNOWN
        table.add_row(
            ceiling_label(ceiling.name), format_rate(measurement.value, unit), high, documented, reached
        )
    return table


def _remarks(device: ShownDevice) -> list[str]:
    """Return what was not measured and why, where there is no datasheet, and the clocks."""
    lines: dict[str, list[str]] = {}
    for ceiling in device.ceilings:
        if ceiling.measurement.value is None:
            lines.setdefault(f"not measured: {ceiling.measurement.reason}", []).append(ceiling.name)
            continue
        beside = datasheet(ceiling, device.name)
        reason = f"no datasheet value: {beside}" if isinstance(beside, str) else beside.note
        if reason:
            lines.setdefault(reason, []).append(ceiling.name)
    every = len([one for one in device.ceilings if one.measurement.value is not None])
    remarks = [
        reason if len(names) == every else f"{', '.join(map(ceiling_label, names))}: {reason}"
        for reason, names in lines.items()
    ]
    held = device.sustained
    if held is not None:
        remarks += [
            f"{clock.sensor}: {clock.first_hz / 1e6:.0f} MHz at first, {clock.last_hz / 1e6:.0f} MHz at last"
            for clock in held.clocks
        ]
        remarks += [f"clocks: {held.no_clock}"] if held.no_clock else []
    return remarks


def _bound_table(shown: ShownBound) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("workload", no_wrap=True)
    for heading in ("tokens", "batch", "prefill tok/s", "TTFT"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("bound by", no_wrap=True)
    table.add_column("decode tok/s", justify="right", no_wrap=True)
    table.add_column("bound by", no_wrap=True)
    table.add_column("memory", justify="right", no_wrap=True)
    for bound in _bounds(shown):
        point, decode = bound.point, bound.decode
        short = _fits(shown.device, bound) is False
        table.add_row(
            point.scenario.name,
            f"{point.prompt_tokens:,} + {point.output_tokens:,}",
            f"{point.batch:,}",
            _plain_rate(bound.prefill_tokens_per_s),
            format_seconds(bound.prefill.seconds),
            ceiling_label(bound.prefill.ceiling),
            _plain_rate(bound.decode_tokens_per_s),
            "" if decode is None else ceiling_label(decode.ceiling),
            Text(format_bytes(bound.needed_bytes) + (" does not fit" if short else ""), style="red" * short),
        )
    return table


def _plain_rate(value: float | None) -> str:
    """The unit stands in the heading."""
    return format_rate(value, "tokens").removesuffix(" tokens/s")
