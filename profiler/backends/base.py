"""What a backend is: the adapter for one family of devices.

A backend discovers devices, describes them and reads their memory; what else can be read of them while work
runs is the business of :mod:`profiler.sensors`.
Nothing here raises for a missing driver or a denied file: absence is an answer
(:class:`Unavailable`), with a code for programs, a sentence for people and a remedy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
CapabilityName = Literal["memory", "energy", "power", "clocks", "temperature", "throttling"]


@dataclass(frozen=True)
class Unavailable:
    """Why something cannot be had, and what to do about it.

    Attributes:
        code: one of the codes in ``docs/metrics.md`` (``no_library``, ``permission``, …).
        text: one sentence for a person.
        remedy: what the user can do, or an empty string when nothing helps.
    """

    code: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.remedy})" if self.remedy else self.text


@dataclass(frozen=True)
class Device:
    """One accelerator, or the CPU, as a backend found it.

    Attributes:
        key: vendor UUID, PCI address, or ``cpu-`` + 12 hex digits; never an index.
        backend: name of the backend that found it.
        ordinal: position in the backend's own order, for ``--device cuda:1`` and for display only.
        name: marketing name as the driver says it.
        memory_total_bytes: memory that models can use, or None when it could not be read.
        uuid: as the driver spells it, or None.
        pci_address: ``0000:17:00.0`` or None.
        simulated: True when no real hardware stands behind it.
        details: everything else worth keeping in the record, JSON values only.
    """

    key: str
    backend: str
    ordinal: int
    name: str
    memory_total_bytes: int | None
    uuid: str | None = None
    pci_address: str | None = None
    simulated: bool = False
    details: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class BackendReport:
    """What a backend says about this box.

    Attributes:
        backend: its name.
        devices: devices found, possibly none.
        unavailable: why there are none, or None when there are some.
        verified: ``"verified on <device>, <date>"`` or ``"never run on real hardware"``.
        facts: driver and runtime versions and the like, JSON values only.
    """

    backend: str
    devices: tuple[Device, ...]
    unavailable: Unavailable | None
    verified: str
    facts: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class DeviceMemory:
    """Memory of a device at one moment, in bytes."""

    total_bytes: int
    free_bytes: int
    source: str


@dataclass(frozen=True)
class Capability:
    """Something that a buyer wants measured on a device, and whether it can be here."""

    name: CapabilityName
    source: str | None
    unavailable: Unavailable | None


class Backend(Protocol):
    """Adapter for one family of devices. No method raises for missing hardware or rights."""

    name: str

    def report(self) -> BackendReport:
        """Discover the devices of this family, without importing torch."""
        ...

    def memory(self, device: Device) -> DeviceMemory | Unavailable:
        """Read the memory of one device now."""
        ...

    def capabilities(self, device: Device) -> tuple[Capability, ...]:
        """What can and cannot be measured on the device, and why; one entry per name."""
        ...
