"""An accelerator as its documents describe it. What no document says is None, with a reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Confidence = Literal["high", "medium", "low", "measured"]
Kind = Literal["gpu", "npu", "tpu", "cpu"]
Reach = Literal["scale-up", "host"]


@dataclass(frozen=True)
class Source:
    """Where a number stands.

    Attributes:
        name: document, repository or run.
        url: where to read it, or None.
        licence: under which its numbers are used here; ``facts only`` where the source has none.
        date: of the source where it has one, else when it was read (ISO 8601, possibly only a year).
    """

    name: str
    url: str | None
    licence: str
    date: str


@dataclass(frozen=True)
class Sourced:
    """One number with everything needed to judge it.

    Attributes:
        value: in ``unit``.
        unit: base unit: ``bytes``, ``bytes/s``, ``FLOP/s``, ``W``.
        origin: where it stands.
        confidence: ``high`` (vendor's own, or several that agree), ``medium``, ``low``, or ``measured``.
        note: what contradicts or limits it, or an empty string.
    """

    value: float
    unit: str
    origin: Source
    confidence: Confidence
    note: str = ""

    @property
    def source(self) -> str:
        """URL, or the document's name where it has none."""
        return self.origin.url or self.origin.name

    @property
    def date(self) -> str:
        """Date of the source."""
        return self.origin.date


@dataclass(frozen=True)
class Link:
    """How devices reach each other.

    Attributes:
        name: ``NVLink``, ``PCIe``, ``HCCS``, …
        reach: ``scale-up`` among the devices of a box, ``host`` through the CPU.
        both_directions_bytes_per_s: of one device, both directions together, as vendors quote it.
    """

    name: str
    reach: Reach
    both_directions_bytes_per_s: Sourced

    @property
    def one_direction_bytes_per_s(self) -> float:
        """What one device can send while it receives as much."""
        return self.both_directions_bytes_per_s.value / 2


@dataclass(frozen=True)
class Hardware:
    """One accelerator, or one CPU socket.

    Attributes:
        name: as given to ``--hardware``, in lower case.
        title: full name.
        vendor: who makes it.
        kind: ``gpu``, ``npu``, ``tpu`` or ``cpu``.
        aliases: other names for ``--hardware``.
        driver_names: what the vendor's driver calls it.
        memory_bytes: what a program can use, None: unknown.
        memory_bandwidth_bytes_per_s: peak of the device memory, None: unknown.
        flops: peak of dense matrix products by compute dtype (``bf16``, ``fp16``, ``fp8``, ``int8``,
            ``fp4``), FLOP/s (integer operations for ``int8``). :meth:`why_no_flops` for the others.
        lacks: compute dtypes that the part has no units for, with the reason.
        tdp_w: thermal design power, None: unknown.
        links: how it reaches other devices; empty: unknown.
        unknown: reason for each field that is None or empty.
        export: export status where a source says it, or an empty string.
        datasheet: a datasheet's URL, or None.
        notes: what a user should know.
        shipped: whether it comes from our catalogue (False: from a user's file).
        measured: fields that a run of ours replaced.
    """

    name: str
    title: str
    vendor: str
    kind: Kind
    aliases: tuple[str, ...]
    driver_names: tuple[str, ...]
    memory_bytes: Sourced | None
    memory_bandwidth_bytes_per_s: Sourced | None
    flops: Mapping[str, Sourced]
    lacks: Mapping[str, str]
    tdp_w: Sourced | None
    links: tuple[Link, ...]
    unknown: Mapping[str, str]
    export: str = ""
    datasheet: str | None = None
    notes: str = ""
    shipped: bool = True
    measured: Mapping[str, Sourced] = field(default_factory=dict)

    def why_unknown(self, name: str) -> str:
        """Reason why ``memory``, ``memory_bandwidth``, ``flops``, ``tdp`` or ``links`` is not known."""
        return self.unknown.get(name, "no source gives it")

    def why_no_flops(self, dtype: str) -> str:
        """Reason why :attr:`flops` has no such dtype: the part lacks it, or nobody published it."""
        return self.lacks.get(dtype) or self.why_unknown("flops")

    @property
    def scale_up_link(self) -> Link | None:
        """The fastest link to other devices of the box, whatever it goes through."""
        return max(self.links, key=lambda link: link.one_direction_bytes_per_s, default=None)
