"""The source ``dcmi``: power and state of Ascend NPUs through Huawei's DCMI library.

There is no energy counter; energy is the integral of power, which DCMI gives in units of 0.1 W. DCMI does not
say why a clock is low: that it is below its rated value while work runs is all that shows throttling.
Where the library cannot be loaded, ``npu-smi`` is asked.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from profiler.backends.base import Json, Unavailable
from profiler.sensors.base import NO_POWER, Kind, Read, SensorInfo, Unit, missing, never_zero
from profiler.sensors.dcmi import AiCore, Chip, Dcmi, Hbm
from profiler.sensors.npu_smi import NpuSmi

_POWER_HZ, _SLOW_HZ, _NEVER_HZ = 50.0, 2.0, 0.0
# Above every Ascend card's rating (910C, two dies: below 1 kW).
_MAX_POWER_W = 1500.0
# quantity -> (kind, unit, SI per raw count)
_QUANTITIES: dict[str, tuple[Kind, Unit, float]] = {
    "power": ("power_instant", "W", 0.1),
    "temperature": ("temperature", "degC", 1.0),
    "core_clock": ("clock", "Hz", 1e6),
    "memory_used": ("memory", "bytes", float(1 << 20)),
    "health": ("health", "count", 1.0),
    "ecc_uncorrected": ("ecc", "count", 1.0),
    "processes": ("processes", "count", 1.0),
    "throttle_reasons": ("throttle", "bits", 1.0),
    "power_limit": ("power_limit", "W", 0.1),
}
_NOT_SHOWN = {
    "throttle_reasons": Unavailable(
        "not_supported_by_device",
        "DCMI names no reason for a low clock; a clock below its rated value during trials is flagged",
    ),
    "power_limit": Unavailable("not_supported_by_device", "neither DCMI nor npu-smi shows a power limit"),
}
# Read where a phase of work ends: a list that the driver has to put together.
_AT_BOUNDARIES = ("processes",)


class DcmiSensors:
    """Finds and reads the sensors of Ascend NPUs.

    Args:
        library: path of ``libdcmi.so``; by default where Huawei's installers put it.
        npu_smi: name or path of the program to fall back on.
    """

    name = "dcmi"

    def __init__(self, library: str | None = None, npu_smi: str = "npu-smi") -> None:
        self._dcmi = Dcmi(library)
        self._npu_smi_name = npu_smi
        self._npu_smi = NpuSmi(npu_smi)

    def options(self) -> Mapping[str, Json]:
        """Return where library and program are."""
        return {"library": self._dcmi.library, "npu_smi": self._npu_smi_name}

    def probe(self) -> list[SensorInfo]:
        """Return the sensors of all NPUs through DCMI, else through ``npu-smi``, else why there are none."""
        chips = self._dcmi.chips()
        if isinstance(chips, Unavailable):
            other = self._npu_smi.probe()
            return other or [missing("dcmi", chips, scope="chip")]
        return [self._describe(chip, quantity) for chip in chips for quantity in _QUANTITIES]

    def open(self, keys: Sequence[str]) -> dict[str, Read | Unavailable]:
        """Return the reader of each key."""
        own = [key for key in keys if not self._npu_smi.owns(key)]
        readers: dict[str, Read | Unavailable] = dict(
            self._npu_smi.open([key for key in keys if self._npu_smi.owns(key)])
        )
        if not own:
            return readers
        chips = self._dcmi.chips()
        for key in own:
            if isinstance(chips, Unavailable):
                readers[key] = chips
                continue
            device, _, quantity = key.removeprefix("dcmi:").rpartition("/")
            chip = next((chip for chip in chips if chip.key == device), None)
            gone = Unavailable("lost", f"the NPU {device} is not there")
            readers[key] = gone if chip is None else self._reader(chip, quantity)
        return readers

    def _describe(self, chip: Chip, quantity: str) -> SensorInfo:
        kind, unit, scale = _QUANTITIES[quantity]
        is_power = kind == "power_instant"
        first = self._reader(chip, quantity)()
        if is_power and first == NO_POWER:
            first = Unavailable(
                "implausible", "the NPU shows 0 W, as it does with an alarm", "npu-smi info -t health"
            )
        return SensorInfo(
            key=f"dcmi:{chip.key}/{quantity}",
            source="dcmi",
            device=chip.key,
            kind=kind,
            scope="chip",
            unit=unit,
            scale=scale,
            poll_hz=_NEVER_HZ if quantity in _AT_BOUNDARIES else _POWER_HZ if is_power else _SLOW_HZ,
            max_power_w=_MAX_POWER_W if is_power else None,
            nominal=self._rated_clock(chip) if quantity == "core_clock" else None,
            unavailable=first if isinstance(first, Unavailable) else None,
            simulated=self._dcmi.simulated,
            note="sampled by the firmware with gaps; may read low" if is_power else "",
        )

    def _rated_clock(self, chip: Chip) -> int | None:
        info = self._dcmi.fill("dcmi_get_device_aicore_info", chip.card, chip.chip, AiCore)
        return None if isinstance(info, Unavailable) or not info.freq else int(info.freq)

    def _reader(self, chip: Chip, quantity: str) -> Read:
        reader = partial(self._dcmi.reader, card=chip.card, chip=chip.chip)
        if quantity == "memory_used":
            return reader("dcmi_get_device_hbm_info", kind=Hbm, value=lambda info: info.memory_usage)
        if quantity in _NOT_SHOWN:
            return lambda: _NOT_SHOWN[quantity]
        whole: dict[str, Callable[[int, int], int | Unavailable]] = {
            "health": self._dcmi.health,
            "ecc_uncorrected": self._dcmi.uncorrected_errors,
            "processes": self._dcmi.processes,
        }
        if quantity in whole:
            return partial(whole[quantity], chip.card, chip.chip)
        if quantity == "core_clock":
            return reader("dcmi_get_device_aicore_info", kind=AiCore, value=lambda info: info.cur_freq)
        if quantity == "power":
            read = reader("dcmi_get_device_power_info", kind=ctypes.c_int, value=lambda number: number.value)
            return never_zero(read)
        return reader("dcmi_get_device_temperature", kind=ctypes.c_int, value=lambda number: number.value)
