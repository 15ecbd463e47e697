"""All sensors of this box, from every source, and which of them a sweep reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from profiler import registry
from profiler.backends.base import Device, Json, Unavailable
from profiler.sensors.base import SensorInfo, missing

ROOT_VARIABLE = "AIPROF_SYSFS_ROOT"
"""Names a tree with ``/sys`` and ``/proc`` of another machine for the sensors that are files."""

ROOTED = ("rapl", "amdsmi", "cpu")
"""Sources that read files of the kernel; the others have no root to move."""


@dataclass(frozen=True)
class BoxSensors:
    """What every source found.

    Attributes:
        infos: the sensors, and for each source without any the reason.
        options: constructor arguments of each source, for opening it in another process.
    """

    infos: tuple[SensorInfo, ...]
    options: Mapping[str, Mapping[str, Json]]

    @property
    def simulated(self) -> bool:
        """Whether a sensor that can be read does not belong to this machine."""
        return any(info.simulated and info.unavailable is None for info in self.infos)

    def of(self, devices: Sequence[Device]) -> list[SensorInfo]:
        """Return the sensors of ``devices`` and those of no device (CPU packages, memory, the wall)."""
        names = {name for device in devices for name in names_of(device)}
        return [info for info in self.infos if info.device in names or is_box_wide(info)]


def sensor_root() -> str:
    """Return where ``/sys`` and ``/proc`` of sensors that are files lie: :data:`ROOT_VARIABLE`, or ``/``."""
    return os.environ.get(ROOT_VARIABLE) or "/"


def find_sensors(root: str | None = None) -> BoxSensors:
    """Ask every registered source; one that raises is reported, the others still answer.

    Args:
        root: where ``/sys`` and ``/proc`` are; by default :data:`ROOT_VARIABLE`, else ``/``. The sensors of
            any other root than ``/`` are simulated.
    """
    root = root or sensor_root()
    infos: list[SensorInfo] = []
    options: dict[str, Mapping[str, Json]] = {}
    for name in registry.names("sensors"):
        try:
            source = registry.load("sensors", name, **({"root": root} if name in ROOTED else {}))
            found = list(source.probe())
            options[name] = source.options()
        except Exception as error:  # a source of another package may fail in any way
            text = f"the sensors of '{name}' failed: {type(error).__name__}: {error}"
            reason = Unavailable("sensor_failed", text, "report it to its authors")
            found = [missing(name, reason, scope="platform")]
        infos += found
    return BoxSensors(tuple(_unique(infos)), options)


def names_of(device: Device) -> frozenset[str]:
    """Return every name under which a source may know a device: key, UUID, PCI address."""
    return frozenset(filter(None, (device.key, device.uuid, device.pci_address)))


def is_made_up(device: Device) -> bool:
    """Whether a device exists in the fake engine only; one behind a simulated library can have sensors."""
    return device.backend == "fake"


def is_box_wide(info: SensorInfo) -> bool:
    """Whether a sensor belongs to the box rather than to one accelerator."""
    return info.source in ("rapl", "cpu", "redfish", "command") or info.scope in (
        "package", "dram", "platform", "wall",
    )  # fmt: skip


def _unique(infos: Iterable[SensorInfo]) -> Iterable[SensorInfo]:
    """Refuse a second sensor of the same key: its reads could not be told from the first one's."""
    seen: set[str] = set()
    for info in infos:
        if info.key in seen:
            twin = Unavailable("mirrored_of", f"{info.source} found {info.key} twice")
            info = replace(info, key=f"{info.key}#{len(seen)}", unavailable=twin)
        seen.add(info.key)
        yield info
