"""RAPL through ``perf_event_open``, for users who may use perf but not read powercap.

The PMU ``power`` counts in units that its ``events/*.scale`` files give (joules per count), in 64 bits that
do not wrap, on one CPU per package (``cpumask``). See ``man perf_event_open`` and
``arch/x86/events/rapl.c``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import struct

from profiler.backends.base import Unavailable
from profiler.backends.tree import Tree, parse_cpu_list
from profiler.sensors.base import Read, Scope, SensorInfo
from profiler.sensors.rapl import MAX_PACKAGE_POWER_W, note_on

_PMU = "/sys/bus/event_source/devices/power"
_SYSCALL = {"x86_64": 298}
_ATTRIBUTES_BYTES = 112  # PERF_ATTR_SIZE_VER5
_EVENTS: dict[str, Scope] = {"energy-pkg": "package", "energy-ram": "dram"}
_POLL_HZ = 100.0


class PerfPower:
    """Finds and opens the energy events of the PMU ``power``.

    Args:
        tree: where ``/sys`` is; counters are opened only for the real one.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def probe(self) -> list[SensorInfo]:
        """Return the sensors, one for each event and package; none where there is no such PMU."""
        sensors = []
        for event, scope in _EVENTS.items():
            scale = self._scale(event)
            if scale is None or self._config(event) is None:
                continue
            for cpu in parse_cpu_list(self._tree.text(f"{_PMU}/cpumask") or ""):
                package = self._tree.integer(f"/sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id")
                key = f"rapl:perf-{event}/cpu{cpu}"
                opened = self.open(key)
                sensors.append(
                    SensorInfo(
                        key=key,
                        source="rapl",
                        device=f"cpu-package-{cpu if package is None else package}",
                        kind="energy_counter",
                        scope=scope,
                        unit="J",
                        scale=scale,
                        poll_hz=_POLL_HZ,
                        max_power_w=MAX_PACKAGE_POWER_W,
                        unavailable=opened if isinstance(opened, Unavailable) else None,
                        note=note_on(self._tree),
                    )
                )
        return sensors

    def open(self, key: str) -> Read | Unavailable:
        """Open the counter of a key made by :meth:`probe`."""
        match = re.fullmatch(r"rapl:perf-([\w-]+)/cpu(\d+)", key)
        config = self._config(match[1]) if match else None
        kind = self._tree.integer(f"{_PMU}/type")
        if match is None or config is None or kind is None:
            return Unavailable("no_sensor", f"perf has no {key}")
        number = _SYSCALL.get(platform.machine())
        if number is None or str(self._tree.root) != "/":
            return Unavailable("not_read", "RAPL through perf is read on real x86-64 machines only")
        attributes = struct.pack("=IIQ", kind, _ATTRIBUTES_BYTES, config).ljust(_ATTRIBUTES_BYTES, b"\0")
        libc = ctypes.CDLL(None, use_errno=True)
        # pid -1 and a CPU: everything that runs there, which needs the right to look at all of it.
        descriptor = libc.syscall(number, attributes, -1, int(match[2]), -1, 0)
        if descriptor < 0:
            code = ctypes.get_errno()
            if code in (errno.EACCES, errno.EPERM):
                return Unavailable(
                    "permission",
                    "this user may not use perf for the whole machine",
                    "sudo sysctl kernel.perf_event_paranoid=0, or give CAP_PERFMON",
                )
            return Unavailable("unreadable", f"perf_event_open failed ({os.strerror(code)})")

        def read() -> int | Unavailable:
            try:
                return int.from_bytes(os.read(descriptor, 8), "little")
            except OSError as error:
                return Unavailable("unreadable", f"reading the perf counter failed ({error.strerror})")

        return read

    def _scale(self, event: str) -> float | None:
        text = self._tree.text(f"{_PMU}/events/{event}.scale")
        try:
            return float(text) if text else None
        except ValueError:
            return None

    def _config(self, event: str) -> int | None:
        match = re.fullmatch(r"event=(0x[0-9a-fA-F]+|\d+)", self._tree.text(f"{_PMU}/events/{event}") or "")
        return int(match[1], 0) if match else None
