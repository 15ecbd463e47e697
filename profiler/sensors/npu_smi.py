"""Ascend NPUs and what the program ``npu-smi`` shows of them, where its library cannot be used.

One call takes up to seconds, so power is for long windows only, and states are read every ten seconds.
"""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from profiler.backends.base import Unavailable
from profiler.sensors.base import Kind, Read, SensorInfo, Unit

_TIMEOUT_S = 10.0
_POLL_HZ, _STATE_HZ = 1.0, 0.1
_MAX_POWER_W = 1500.0
_NPU = re.compile(r"^\s*NPU ID\s*:\s*(\d{1,6})\b", re.MULTILINE)
_CHIPS = re.compile(r"^\s*Chip Count\s*:\s*(\d{1,6})\b", re.MULTILINE)
# Some cards print the power of the card too ("Power Dissipation"); it covers all their chips.
_CHIP_POWER = re.compile(r"^\s*NPU Real-time Power\(W\)\s*:\s*(\S+)", re.MULTILINE)
_MAPPED = re.compile(r"^\s*([0-9]{1,9})\s+([0-9]{1,9})\s+(\d+|-)\s+(\S.*?)\s*$", re.MULTILINE)
_CAPACITY = re.compile(r"^\s*(?:HBM|DDR|Memory) Capacity\(MB\)\s*:\s*([0-9]{1,9})", re.MULTILINE)
_USAGE = re.compile(r"^\s*(?:HBM|DDR|Memory) Usage Rate\(%\)\s*:\s*([0-9]{1,9})", re.MULTILINE)
_VERSION = re.compile(r"npu-smi version\s*:\s*(\S+)", re.IGNORECASE)
_CARD_POWER = re.compile(r"^\s*Power Dissipation\(W\)\s*:\s*(\S+)", re.MULTILINE)
_MOST_CHIPS = 64  # on one card; more is a misprint
_TEMPERATURE = re.compile(r"^\s*(?:NPU )?Temperature\s*\(C\)\s*:\s*(-?\d{1,4})\s*$", re.MULTILINE)
_HEALTH = re.compile(r"^\s*Health(?: Status)?\s*:\s*(\w+)", re.MULTILINE)
_HEALTHS = {"ok": 0, "warning": 1, "alarm": 2, "critical": 3}
# The count since the driver was loaded; newer cards also show one over their life.
_UNCORRECTED = re.compile(
    r"^\s*(?:HBM|DDR) Double[- ]Bit (?:Aggregate Total Err Cnt|Error Count)\s*:\s*(\d{1,10})", re.MULTILINE
)
# quantity -> (kind, unit, SI per raw count, resolution, reads per second)
_QUANTITIES: dict[str, tuple[Kind, Unit, float, int, float]] = {
    "power": ("power_instant", "W", 1e-3, 100, _POLL_HZ),
    "temperature": ("temperature", "degC", 1.0, 1, _STATE_HZ),
    "health": ("health", "count", 1.0, 1, _STATE_HZ),
    "ecc_uncorrected": ("ecc", "count", 1.0, 1, _STATE_HZ),
    "memory_used": ("memory", "bytes", 1.0, 1, _STATE_HZ),
}


@dataclass(frozen=True)
class NpuSmiChip:
    """A line of ``npu-smi info -m``.

    Attributes:
        card: "NPU ID".
        chip: "Chip ID".
        key: ``npu-smi-CARD-CHIP``.
        logic_id: "Chip Logic ID".
        name: "Chip Name".
    """

    card: int
    chip: int
    key: str
    logic_id: int
    name: str


class NpuSmi:
    """Asks ``npu-smi``.

    Args:
        program: its name or path.
    """

    def __init__(self, program: str = "npu-smi") -> None:
        self._program = program

    def owns(self, key: str) -> bool:
        """Whether the key is one of :meth:`probe`'s."""
        return key.startswith("dcmi:npu-smi-")

    def probe(self) -> list[SensorInfo]:
        """Return the sensors of each NPU, or nothing when the program is missing or lists none."""
        text = self._run("info", "-l")
        if isinstance(text, Unavailable):
            return []
        sensors = []
        numbers, counts = _NPU.findall(text), _CHIPS.findall(text)
        for at, number in enumerate(numbers):
            chips = min(int(counts[at]), _MOST_CHIPS) if at < len(counts) else 1
            for chip in range(chips):
                sensors += [self._describe(number, chip, quantity) for quantity in _QUANTITIES]
        return sensors

    def _describe(self, number: str, chip: int, quantity: str) -> SensorInfo:
        kind, unit, scale, resolution, poll_hz = _QUANTITIES[quantity]
        device = f"npu-smi-{number}-{chip}"
        first = self._read(number, chip, quantity)
        return SensorInfo(
            key=f"dcmi:{device}/{quantity}",
            source="dcmi",
            device=device,
            kind=kind,
            scope="chip",
            unit=unit,
            scale=scale,
            poll_hz=poll_hz,
            max_power_w=_MAX_POWER_W if unit == "W" else None,
            resolution=resolution,
            unavailable=first if isinstance(first, Unavailable) else None,
            note="from npu-smi, once per second" if unit == "W" else "",
        )

    def open(self, keys: Sequence[str]) -> dict[str, Read | Unavailable]:
        """Return the reader of each key."""
        readers: dict[str, Read | Unavailable] = {}
        for key in keys:
            match = re.fullmatch(r"dcmi:npu-smi-(\d+)-(\d+)/(\w+)", key)
            if match is None or match[3] not in _QUANTITIES:
                readers[key] = Unavailable("no_sensor", f"npu-smi has no {key}")
                continue
            readers[key] = partial(self._read, match[1], int(match[2]), match[3])
        return readers

    def _read(self, number: str, chip: int, quantity: str) -> int | Unavailable:
        """Return one quantity of a chip in the unit of :data:`_QUANTITIES`."""
        if quantity == "power":
            return self._power(number, chip)
        if quantity == "memory_used":
            memory = self._memory(number, chip)
            return memory if isinstance(memory, Unavailable) else memory[1]
        topic = {"temperature": "temp", "ecc_uncorrected": "ecc"}.get(quantity, quantity)
        text = self._run("info", "-t", topic, "-i", number, "-c", str(chip))
        if isinstance(text, Unavailable):
            return text
        if quantity == "ecc_uncorrected":
            counts = [int(count) for count in _UNCORRECTED.findall(text)]
            if counts:
                return max(counts)
        elif quantity == "temperature":
            found = _TEMPERATURE.search(text)
            if found is not None:
                return int(found[1])
        else:
            found = _HEALTH.search(text)
            if found is not None and found[1].lower() in _HEALTHS:
                return _HEALTHS[found[1].lower()]
        return Unavailable("not_supported_by_device", f"npu-smi shows no {topic} for this NPU")

    def chips(self) -> list[NpuSmiChip] | Unavailable:
        """Return every NPU; management units, which have no logical id, are left out."""
        text = self._run("info", "-m")
        if isinstance(text, Unavailable):
            return text
        rows = [match.groups() for match in _MAPPED.finditer(text)]
        chips = [
            NpuSmiChip(int(card), int(chip), f"npu-smi-{int(card)}-{int(chip)}", int(logic), name)
            for card, chip, logic, name in rows
            if logic != "-"
        ]
        return chips or Unavailable("no_device", "npu-smi lists no NPU", "see dmesg")

    def memory(self, chip: NpuSmiChip) -> tuple[int, int] | Unavailable:
        """Return (total, used) bytes of a chip; used is known in steps of 1% only."""
        return self._memory(str(chip.card), chip.chip)

    def _memory(self, number: str, chip: int) -> tuple[int, int] | Unavailable:
        text = self._run("info", "-t", "usages", "-i", number, "-c", str(chip))
        if isinstance(text, Unavailable):
            return text
        capacity, usage = _CAPACITY.search(text), _USAGE.search(text)
        if capacity is None or usage is None or not int(capacity[1]) or int(usage[1]) > 100:
            return Unavailable("unreadable", "npu-smi shows no memory of this NPU")
        total = int(capacity[1]) << 20
        return total, total * int(usage[1]) // 100

    def version(self) -> str | Unavailable:
        """Return the version of the program, which is that of the driver."""
        text = self._run("-v")
        if isinstance(text, Unavailable):
            return text
        found = _VERSION.search(text)
        return found[1] if found else Unavailable("unreadable", "npu-smi does not say its version")

    def _power(self, number: str, chip: int) -> int | Unavailable:
        """Return the power of a chip in milliwatts."""
        text = self._run("info", "-t", "power", "-i", number, "-c", str(chip))
        if isinstance(text, Unavailable):
            return text
        found = _CHIP_POWER.search(text)
        if found is None and chip == 0:
            found = _CARD_POWER.search(text)
        if found is None or found[1] in ("-", "NA", "N/A"):
            if chip > 0:
                return Unavailable("partition_secondary", "the card's power is shown on its first chip")
            return Unavailable("not_supported_by_device", "npu-smi shows no power for this NPU")
        try:
            watts = float(found[1])
        except ValueError:
            watts = math.nan
        if not math.isfinite(watts):
            return Unavailable("unreadable", f"npu-smi shows '{found[1][:20]}' for the power")
        if watts <= 0:
            return Unavailable("implausible", "npu-smi shows 0 W, as it does with an alarm")
        return round(watts * 1000)

    def _run(self, *arguments: str) -> str | Unavailable:
        try:
            done = subprocess.run(
                [self._program, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Unavailable("timeout", f"npu-smi did not answer within {_TIMEOUT_S:.0f} s")
        except OSError as error:
            return Unavailable("no_library", f"npu-smi cannot be run ({error.strerror or error})")
        if done.returncode != 0:
            lines = (done.stdout + done.stderr).decode("utf-8", "replace").strip().splitlines()
            return Unavailable("unreadable", f"npu-smi failed: {lines[0][:120] if lines else 'no message'}")
        return done.stdout.decode("utf-8", "replace")
