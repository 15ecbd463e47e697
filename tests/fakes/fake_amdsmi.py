"""Stands in for AMD's package ``amdsmi``: noisy on import like the real one.

Tests copy it as ``amdsmi.py`` onto ``sys.path``. The accumulator is read from ``counter.txt`` beside it or,
where ``FAKE_AMDSMI_LIBRARY`` names one made from fake_amd_smi.c, from that library.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

print("noise from Python at import")
os.write(1, b"noise from C at import\n")


AIPROF_SIMULATED = True
_LIBRARY = os.environ.get("FAKE_AMDSMI_LIBRARY")
_library = ctypes.CDLL(_LIBRARY) if _LIBRARY else None


class AmdSmiLibraryException(Exception):  # noqa: N818  (the real name)
    pass


def amdsmi_init() -> None:
    os.write(1, b"noise at init\n")
    if _library is not None:
        _check(_library.amdsmi_init(ctypes.c_uint64(2)))


def _check(code: int) -> None:
    if code != 0:
        names = {2: "AMDSMI_STATUS_NOT_SUPPORTED", 10: "AMDSMI_STATUS_NO_PERM"}
        raise AmdSmiLibraryException(f"Error code: {code} | {names.get(code, 'AMDSMI_STATUS_UNKNOWN')}")


def amdsmi_get_processor_handles() -> list[str] | list[int]:
    if _library is None:
        return ["second", "first"]
    count = ctypes.c_uint32()
    _check(_library.amdsmi_get_socket_handles(ctypes.byref(count), None))
    return [0x5000 + number for number in range(count.value)]


def amdsmi_get_gpu_device_bdf(handle: str | int) -> str:
    if isinstance(handle, int):
        assert _library is not None
        bdf = ctypes.c_uint64()
        _check(_library.amdsmi_get_gpu_device_bdf(ctypes.c_void_p(handle), ctypes.byref(bdf)))
        domain, bus, rest = bdf.value >> 16, bdf.value >> 8 & 0xFF, bdf.value & 0xFF
        return f"{domain:04x}:{bus:02x}:{rest >> 3:02x}.{rest & 7}"
    return {"first": "0000:C1:00.0", "second": "0000:C6:00.0"}[handle]


class _PowerInfo(ctypes.Structure):
    _fields_ = (
        ("socket_power", ctypes.c_uint64),
        ("current_socket_power", ctypes.c_uint32),
        ("average_socket_power", ctypes.c_uint32),
        ("rest", ctypes.c_uint64 * 22),
    )


def amdsmi_get_power_info(handle: int) -> dict[str, object]:
    assert _library is not None
    info = _PowerInfo()
    _check(_library.amdsmi_get_power_info(ctypes.c_void_p(handle), ctypes.byref(info)))
    return {
        name: "N/A" if value == 0xFFFF else value
        for name in ("current_socket_power", "average_socket_power")
        for value in (getattr(info, name),)
    }


def amdsmi_get_energy_count(handle: str | int) -> dict[str, object]:
    if isinstance(handle, int):
        assert _library is not None
        accumulator, unit, stamp = ctypes.c_uint64(), ctypes.c_float(), ctypes.c_uint64()
        answers = (ctypes.byref(accumulator), ctypes.byref(unit), ctypes.byref(stamp))
        _check(_library.amdsmi_get_energy_count(ctypes.c_void_p(handle), *answers))
        return {
            "energy_accumulator": accumulator.value,
            "counter_resolution": unit.value,
            "timestamp": stamp.value,
        }
    text = (Path(__file__).parent / "counter.txt").read_text().strip()
    if text == "refuse":
        raise AmdSmiLibraryException("Error code: 2 | AMDSMI_STATUS_NOT_SUPPORTED")
    offset = 0 if handle == "first" else 1_000_000
    count: object = int(text) + offset if text.isdigit() else text
    return {"energy_accumulator": count, "counter_resolution": 15.3, "timestamp": 1}
