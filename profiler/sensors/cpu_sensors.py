"""The source ``cpu``: temperature, clock and thermal throttling of each CPU package, from ``/sys``.

Files: ``hwmon`` of coretemp and k10temp (millidegrees), ``cpufreq/scaling_cur_freq`` (kHz), and
``thermal_throttle/package_throttle_count``, which only Intel's driver keeps
(``Documentation/ABI/testing/sysfs-devices-system-cpu`` of Linux). Virtual machines have none of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from profiler.backends.base import Json, Unavailable
from profiler.backends.tree import Tree
from profiler.sensors.base import Kind, Read, SensorInfo, Unit
from profiler.sensors.files import file_reader

_CPUS = "/sys/devices/system/cpu"
_POLL_HZ = 2.0
_DRIVERS = ("coretemp", "k10temp", "zenpower")
# quantity -> (kind, unit, SI per raw count, why a machine has none)
_QUANTITIES: dict[str, tuple[Kind, Unit, float, str]] = {
    "temperature": ("temperature", "degC", 1e-3, "there is no CPU temperature sensor in /sys/class/hwmon"),
    "clock": ("clock", "Hz", 1e3, "there is no cpufreq driver; a virtual machine does not see clocks"),
    "throttle_count": (
        "throttle", "count", 1.0, "the kernel counts thermal throttling on Intel CPUs outside VMs only",
    ),
}  # fmt: skip


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
        kind, unit, scale, _ = _QUANTITIES[quantity]
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
        )

    def _packages(self) -> dict[int, str]:
        """Return the first CPU's folder of each package; one package 0 where the kernel does not say."""
        found: dict[int, str] = {}
        for path in self._tree.glob(f"{_CPUS}/cpu[0-9]*"):
            package = self._tree.integer(f"{path}/topology/physical_package_id")
            found.setdefault(0 if package is None or package < 0 else package, path)
        return found or {0: f"{_CPUS}/cpu0"}

    def _reader(self, package: int, cpu: str, quantity: str) -> Read | Unavailable:
        paths = {
            "temperature": self._temperature(package),
            "clock": f"{cpu}/cpufreq/scaling_cur_freq",
            "throttle_count": f"{cpu}/thermal_throttle/package_throttle_count",
        }
        path = paths[quantity]
        if path is None or not self._tree.exists(path):
            return Unavailable("no_sensor", _QUANTITIES[quantity][3])
        return file_reader(self._tree.path(path), f"the {quantity} of CPU package {package}")

    def _temperature(self, package: int) -> str | None:
        """Return the file of a package: its own instance of the driver, in order of the packages."""
        found = [
            path
            for path in self._tree.glob("/sys/class/hwmon/hwmon*")
            if self._tree.text(f"{path}/name") in _DRIVERS
        ]
        position = sorted(self._packages()).index(package)
        return f"{found[position]}/temp1_input" if position < len(found) else None
