"""The source ``amdsmi``: energy through AMD's package, everything else through the files of amdgpu.

Files and units: ``Documentation/gpu/amdgpu`` of Linux (hwmon in microwatts, millidegrees and hertz, memory in
bytes). The energy counter is a socket's: partitions of one GPU show it again, and some show nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from profiler.backends.amdgpu import Card, find_cards, memory_bytes, sensor_file
from profiler.backends.base import Json, Unavailable
from profiler.backends.identity import trusted_uuid
from profiler.backends.tree import Tree
from profiler.sensors.amd_states import link_lanes, processes, throttle_status, uncorrected_errors
from profiler.sensors.amdsmi import JOULES_PER_COUNT, AmdSmi
from profiler.sensors.base import NO_POWER, Kind, Read, SensorInfo, Unit, missing, never_zero
from profiler.sensors.files import file_reader

_COUNTER_HZ, _POWER_HZ, _SLOW_HZ, _NEVER_HZ = 100.0, 50.0, 2.0, 0.0
# quantity -> (kind, unit, scale, hwmon files that show it; most chips have one of several)
_FILES: dict[str, tuple[Kind, Unit, float, tuple[str, ...]]] = {
    "power_average": ("power_average", "W", 1e-6, ("power1_average",)),
    "power_instant": ("power_instant", "W", 1e-6, ("power1_input",)),
    "sm_clock": ("clock", "Hz", 1.0, ("freq1_input",)),
    "temperature": ("temperature", "degC", 1e-3, ("temp2_input", "temp1_input")),
    "power_limit": ("power_limit", "W", 1e-6, ("power1_cap",)),
}
_POWERS = ("power_average", "power_instant")
# quantity -> (kind, unit, how it is read, how often); the list of processes is asked where a phase ends.
_STATES: dict[str, tuple[Kind, Unit, Callable[[Tree, Card], int | Unavailable], float]] = {
    "throttle_reasons": ("throttle", "bits", throttle_status, _SLOW_HZ),
    "ecc_uncorrected": ("ecc", "count", uncorrected_errors, _SLOW_HZ),
    "processes": ("processes", "count", processes, _NEVER_HZ),
}
_NOT_AVAILABLE = ("N/A", 0xFFFF, 0xFFFFFFFF)


class AmdSensors:
    """Finds and reads the sensors of AMD GPUs.

    Args:
        root: where ``/sys`` is; sensors of any other root than ``/`` are simulated.
    """

    name = "amdsmi"

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self._tree = Tree(Path(root))
        self._amdsmi = AmdSmi()

    def options(self) -> Mapping[str, Json]:
        """Return the root."""
        return {"root": self._root}

    def probe(self) -> list[SensorInfo]:
        """Return the sensors of each GPU; of a partitioned one those of the first partition count."""
        cards = find_cards(self._tree)
        if not cards:
            why = Unavailable("no_device", "no AMD GPU found (no vendor 0x1002 in /sys/class/drm)")
            return [missing("amdsmi", why, scope="socket")]
        sensors: list[SensorInfo] = []
        first_of: dict[str, str] = {}
        for card in cards:
            device = self._key(card, cards)
            socket = card.pci_address.rpartition(".")[0]
            primary = first_of.setdefault(socket, device)
            if primary == device:
                sensors += self._of_card(card, device)
            else:
                sensors.append(self._secondary(device, primary))
        return sensors

    def open(self, keys: Sequence[str]) -> dict[str, Read | Unavailable]:
        """Return the reader of each key."""
        cards = find_cards(self._tree)
        by_device = {self._key(card, cards): card for card in cards}
        readers: dict[str, Read | Unavailable] = {}
        for key in keys:
            device, _, quantity = key.removeprefix("amdsmi:").rpartition("/")
            card = by_device.get(device)
            if card is None:
                readers[key] = Unavailable("lost", f"the GPU {device} is not there")
            else:
                readers[key] = self._reader(card, quantity)
        return readers

    def _key(self, card: Card, cards: Sequence[Card]) -> str:
        return trusted_uuid(card.uuid, [other.uuid for other in cards])[0] or card.pci_address

    def _of_card(self, card: Card, device: str) -> list[SensorInfo]:
        limit_file = sensor_file(self._tree, card, "power1_cap")
        limit_uw = self._tree.integer(limit_file) if limit_file else None
        describe = partial(self._describe, card, device, None if limit_uw is None else limit_uw * 1e-6)
        energy = describe("energy", "energy_counter", "J", JOULES_PER_COUNT, _COUNTER_HZ)
        power_hz = _SLOW_HZ if energy.unavailable is None else _POWER_HZ
        sensors = [energy]
        for quantity, (kind, unit, scale, _) in _FILES.items():
            hz = power_hz if quantity in _POWERS else _SLOW_HZ
            sensors.append(describe(quantity, kind, unit, scale, hz))
        if all(info.unavailable is not None for info in sensors if info.kind in _POWERS):
            sensors.append(describe("socket_power", "power_instant", "W", 1.0, power_hz))
        lanes = describe("pcie_lanes", "link", "count", 1.0, _SLOW_HZ)
        return [
            *sensors,
            describe("memory_used", "memory", "bytes", 1.0, _SLOW_HZ),
            *(describe(name, kind, unit, 1.0, hz) for name, (kind, unit, _, hz) in _STATES.items()),
            replace(lanes, nominal=link_lanes(self._tree, card, "max")),
        ]

    def _describe(
        self,
        card: Card,
        device: str,
        limit_w: float | None,
        quantity: str,
        kind: Kind,
        unit: Unit,
        scale: float,
        poll_hz: float,
    ) -> SensorInfo:
        read = self._reader(card, quantity)
        first = read() if callable(read) else read
        if unit == "W" and first == NO_POWER:
            text = "this die shows 0 W: the other die of the GPU shows the power of both"
            first = Unavailable("partition_secondary", text)
        return SensorInfo(
            key=f"amdsmi:{device}/{quantity}",
            source="amdsmi",
            device=device,
            kind=kind,
            scope="socket",
            unit=unit,
            scale=scale,
            poll_hz=poll_hz,
            max_power_w=limit_w,
            unavailable=first if isinstance(first, Unavailable) else None,
            simulated=self._root != "/" or self._amdsmi.simulated,
            note="over how long the firmware averages is not documented" if kind == "power_average" else "",
        )

    def _secondary(self, device: str, primary: str) -> SensorInfo:
        return SensorInfo(
            key=f"amdsmi:{device}/energy",
            source="amdsmi",
            device=device,
            kind="energy_counter",
            scope="socket",
            unit="J",
            shares_with=(f"amdsmi:{primary}/energy",),
            unavailable=Unavailable(
                "partition_secondary", f"this partition shows the energy of the whole GPU, as {primary} does"
            ),
            simulated=self._root != "/" or self._amdsmi.simulated,
        )

    def _reader(self, card: Card, quantity: str) -> Read | Unavailable:
        if quantity == "energy":
            return partial(self._amdsmi.energy_count, card.pci_address)
        if quantity == "socket_power":
            ask = partial(self._amdsmi.ask, "amdsmi_get_power_info", card.pci_address)
            return never_zero(partial(_socket_power, ask))
        if quantity == "memory_used":
            return partial(_used, self._tree, card)
        if quantity == "pcie_lanes":
            return partial(_lanes, self._tree, card)
        if quantity in _STATES:
            return partial(_STATES[quantity][2], self._tree, card)
        names = _FILES[quantity][3]
        found = sensor_file(self._tree, card, *names)
        if found is None:
            text = f"this GPU's hwmon has no {' or '.join(names)}"
            return Unavailable("not_supported_by_device", text)
        read = file_reader(self._tree.path(found), found.rpartition("/")[2])
        return never_zero(read) if quantity in _POWERS else read


def _socket_power(ask: Callable[[], Any]) -> int | Unavailable:
    """Return whichever of the two powers this chip has (MI300X: current, MI210: average), in watts."""
    answer = ask()
    if isinstance(answer, Unavailable):
        return answer
    for name in ("current_socket_power", "average_socket_power"):
        value = answer.get(name)
        if isinstance(value, int) and value not in _NOT_AVAILABLE:
            return value
    return Unavailable("not_supported_by_device", "amdsmi has neither current nor average power of this GPU")


def _used(tree: Tree, card: Card) -> int | Unavailable:
    memory = memory_bytes(tree, card)
    if memory is None:
        return Unavailable("unreadable", f"memory: {tree.why(f'{card.path}/mem_info_vram_total')}")
    return memory[1]


def _lanes(tree: Tree, card: Card) -> int | Unavailable:
    lanes = link_lanes(tree, card, "current")
    return (
        Unavailable("unreadable", "the kernel does not show the GPU's PCIe link") if lanes is None else lanes
    )
