"""Devices that do not exist, for trying aiprof out and for testing it; never chosen by default."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from profiler.backends.base import (
    BackendReport,
    Capability,
    CapabilityName,
    Device,
    DeviceMemory,
    Unavailable,
)
from profiler.worker.fake_devices import DEVICES
from profiler.worker.fake_engine import DEFAULTS

_NO_SENSOR = Unavailable("simulated", "a simulated device has no sensors", "measure a real device")


class FakeBackend:
    """The backend ``fake``: simulated devices, whose results are marked so everywhere."""

    name = "fake"
    verified = "simulated: there is no hardware"

    def report(self) -> BackendReport:
        """Return the simulated devices."""
        devices = tuple(
            Device(
                key=key,
                backend=self.name,
                ordinal=ordinal,
                name=profile["name"],
                memory_total_bytes=int(profile.get("memory_bytes", DEFAULTS["memory_bytes"])),
                simulated=True,
            )
            for ordinal, (key, profile) in enumerate(DEVICES.items())
        )
        return BackendReport(self.name, devices, None, self.verified)

    def more(self, device: Device, count: int) -> tuple[Device, ...]:
        """Return as many more devices of a kind as are wanted, for cases that take several."""
        numbers = range(1, count + 1)
        return tuple(replace(device, key=f"{device.key}.{number}", ordinal=number) for number in numbers)

    def memory(self, device: Device) -> DeviceMemory | Unavailable:
        """Return that there is nothing to read; the engine alone knows what it pretends to use."""
        return _NO_SENSOR

    def capabilities(self, device: Device) -> tuple[Capability, ...]:
        """Return nothing: there is no sensor."""
        return tuple(Capability(name, None, _NO_SENSOR) for name in get_args(CapabilityName))
