"""The source ``rapl``: energy counters of CPU packages, DRAM and platform, one sensor per counter.

Which zones count (``Documentation/power/powercap/powercap.rst`` and drivers/powercap of Linux): top-level
zones named ``package-N`` or ``package-N-die-M``. ``psys`` is one too, but covers the packages again;
``intel-rapl-mmio`` repeats the package; first-generation AMD EPYC shows one socket counter once per die.
Units and wraps: ``Documentation/power/powercap/powercap.rst``; the kernel scales every zone to microjoules,
also DRAM zones whose hardware unit differs (``drivers/powercap/intel_rapl_common.c``).
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from profiler.backends.base import Json, Unavailable
from profiler.backends.tree import Tree
from profiler.sensors.base import Read, Scope, SensorInfo, missing
from profiler.sensors.files import file_reader
from profiler.sensors.perf import PerfPower
from profiler.sensors.rapl import MAX_PACKAGE_POWER_W, POWERCAP, note_on, why_no_package

_ZONE = re.compile(r"intel-rapl(?:-mmio)?:\d+(?::\d+)?")
_PACKAGE = re.compile(r"package-\d+(?:-die-\d+)?")
_POLL_HZ = 100.0
_PERMISSION = f"sudo chmod a+r {POWERCAP}/intel-rapl:*/energy_uj (until the next boot), or run as root"
# Counters of one socket are shown once per die on some CPUs: equal values at the same moment, twice.
_MIRROR_UJ = 1_000_000
_MIRROR_PAUSE_S = 0.02
# All sockets and everything else in the chassis.
_MAX_PLATFORM_POWER_W = 10_000.0


class RaplSensors:
    """Finds and reads the counters below ``/sys/class/powercap``, or through perf where those are closed.

    Args:
        root: where ``/sys`` and ``/proc`` are; sensors of any other root than ``/`` are simulated.
    """

    name = "rapl"

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self._tree = Tree(Path(root))
        self._perf = PerfPower(self._tree)

    def options(self) -> Mapping[str, Json]:
        """Return the root."""
        return {"root": self._root}

    def probe(self) -> list[SensorInfo]:
        """Return the packages, the DRAM of each, and the platform; each counted once."""
        listed = self._zones()
        found: dict[str, SensorInfo] = {}
        for path in listed:
            info = self._describe(path)
            if info is None:
                continue
            first = found.get(info.key)
            if first is not None:
                twin = Unavailable("mirrored_of", f"{Path(path).name} repeats {first.key}")
                info = replace(info, key=f"{info.key}@{Path(path).name}", unavailable=twin)
                info = replace(info, shares_with=(first.key,))
            found[info.key] = info
        sensors = self._without_mirrors(list(found.values()))
        if not any(info.scope == "package" for info in sensors):
            why = why_no_package(self._tree, listed)
            sensors.append(replace(missing("rapl", why, device="cpu", scope="package"),
                                   simulated=self._root != "/"))  # fmt: skip
        sensors = [self._overlapping(info, sensors) for info in sensors]
        if any(info.unavailable is None and info.scope == "package" for info in sensors):
            return sensors
        return sensors + self._perf.probe()

    def open(self, keys: Sequence[str]) -> dict[str, Read | Unavailable]:
        """Return a reader of each zone's ``energy_uj``."""
        readers: dict[str, Read | Unavailable] = {}
        for key in keys:
            if key.startswith("rapl:perf"):
                readers[key] = self._perf.open(key)
                continue
            path = self._path(key)
            if path is None:
                readers[key] = Unavailable("lost", f"{key} is not there any more")
            else:
                readers[key] = self._reader(path, key)
        return readers

    def _reader(self, path: str, key: str) -> Read:
        return file_reader(self._tree.path(f"{path}/energy_uj"), f"the counter {key}", remedy=_PERMISSION)

    def _path(self, key: str) -> str | None:
        return next((path for path in self._zones() if self._key(path) == key), None)

    def _zones(self) -> list[str]:
        """Paths of all zones, the plain ones first: those of mmio repeat them."""
        listed = [path for path in self._tree.glob(f"{POWERCAP}/*") if _ZONE.fullmatch(Path(path).name)]
        return sorted(listed, key=lambda path: "-mmio" in path)

    def _key(self, path: str) -> str:
        """``rapl:package-0/energy`` or ``rapl:package-0/dram``: a sub-zone belongs to its parent."""
        name = self._tree.text(f"{path}/name") or ""
        zone = Path(path).name
        if zone.count(":") == 1:
            return f"rapl:{name}/energy"
        parent = self._tree.text(f"{POWERCAP}/{zone.rpartition(':')[0]}/name") or "unknown"
        return f"rapl:{parent}/{name}"

    def _describe(self, path: str) -> SensorInfo | None:
        name = self._tree.text(f"{path}/name") or ""
        top = Path(path).name.count(":") == 1
        scope: Scope
        if top and _PACKAGE.fullmatch(name):
            scope, limit_w = "package", MAX_PACKAGE_POWER_W
        elif top and name == "psys":
            scope, limit_w = "platform", _MAX_PLATFORM_POWER_W
        elif name == "dram":
            scope, limit_w = "dram", MAX_PACKAGE_POWER_W
        else:
            return None  # core and uncore are parts of the package
        key = self._key(path)
        first = self._reader(path, key)()
        return SensorInfo(
            key=key,
            source="rapl",
            device=f"cpu-{key.removeprefix('rapl:').partition('/')[0]}",
            kind="energy_counter",
            scope=scope,
            unit="J",
            scale=1e-6,
            poll_hz=_POLL_HZ,
            wraps_at=self._tree.integer(f"{path}/max_energy_range_uj"),
            max_power_w=limit_w,
            unavailable=first if isinstance(first, Unavailable) else None,
            simulated=self._root != "/",
            note=note_on(self._tree),
        )

    def _without_mirrors(self, sensors: list[SensorInfo]) -> list[SensorInfo]:
        """Take out dies that show the counter of another die of the same socket.

        Two independent counters that are close once can be so by chance; being close twice, after both
        moved, is a mirror.
        """
        dies = [info for info in sensors if "-die-" in info.key and info.unavailable is None]
        if len(dies) < 2:
            return sensors
        first = self._values(dies)
        time.sleep(_MIRROR_PAUSE_S)
        second = self._values(dies)
        kept: list[SensorInfo] = []
        mirrors: dict[str, str] = {}
        for info in dies:
            socket = info.key.partition("-die-")[0]
            for other in kept:
                if other.key.startswith(f"{socket}-die-") and all(
                    abs(values[info.key] - values[other.key]) < _MIRROR_UJ for values in (first, second)
                ):
                    mirrors[info.key] = other.key
                    break
            else:
                kept.append(info)
        return [
            replace(
                info,
                shares_with=(mirrors[info.key],),
                unavailable=Unavailable("mirrored_of", f"this die shows the counter of {mirrors[info.key]}"),
            )
            if info.key in mirrors
            else info
            for info in sensors
        ]

    def _values(self, sensors: Sequence[SensorInfo]) -> dict[str, float]:
        opened = self.open([info.key for info in sensors])
        values = {key: read() for key, read in opened.items() if not isinstance(read, Unavailable)}
        return {
            key: float("nan") if isinstance(value, Unavailable) else value for key, value in values.items()
        }

    def _overlapping(self, info: SensorInfo, sensors: Sequence[SensorInfo]) -> SensorInfo:
        if info.scope == "platform":
            return replace(info, overlaps=tuple(other.key for other in sensors if other.scope != "platform"))
        return replace(info, overlaps=tuple(other.key for other in sensors if other.scope == "platform"))
