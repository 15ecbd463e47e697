"""CPU package energy from the RAPL counters that Linux shows under ``/sys/class/powercap``.

Which zones count (``Documentation/power/powercap/powercap.rst`` and drivers/powercap of Linux):
only top-level zones whose ``name`` is ``package-N`` or ``package-N-die-M``. ``psys`` is a top-level
zone too, but covers the packages again; ``intel-rapl-mmio`` repeats the package; first-generation
AMD EPYC shows one socket counter once per die.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from profiler.backends.base import CounterPart, EnergyReading, Unavailable
from profiler.backends.cpu_state import read_virtualisation
from profiler.backends.tree import Tree, whole_number

# No counter that wraps (CPU packages) belongs to a part that can draw this much: the largest server
# CPUs are specified at 500 W. Beyond it a fall of the counter is a reset, not a wrap.
MAX_PACKAGE_POWER_W = 1000.0

_POWERCAP = "/sys/class/powercap"
_PACKAGE = re.compile(r"package-(\d+)(-die-\d+)?")
# Mirrored dies are read within a millisecond of each other, at less than 1 kW. Two independent counters
# at random places of a 262 kJ range are this close in 1 of 10^5 cases.
_MIRROR_J = 1.0


@dataclass(frozen=True)
class Zone:
    """One package (or die) whose energy is counted once.

    Attributes:
        name: as in the zone's ``name`` file.
        path: of the zone's directory.
        wraps_at_joules: from ``max_energy_range_uj``, or None when it cannot be read.
    """

    name: str
    path: str
    wraps_at_joules: float | None


class Rapl:
    """Reads the packages of this box; finds out once which zones to sum."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._zones: tuple[Zone, ...] | None = None

    def read(self) -> EnergyReading | Unavailable:
        """Read all packages once; one unreadable package makes the whole reading unavailable."""
        if self._zones is None:
            zones = self._find_zones()
            if isinstance(zones, Unavailable):
                return zones
            self._zones = zones
        parts = []
        before_ns = time.monotonic_ns()
        for zone in self._zones:
            joules = self._joules(zone)
            if isinstance(joules, Unavailable):
                return joules
            parts.append(CounterPart(f"rapl:{zone.name}", joules, zone.wraps_at_joules))
        after_ns = time.monotonic_ns()
        return EnergyReading(
            joules=sum(part.joules for part in parts),
            monotonic_ns=(before_ns + after_ns) // 2,
            # A sum of counters does not wrap at one value; each part carries its own.
            wraps_at_joules=parts[0].wraps_at_joules if len(parts) == 1 else None,
            source="rapl:" + "+".join(zone.name for zone in self._zones),
            scope="package",
            parts=tuple(parts),
        )

    def _find_zones(self) -> tuple[Zone, ...] | Unavailable:
        candidates: dict[str, Zone] = {}
        listed = self._tree.glob(f"{_POWERCAP}/intel-rapl:*") + self._tree.glob(
            f"{_POWERCAP}/intel-rapl-mmio:*"
        )
        for path in listed:
            name = self._tree.text(f"{path}/name") or ""
            if path.count(":") == 1 and _PACKAGE.fullmatch(name) and name not in candidates:
                wrap = self._tree.integer(f"{path}/max_energy_range_uj")
                candidates[name] = Zone(name, path, wrap * 1e-6 if wrap else None)
        if not candidates:
            return self.why_none(listed)
        return self._without_mirrors(list(candidates.values()))

    def _without_mirrors(self, zones: list[Zone]) -> tuple[Zone, ...] | Unavailable:
        kept: list[Zone] = []
        seen: list[tuple[str, float]] = []
        for zone in zones:
            joules = self._joules(zone)
            if isinstance(joules, Unavailable):
                return joules
            package = zone.name.partition("-die-")[0]
            if any(other == package and abs(joules - value) < _MIRROR_J for other, value in seen):
                continue
            seen.append((package, joules))
            kept.append(zone)
        return tuple(kept)

    def _joules(self, zone: Zone) -> float | Unavailable:
        path = f"{zone.path}/energy_uj"
        microjoules = whole_number(self._tree.text(path))
        if microjoules is not None:
            return microjoules * 1e-6
        why = self._tree.why(path)
        if why.endswith("may not be read by this user"):
            return Unavailable(
                "permission",
                f"only root may read the energy counter of {zone.name} (Linux since 5.10, CVE-2020-8694)",
                f"sudo chmod a+r {_POWERCAP}/intel-rapl:*/energy_uj (until the next boot), or run as root",
            )
        return Unavailable("unreadable", f"the energy counter of {zone.name}: {why}")

    def why_none(self, listed: list[str]) -> Unavailable:
        """Return why there is no package among the zones ``listed``."""
        tree = self._tree
        architecture = tree.text("/proc/sys/kernel/arch") or ""
        if architecture.startswith(("aarch64", "arm")):
            return Unavailable("not_supported_by_device", "ARM CPUs have no RAPL energy counter")
        dangling = bool(listed) and not any(tree.exists(path) for path in listed)
        if dangling or " /sys/devices/virtual/powercap " in (tree.text("/proc/self/mountinfo") or ""):
            return Unavailable(
                "masked_in_container",
                "the container runtime hides /sys/devices/virtual/powercap",
                "run aiprof on the host, or start the container with --security-opt systempaths=unconfined",
            )
        if read_virtualisation(tree).virtual:
            return Unavailable(
                "virtualised",
                "virtual machines are not given the RAPL energy counters",
                "measure on the bare machine (in a cloud: a metal instance)",
            )
        if listed:
            return Unavailable("not_supported_by_device", "none of the RAPL zones is a CPU package")
        return Unavailable(
            "driver_not_loaded", f"there are no RAPL zones in {_POWERCAP}", "sudo modprobe intel_rapl_msr"
        )
