"""The CPU as a device: what it is, what this process may use of it, and its sensors."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from profiler.backends.base import (
    BackendReport,
    Capability,
    CapabilityName,
    Device,
    DeviceMemory,
    Json,
    Unavailable,
)
from profiler.backends.cgroup import Limits, read_limits
from profiler.backends.cpu_state import (
    read_frequency,
    read_huge_pages,
    read_memory,
    read_virtualisation,
    why_no_clocks,
)
from profiler.backends.cpu_topology import Topology, read_topology
from profiler.backends.tree import Tree, format_cpu_list, parse_cpu_list, parse_fields
from profiler.sensors.base import SensorInfo
from profiler.sensors.box import sensor_root
from profiler.sensors.cpu_sensors import CpuSensors
from profiler.sensors.meters import meters_for
from profiler.sensors.rapl_sensors import RaplSensors

# Capability -> (quantity of the source ``cpu``, where that reads it).
_STATES: dict[CapabilityName, tuple[str, str]] = {
    "clocks": ("clock", "cpufreq"),
    "temperature": ("temperature", "hwmon"),
    "throttling": ("throttle_count", "thermal_throttle"),
}


class CpuBackend:
    """The backend ``cpu``: always one device on Linux.

    Args:
        root: where ``/proc``, ``/sys`` and ``/etc`` are; by default those of this machine, where only what
            sensors show comes from ``AIPROF_SYSFS_ROOT``: the work is done here.
    """

    name = "cpu"
    verified = "verified on AMD EPYC (2 cores, KVM), 2026-11-23"

    def __init__(self, root: Path | None = None) -> None:
        self._tree = Tree(root or Path("/"))
        self._sensor_root = sensor_root() if root is None else str(root)

    def report(self) -> BackendReport:
        """Describe the CPU, its memory and the limits on this process."""
        tree = self._tree
        if not tree.exists("/proc/cpuinfo"):
            missing = Unavailable(
                "no_procfs", "there is no /proc/cpuinfo", "aiprof runs on Linux with /proc mounted"
            )
            return BackendReport(self.name, (), missing, self.verified)
        topology, limits = read_topology(tree), read_limits(tree)
        details, unknown = self._details(topology, limits)
        memory = self._memory(limits)
        if isinstance(memory, Unavailable):
            unknown["memory_total_bytes"] = str(memory)
        device = Device(
            key=self._key(topology),
            backend=self.name,
            ordinal=0,
            name=topology.model,
            memory_total_bytes=None if isinstance(memory, Unavailable) else memory.total_bytes,
            details={**details, "unknown": unknown},
        )
        kernel: dict[str, Json] = {"kernel": tree.text("/proc/sys/kernel/osrelease")}
        return BackendReport(self.name, (device,), None, self.verified, kernel)

    def memory(self, device: Device) -> DeviceMemory | Unavailable:
        """Read total and available memory, within the control group's limit where there is one."""
        return self.host_memory()

    def host_memory(self) -> DeviceMemory | Unavailable:
        """Return the memory of the host, which is a device's own only for the CPU."""
        return self._memory(read_limits(self._tree))

    def capabilities(self, device: Device) -> tuple[Capability, ...]:
        """Try each kind of reading once."""
        memory = self.memory(device)
        # Which counters are the CPU's is decided where sweeps decide it.
        energy, *_ = meters_for(device, RaplSensors(self._sensor_root).probe())
        states = CpuSensors(self._sensor_root).probe()
        no_energy = energy.unavailable
        names = "+".join(info.device.removeprefix("cpu-") for info in energy.sensors)
        energy_source = None if no_energy is not None else f"rapl:{names}"
        no_memory = memory if isinstance(memory, Unavailable) else None
        return (
            Capability("memory", None if isinstance(memory, Unavailable) else memory.source, no_memory),
            Capability("energy", energy_source, no_energy),
            # RAPL has no power reading; power is energy over time.
            Capability("power", energy_source and f"{energy_source} over time", no_energy),
            *(self._state(states, name) for name in _STATES),
        )

    def _memory(self, limits: Limits) -> DeviceMemory | Unavailable:
        host = read_memory(self._tree)
        if host.total_bytes is None or host.available_bytes is None:
            return Unavailable("unreadable", f"memory: {self._tree.why('/proc/meminfo')}")
        limit = limits.memory_limit_bytes
        if limit is None or limit >= host.total_bytes:
            return DeviceMemory(host.total_bytes, host.available_bytes, "/proc/meminfo")
        if limits.memory_used_bytes is None:
            return Unavailable(
                "unreadable", "the control group limits memory but does not say how much is used"
            )
        left = max(0, limit - limits.memory_used_bytes)
        return DeviceMemory(limit, min(left, host.available_bytes), "cgroup memory limit")

    def _details(self, topology: Topology, limits: Limits) -> tuple[dict[str, Json], dict[str, Json]]:
        """Return the facts, and for each fact that is None the reason."""
        tree = self._tree
        virtualisation = read_virtualisation(tree)
        frequency = read_frequency(tree)
        fields = parse_fields(tree.text("/proc/self/status") or "")
        affinity = parse_cpu_list(fields.get("Cpus_allowed_list", ""))
        details: dict[str, Json] = {
            **_json(topology),
            "threads_per_core": _ratio(topology.logical_cpus, topology.physical_cores),
            "affinity": format_cpu_list(affinity) or None,
            "usable_cpus": len(affinity) or None,
            "limits": _json(limits),
            "host_memory": _json(read_memory(tree)),
            "huge_pages": _json(read_huge_pages(tree)),
            "frequency": _json(frequency),
            "virtualisation": _json(virtualisation),
            "kernel": tree.text("/proc/sys/kernel/osrelease"),
        }
        unknown: dict[str, Json] = {}
        for key, why in _REASONS.items():
            if details[key] is None:
                unknown[key] = why
        if not topology.caches:
            unknown["caches"] = "the kernel describes no caches"
        if not topology.isa:
            unknown["isa"] = "the kernel lists no instruction set extensions that aiprof knows"
        if frequency.driver is None:
            unknown["frequency"] = why_no_clocks(tree)
        elif frequency.boost is None:
            unknown["frequency.boost"] = f"the driver {frequency.driver} shows no boost switch"
        if virtualisation.virtual is None:
            unknown["virtualisation.virtual"] = "this architecture has no flag for virtual machines"
        return details, unknown

    def _key(self, topology: Topology) -> str:
        machine_id = self._tree.text("/etc/machine-id") or self._tree.text("/var/lib/dbus/machine-id") or ""
        product = self._tree.text("/sys/class/dmi/id/product_uuid") or ""
        if re.fullmatch(r"[0-9a-f]{32}", machine_id) and machine_id.strip("0"):
            identity = machine_id
        elif re.fullmatch(r"[0-9a-fA-F-]{36}", product) and product.strip("0-") and product.strip("fF-"):
            identity = product.lower()
        else:
            identity = f"{topology.model} {topology.physical_cores} {topology.logical_cpus}"
        return "cpu-" + hashlib.sha256(identity.encode()).hexdigest()[:12]

    def _state(self, infos: Sequence[SensorInfo], name: CapabilityName) -> Capability:
        """Return whether any package shows it."""
        quantity, source = _STATES[name]
        own = [info for info in infos if info.key.endswith(f"/{quantity}")]
        readable = next((info for info in own if info.unavailable is None), None)
        if readable is None:
            return Capability(name, None, own[0].unavailable)
        return Capability(name, f"{source}:{readable.note}" if readable.note else source, None)


_REASONS = {
    "sockets": "the kernel does not describe CPU packages",
    "physical_cores": "the kernel does not describe cores",
    "threads_per_core": "the kernel does not describe cores",
    "logical_cpus": "neither /sys nor /proc/cpuinfo lists CPUs",
    "smt": "there is no /sys/devices/system/cpu/smt/control",
    "vendor": "/proc/cpuinfo names no vendor",
    "affinity": "/proc/self/status has no Cpus_allowed_list",
    "usable_cpus": "/proc/self/status has no Cpus_allowed_list",
    "kernel": "there is no /proc/sys/kernel/osrelease",
}


def _ratio(total: int | None, parts: int | None) -> float | None:
    return total / parts if total and parts else None


def _json(value: object) -> dict[str, Json]:
    """Return a frozen dataclass of plain values as JSON values."""
    return {key: _plain(item) for key, item in asdict(value).items()}  # type: ignore[call-overload]


def _plain(value: object) -> Json:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    assert value is None or isinstance(value, (bool, int, float, str))
    return value
