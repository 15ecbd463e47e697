"""The source ``dcmi``: power, temperature and memory of Ascend NPUs through Huawei's DCMI library.

There is no energy counter; energy is the integral of power, which DCMI gives in units of 0.1 W.
Signatures as in Huawei's ``dcmi_interface_api.h``. Where the library cannot be loaded, ``npu-smi`` is asked.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from profiler.backends.base import Json, Unavailable
from profiler.sensors.base import Kind, Read, SensorInfo, Unit, missing
from profiler.sensors.npu_smi import NpuSmi

LIBRARIES = (
    "/usr/local/dcmi/libdcmi.so",
    "/usr/local/Ascend/driver/lib64/driver/libdcmi.so",
    "libdcmi.so",
)
_MAX_CARDS = 64
_POWER_HZ, _SLOW_HZ = 50.0, 2.0
# Above every Ascend card's rating (910C, two dies: below 1 kW).
_MAX_POWER_W = 1500.0
_ERRORS: dict[int, tuple[str, str]] = {
    -8001: ("unknown", "DCMI says: invalid parameter"),
    -8002: ("permission", "DCMI may not be used by this user"),
    -8005: ("driver_not_loaded", "DCMI could not be initialised"),
    -8006: ("unreadable", "DCMI's function failed"),
    -8007: ("no_device", "DCMI finds no such device"),
    -8012: ("reset_required", "the NPU is resetting"),
    -8255: ("not_supported_by_device", "this NPU does not offer it"),
}
# quantity -> (kind, unit, SI per raw count)
_QUANTITIES: dict[str, tuple[Kind, Unit, float]] = {
    "power": ("power_instant", "W", 0.1),
    "temperature": ("temperature", "degC", 1.0),
    "memory_used": ("memory", "bytes", float(1 << 20)),
}


class _Pcie(ctypes.Structure):
    """``struct dcmi_pcie_info_all``."""

    _fields_ = (
        ("vendor", ctypes.c_uint),
        ("subvendor", ctypes.c_uint),
        ("device_number", ctypes.c_uint),
        ("subdevice", ctypes.c_uint),
        ("domain", ctypes.c_int),
        ("bus", ctypes.c_uint),
        ("device", ctypes.c_uint),
        ("function", ctypes.c_uint),
        ("reserve", ctypes.c_ubyte * 32),
    )


class _Hbm(ctypes.Structure):
    """``struct dcmi_hbm_info``; sizes in MiB."""

    _fields_ = (
        ("memory_size", ctypes.c_ulonglong),
        ("freq", ctypes.c_uint),
        ("memory_usage", ctypes.c_ulonglong),
        ("temp", ctypes.c_int),
        ("bandwidth_rate", ctypes.c_uint),
    )


class DcmiSensors:
    """Finds and reads the sensors of Ascend NPUs.

    Args:
        library: path of ``libdcmi.so``; by default where Huawei's installers put it.
        npu_smi: name or path of the program to fall back on.
    """

    name = "dcmi"

    def __init__(self, library: str | None = None, npu_smi: str = "npu-smi") -> None:
        self._library = library
        self._npu_smi_name = npu_smi
        self._npu_smi = NpuSmi(npu_smi)
        self._dcmi: Any = None

    def options(self) -> Mapping[str, Json]:
        """Return where library and program are."""
        return {"library": self._library, "npu_smi": self._npu_smi_name}

    def probe(self) -> list[SensorInfo]:
        """Return the sensors of all NPUs through DCMI, else through ``npu-smi``, else why there are none."""
        failure = self._open()
        chips = self._chips() if failure is None else failure
        if isinstance(chips, Unavailable):
            other = self._npu_smi.probe()
            return other or [missing("dcmi", chips, scope="chip")]
        return [
            self._describe(card, chip, device, quantity)
            for (card, chip), device in chips.items()
            for quantity in _QUANTITIES
        ]

    def open(self, keys: Sequence[str]) -> dict[str, Read | Unavailable]:
        """Return the reader of each key."""
        own = [key for key in keys if not self._npu_smi.owns(key)]
        readers: dict[str, Read | Unavailable] = dict(
            self._npu_smi.open([key for key in keys if self._npu_smi.owns(key)])
        )
        if not own:
            return readers
        failure = self._open()
        chips = self._chips() if failure is None else failure
        for key in own:
            if isinstance(chips, Unavailable):
                readers[key] = chips
                continue
            device, _, quantity = key.removeprefix("dcmi:").rpartition("/")
            place = next((place for place, name in chips.items() if name == device), None)
            gone = Unavailable("lost", f"the NPU {device} is not there")
            readers[key] = gone if place is None else self._reader(*place, quantity)
        return readers

    def _open(self) -> Unavailable | None:
        if self._dcmi is not None:
            return None
        for path in (self._library,) if self._library else LIBRARIES:
            try:
                library = ctypes.CDLL(path)
            except OSError:
                continue
            if not hasattr(library, "dcmi_init"):
                text = f"{path} has no dcmi_init; only newer functions (dcmiv2) are there"
                return Unavailable("library_mismatch", text, "report it with the version of the driver")
            code = library.dcmi_init()
            if code != 0:
                return _refusal(code)
            self._dcmi = library
            return None
        return Unavailable(
            "no_library",
            "no DCMI library found (libdcmi.so)",
            "install the Ascend driver; in a container mount /usr/local/dcmi and /usr/local/Ascend/driver",
        )

    def _chips(self) -> dict[tuple[int, int], str] | Unavailable:
        """Return (card, chip) -> key of every NPU: its PCI address, else card and chip number."""
        count, cards = ctypes.c_int(), (ctypes.c_int * _MAX_CARDS)()
        code = self._dcmi.dcmi_get_card_list(ctypes.byref(count), cards, _MAX_CARDS)
        if code != 0:
            return _refusal(code)
        chips: dict[tuple[int, int], str] = {}
        for card in cards[: count.value]:
            number = ctypes.c_int()
            if self._dcmi.dcmi_get_device_num_in_card(card, ctypes.byref(number)) != 0:
                continue
            for chip in range(number.value):
                address = self._pci_address(card, chip)
                taken = address is None or address in chips.values()
                chips[card, chip] = f"npu-{card}-{chip}" if taken or address is None else address
        if not chips:
            return Unavailable("no_device", "DCMI lists no NPU", "npu-smi info must list it")
        return chips

    def _pci_address(self, card: int, chip: int) -> str | None:
        info = _Pcie()
        if not hasattr(self._dcmi, "dcmi_get_device_pcie_info_v2"):
            return None
        if self._dcmi.dcmi_get_device_pcie_info_v2(card, chip, ctypes.byref(info)) != 0:
            return None
        if not (info.domain or info.bus or info.device):
            return None
        return f"{info.domain:04x}:{info.bus:02x}:{info.device:02x}.{info.function:x}"

    def _describe(self, card: int, chip: int, device: str, quantity: str) -> SensorInfo:
        kind, unit, scale = _QUANTITIES[quantity]
        first = self._reader(card, chip, quantity)()
        if unit == "W" and first == 0:
            first = Unavailable(
                "implausible", "the NPU shows 0 W, as it does with an alarm", "npu-smi info -t health"
            )
        return SensorInfo(
            key=f"dcmi:{device}/{quantity}",
            source="dcmi",
            device=device,
            kind=kind,
            scope="chip",
            unit=unit,
            scale=scale,
            poll_hz=_POWER_HZ if unit == "W" else _SLOW_HZ,
            max_power_w=_MAX_POWER_W if unit == "W" else None,
            unavailable=first if isinstance(first, Unavailable) else None,
            simulated=hasattr(self._dcmi, "aiprof_simulated"),
            note="sampled by the firmware with gaps; may read low" if unit == "W" else "",
        )

    def _reader(self, card: int, chip: int, quantity: str) -> Read:
        if quantity == "memory_used":
            return self._call("dcmi_get_device_hbm_info", card, chip, _Hbm, lambda info: info.memory_usage)
        call = f"dcmi_get_device_{'power_info' if quantity == 'power' else 'temperature'}"
        return self._call(call, card, chip, ctypes.c_int, lambda number: number.value)

    def _call(self, name: str, card: int, chip: int, kind: type[Any], value: Callable[[Any], int]) -> Read:
        """Return a reader that lets the function ``name`` fill in one ``kind``."""
        function = getattr(self._dcmi, name, None)
        if function is None:
            return lambda: Unavailable("library_mismatch", f"the installed driver has no {name}")

        def read() -> int | Unavailable:
            answer = kind()
            code = function(card, chip, ctypes.byref(answer))
            return _refusal(code) if code != 0 else int(value(answer))

        return read


def _refusal(number: int) -> Unavailable:
    code, text = _ERRORS.get(number, ("unknown", "DCMI failed"))
    return Unavailable(code, f"{text} ({number})")
