"""A measured ceiling beside what the maker's documents promise."""

from __future__ import annotations

from dataclasses import dataclass

from profiler.hardware.catalogue import find_hardware
from profiler.hardware.part import Hardware, Sourced
from profiler.results.schema import Ceiling


@dataclass(frozen=True)
class Datasheet:
    """The documented value for one ceiling.

    Attributes:
        value: in the ceiling's unit.
        source: where it stands.
        share: measured over documented, or None where nothing was measured.
        note: how the two relate, or an empty string.
    """

    value: float
    source: str
    share: float | None
    note: str = ""


def datasheet(ceiling: Ceiling, device_name: str) -> Datasheet | str:
    """Return the documented value for a ceiling, or why there is none.

    Args:
        ceiling: the ceiling.
        device_name: the device as its driver calls it.
    """
    part = find_hardware(device_name)
    if part is None:
        return f"the catalogue of hardware has no '{device_name}'"
    kind, _, detail = ceiling.name.partition(":")
    if kind in ("read_bandwidth", "copy_bandwidth"):
        return _beside(ceiling, part.memory_bandwidth_bytes_per_s, part.why_unknown("memory_bandwidth"))
    if kind in ("matrix_flops", "matrix_flops_sustained"):
        return _beside(ceiling, part.flops.get(detail), part.why_no_flops(detail))
    reach = "host" if kind in ("host_to_device", "device_to_host") else "scale-up"
    return _link(ceiling, part, reach)


def _beside(ceiling: Ceiling, documented: Sourced | None, reason: str) -> Datasheet | str:
    if documented is None:
        return reason
    measured = ceiling.measurement.value
    share = None if measured is None else measured / documented.value
    return Datasheet(documented.value, documented.source, share, documented.note)


def _link(ceiling: Ceiling, part: Hardware, reach: str) -> Datasheet | str:
    fitting = [link for link in part.links if link.reach == reach]
    if not fitting:
        return part.why_unknown("links")
    link = max(fitting, key=lambda one: one.one_direction_bytes_per_s)
    measured, promised = ceiling.measurement.value, link.one_direction_bytes_per_s
    share = None if measured is None else measured / promised
    note = f"{link.name}, one direction"
    return Datasheet(promised, link.both_directions_bytes_per_s.source, share, note)
