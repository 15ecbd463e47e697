"""The source ``cpu``: temperature, clock and thermal throttling of each CPU package, from ``/sys``.

Files: ``hwmon`` of coretemp and k10temp (millidegrees), ``cpufreq/scaling_cur_freq`` (kHz), and
``thermal_throttle/package_throttle_count``, which only Intel's driver keeps
(``Documentation/ABI/testing/sysfs-devices-system-cpu`` of Linux). Virtual machines have none of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from profiler.backends.base import Json, Unavailable
from profiler.backends.cpu_state import read_virtualisation, why_no_clocks
from profiler.backends.tree import Tree
from profiler.sensors.base import Kind, Read, SensorInfo, Unit
from profiler.sensors.files import file_reader

_CPUS = "/sys/devices/system/cpu"
_POLL_HZ = 2.0
_DRIVERS = ("coretemp", "k10temp", "zenpower")
# quantity -> (kind, unit, SI per raw count)
_QUANTITIES: dict[str, tuple[Kind, Unit, float]] = {
    "temperature": ("temperature", "degC", 1e-3),
    "clock": ("clock", "Hz", 1e3),
    "throttle_count": ("throttle", "count", 1.0),
}


class CpuSensors:
    """Finds and reads the state of CPU packages. The clock is that of each package's first CPU.

    Args:
        root: where ``/sys`` is; sensors of any other root than ``/`` are simulated.
    """

    name = "cpu"

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self._tree = Tree(Path(root))

    def options(self) -> Mapping[str, Json]:
        """Return the root."""
        return {"root": self._root}

    def probe(self) -> list[SensorInfo]:
        """Return three sensors per package; what the machine does not have carries the reason."""
        return [self._describe(package, quantity) for package in self._packages() for quantity in _QUANTITIES]

    def open(self, keys: Sequence[str]) -> dict[str, Read | Unavailable]:
        """Return the reader of each key."""
        packages = self._packages()
        readers: dict[str, Read | Unavailable] = {}
        for key in keys:
            device, _, quantity = key.removeprefix("cpu:").rpartition("/")
            number = device.removeprefix("cpu-package-")
            package = int(number) if number.isdecimal() else -1
            if package in packages and quantity in _QUANTITIES:
                readers[key] = self._reader(package, packages[package], quantity)
            else:
                readers[key] = Unavailable("lost", f"{key} is not there any more")
        return readers

    def _describe(self, package: int, quantity: str) -> SensorInfo:
        kind, unit, scale = _QUANTITIES[quantity]
        driver = self._thermometer(package) if quantity == "temperature" else None
        read = self._reader(package, self._packages()[package], quantity)
        first = read if isinstance(read, Unavailable) else read()
        return SensorInfo(
            key=f"cpu:cpu-package-{package}/{quantity}",
            source="cpu",
            device=f"cpu-package-{package}",
            kind=kind,
            scope="package",
            unit=unit,
            scale=scale,
            poll_hz=_POLL_HZ,
            unavailable=first if isinstance(first, Unavailable) else None,
            simulated=self._root != "/",
            note=(driver and self._tree.text(f"{driver}/name")) or "",
        )

    def _packages(self) -> dict[int, str]:
        """Return the first CPU's folder of each package; one package 0 where the kernel does not say."""
        found: dict[int, str] = {}
        for path in self._tree.glob(f"{_CPUS}/cpu[0-9]*"):
            package = self._tree.integer(f"{path}/topology/physical_package_id")
            found.setdefault(0 if package is None or package < 0 else package, path)
        return found or {0: f"{_CPUS}/cpu0"}

    def _reader(self, package: int, cpu: str, quantity: str) -> Read | Unavailable:
        driver = self._thermometer(package)
        paths = {
            "temperature": driver and f"{driver}/temp1_input",
            "clock": f"{cpu}/cpufreq/scaling_cur_freq",
            "throttle_count": f"{cpu}/thermal_throttle/package_throttle_count",
        }
        path = paths[quantity]
        if path is None or not self._tree.exists(path):
            return self._why_none(quantity)
        return file_reader(self._tree.path(path), f"the {quantity} of CPU package {package}")

    def _why_none(self, quantity: str) -> Unavailable:
        """Return why this machine does not show a quantity."""
        if quantity == "clock":
            return Unavailable("no_sensor", why_no_clocks(self._tree))
        if quantity == "throttle_count":
            text = "the kernel counts thermal throttling on Intel CPUs outside VMs only"
            return Unavailable("no_sensor", text)
        virtual = read_virtualisation(self._tree).virtual
        remedy = "" if virtual else "sudo modprobe coretemp (Intel) or k10temp (AMD)"
        return Unavailable("no_sensor", "there is no CPU temperature sensor in /sys/class/hwmon", remedy)

    def _thermometer(self, package: int) -> str | None:
        """Return the folder of a package: its own instance of the driver, in order of the packages."""
        found = [
            path
            for path in self._tree.glob("/sys/class/hwmon/hwmon*")
            if self._tree.text(f"{path}/name") in _DRIVERS
        ]
        position = sorted(self._packages()).index(package)
        return found[position] if position < len(found) else None
