"""What PyTorch can run on here, and how much memory is left there.

Covers CUDA and ROCm (``torch.cuda``), XPU, MPS and whatever registers itself with PyTorch under its
own name as ``torch_npu`` does. Nothing here raises for a missing or broken device runtime.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from typing import Any

import torch

from . import host_memory
from .protocol import EngineError

# Packages that add a device to torch when they are imported.
_EXTENSIONS = ("torch_npu",)
_ACCELERATORS = ("cuda", "npu", "xpu", "mps")


def list_devices() -> tuple[list[dict[str, Any]], list[str]]:
    """Return (devices as in the answer to ``hello``, one line for each runtime that failed)."""
    devices = [{"device": "cpu", "name": _cpu_name(), "uuid": None, "pci_address": None}]
    failures = []
    for extension in _EXTENSIONS:
        if importlib.util.find_spec(extension) is not None:
            try:
                importlib.import_module(extension)
            except Exception as error:  # an extension of another version may fail in any way
                failures.append(f"{extension} cannot be imported: {error}")
    for kind in _ACCELERATORS:
        try:
            devices += _accelerators(kind)
        except Exception as error:  # a driver that does not answer must not hide the other devices
            failures.append(f"torch.{kind} cannot be asked for its devices: {error}")
    return devices, failures


def require(name: str) -> Any:
    """Return ``torch.device(name)`` after touching it.

    Raises:
        EngineError: ``device``, when PyTorch does not have it here.
    """
    try:
        device = torch.device(name)
        if device.type in _ACCELERATORS and device.index is None:
            device = torch.device(device.type, 0)
        torch.empty(1, device=device)
    except Exception as error:  # AssertionError, RuntimeError, NotImplementedError: differs by build
        known = ", ".join(entry["device"] for entry in list_devices()[0])
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise EngineError("device", f"PyTorch has no device {name!r}, only {known}: {reason}") from error
    return device


def synchronize(device: Any) -> None:
    """Wait until everything queued on ``device`` has been done."""
    if device.type == "cpu":
        return
    runtime = getattr(torch, device.type)
    if device.type == "mps":
        runtime.synchronize()
    else:
        runtime.synchronize(device)


def memory_bytes(device: Any) -> tuple[int | None, int | None, str]:
    """Return (total, free, source of the numbers) of the memory that models on ``device`` can use."""
    if device.type == "cpu":
        free, source = host_memory.available_bytes()
        return host_memory.status_bytes("MemTotal", "/proc/meminfo"), free, source
    ask = getattr(getattr(torch, device.type), "mem_get_info", None)
    if ask is None:
        return None, None, f"torch.{device.type} does not say"
    free, total = ask(device)
    return total, free, f"torch.{device.type}.mem_get_info"


def engine_peak_bytes(device: Any) -> tuple[int | None, str | None]:
    """Return (peak that PyTorch reserved on ``device`` since :func:`reset_peak`, why it is None)."""
    if device.type == "cpu":
        return None, "PyTorch's CPU allocator keeps no peak"
    ask = getattr(getattr(torch, device.type), "max_memory_reserved", None)
    if ask is None:
        return None, f"torch.{device.type} keeps no peak"
    return ask(device), None


def reset_peak(device: Any) -> None:
    """Start the peaks again: PyTorch's on ``device`` and this process's own."""
    host_memory.reset_peak()
    reset = getattr(getattr(torch, device.type), "reset_peak_memory_stats", None)
    if reset is not None:
        reset(device)


def release_cached(device: Any) -> None:
    """Give memory that PyTorch keeps for later back to ``device``."""
    release = getattr(getattr(torch, device.type), "empty_cache", None)
    if release is not None:
        release()


def _accelerators(kind: str) -> list[dict[str, Any]]:
    runtime = getattr(torch, kind, None)
    if runtime is None:
        return []
    if kind == "mps":
        present = torch.backends.mps.is_available()
        return [{"device": "mps", "name": "Apple GPU", "uuid": None, "pci_address": None}] if present else []
    if not runtime.is_available():
        return []
    return [_describe(kind, index, runtime) for index in range(runtime.device_count())]


def _describe(kind: str, index: int, runtime: Any) -> dict[str, Any]:
    properties = runtime.get_device_properties(index)
    uuid = getattr(properties, "uuid", None)
    return {
        "device": f"{kind}:{index}",
        "name": runtime.get_device_name(index),
        "uuid": _uuid(str(uuid)) if uuid is not None and kind == "cuda" else None,
        "pci_address": _pci_address(properties),
    }


def _uuid(text: str) -> str | None:
    """Return a UUID as the vendor's tools spell it.

    On ROCm the sixteen bytes are the characters of the chip's number, which PyTorch shows as if they were
    bytes of a UUID: ``61316232-…`` is ``GPU-a1b2…``.
    """
    if torch.version.hip is None:
        return f"GPU-{text.lower()}"
    try:
        number = bytes.fromhex(text.replace("-", "")).decode("ascii")
    except ValueError:
        return None
    return f"GPU-{number.lower()}" if re.fullmatch("[0-9a-fA-F]{16}", number) else None


def _pci_address(properties: Any) -> str | None:
    """Return ``0000:17:00.0`` from the properties where this build of torch tells them."""
    if not all(hasattr(properties, f"pci_{part}_id") for part in ("domain", "bus", "device")):
        return None
    domain, bus, device = properties.pci_domain_id, properties.pci_bus_id, properties.pci_device_id
    return f"{domain:04x}:{bus:02x}:{device:02x}.0"


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            match = re.search(r"^(?:model name|Model|cpu model)\s*:\s*(.+)$", file.read(), re.MULTILINE)
    except OSError:
        match = None
    return match.group(1).strip() if match else "CPU"
