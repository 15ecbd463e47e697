"""The devices of a box for people: facts that a buyer cares about, and what can be measured."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from profiler.backends.base import BackendReport, Capability, Device
from profiler.backends.links import sentence as link_sentence
from profiler.cli.devices_sensors import print_rows, print_sensors, sensor_row, sentence
from profiler.engines.llamacpp_traps import LlamaCppEnvironment
from profiler.engines.vllm_traps import VllmEnvironment
from profiler.render.units import format_bytes
from profiler.sensors.survey import Surveyed, sensors_of

Row = tuple[str, str]
_PIPE_WIDTH = 100
_TO_TRY = "fake"
_OF_FAMILIES = ("nvml", "amdsmi", "dcmi")
_ISA_NAMES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512F",
    "avx512_bf16": "AVX512_BF16",
    "avx512_fp16": "AVX512_FP16",
    "avx512_vnni": "AVX512_VNNI",
    "avx_vnni": "AVX_VNNI",
    "amx_tile": "AMX",
    "amx_bf16": "AMX-BF16",
    "amx_int8": "AMX-INT8",
    "asimd": "NEON",
    "asimdhp": "FP16",
    "asimddp": "DOTPROD",
}
_SMT = {
    "on": "SMT on",
    "off": "SMT off",
    "forceoff": "SMT forced off",
    "notsupported": "no SMT",
    "notimplemented": "no SMT",
}


def print_vllm(environment: VllmEnvironment) -> None:
    """Print what is wrong with an environment that has vLLM, one line each with the remedy."""
    console = console_for_pipes()
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    console.print(Text.assemble(("vllm", "bold"), (f"  {environment.python}: {versions}", "dim")))
    rows = [(trap.code, str(trap)) for trap in environment.traps]
    _print_rows(console, rows or [("traps", "none of the known ones")])


def print_llamacpp(environment: LlamaCppEnvironment) -> None:
    """Print what a build of llama-cpp-python can do, and what is wrong with it here."""
    console = console_for_pipes()
    offload = {True: "CPU and accelerators", False: "CPU only", None: "not known"}[environment.gpu_offload]
    console.print(
        Text.assemble(("llama-cpp-python", "bold"), (f"  {environment.python}: {environment.version}", "dim"))
    )
    rows = [("computes on", offload), ("built with", ", ".join(environment.features) or "not known")]
    rows += [(trap.code, str(trap)) for trap in environment.traps] or [("traps", "none of the known ones")]
    _print_rows(console, rows)


def print_devices(
    reports: Sequence[BackendReport],
    able: Mapping[str, tuple[Capability, ...]],
    surveyed: Sequence[Surveyed],
) -> None:
    """Print every backend: its devices, or why it has none.

    Args:
        reports: what the backends found.
        able: ``backend:key`` -> capabilities of each device.
        surveyed: the sensors of the box.
    """
    console = console_for_pipes()
    to_try = [report for report in reports if report.backend == _TO_TRY]
    of_devices: set[str] = set()
    for report in reports:
        if report in to_try:
            continue
        console.print(Text.assemble((report.backend, "bold"), (f"  {report.verified}", "dim")))
        if report.unavailable is not None:
            _print_rows(console, [("none", sentence(report.unavailable))])
        _print_rows(console, list(_fact_rows(report)))
        for device in report.devices:
            own = sensors_of(device, surveyed)
            of_devices |= {one.info.key for one in own}
            _print_device(console, device, able[f"{device.backend}:{device.key}"], own)
        console.print()
    _print_meters(console, [one for one in surveyed if one.info.key not in of_devices])
    for report in to_try:
        console.print(Text(f"--device {report.backend} gives a simulated device, to try aiprof out.", "dim"))


def console_for_pipes() -> Console:
    """Return a console; without a terminal there is no width that fits, but COLUMNS still decides."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=_PIPE_WIDTH)
    return console


def _print_device(
    console: Console, device: Device, capabilities: Sequence[Capability], sensors: Sequence[Surveyed]
) -> None:
    console.print()
    title = Text.assemble(
        (f"{device.backend}:{device.ordinal}  {device.name}", "bold"), (f"  {device.key}", "dim")
    )
    if device.simulated:
        title.append("  SIMULATED", "bold yellow")
    elif any(one.info.simulated and one.unavailable is None for one in sensors):
        title.append("  SENSORS SIMULATED", "bold yellow")
    console.print(Padding(title, (0, 0, 0, 2)))
    rows = list(_device_rows(device))
    width = max(len(label) for label, _ in rows)
    _print_rows(console, rows, width)
    print_sensors(console, capabilities, sensors, width)


def _print_meters(console: Console, others: Sequence[Surveyed]) -> None:
    """Print sensors of no device: the wall, and a meter of the user's own."""
    # Families without a device have said so above; their sources would say it again.
    shown = [one for one in others if one.info.source not in _OF_FAMILIES or one.unavailable is None]
    if not shown:
        return
    console.print(Text("other meters", "bold"))
    rows = []
    for one in shown:
        _, mark, words = sensor_row(one)
        rows.append((one.info.source, mark, words))
    print_rows(console, "can be measured", rows, 12)
    console.print()


def _print_rows(console: Console, rows: Sequence[Row], width: int = 12) -> None:
    if not rows:
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", no_wrap=True, min_width=width)
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(label, Text(value))
    console.print(Padding(table, (0, 0, 0, 4)))


def _fact_rows(report: BackendReport) -> Iterator[Row]:
    for key, value in report.facts.items():
        if isinstance(value, str):
            yield key.removesuffix("_version").replace("_", " "), value
    yield from _notes(report.facts)
    unusable = report.facts.get("unusable_gpus")
    for gpu in unusable if isinstance(unusable, list) else []:
        if isinstance(gpu, dict):
            yield f"GPU {gpu.get('nvml_index')}", f"cannot be used: {gpu.get('reason')}"


def _notes(facts: Mapping[str, Any]) -> Iterator[Row]:
    for note in facts.get("notes") or []:
        yield "note", str(note)


def _device_rows(device: Device) -> Iterator[Row]:
    if device.backend == "cpu":
        yield from _cpu_rows(device)
        return
    known = device.details.get("unknown")
    unknown: Mapping[str, Any] = known if isinstance(known, dict) else {}
    yield "memory", _or_why(device.memory_total_bytes, format_bytes, unknown.get("memory_total_bytes"))
    if device.uuid and device.uuid != device.key:
        yield "UUID", device.uuid
    if device.pci_address:
        yield "PCI", device.pci_address
    for key, (label, show) in _GPU_ROWS.items():
        # None without a reason is a fact that does not apply, such as the parent of a whole GPU.
        if device.details.get(key) is not None or key in unknown:
            yield label, _or_why(device.details.get(key), show, unknown.get(key))
    links = device.details.get("links")
    if isinstance(links, list) and links:
        yield "links", link_sentence([link for link in links if isinstance(link, dict)])
    yield from _notes(device.details)


_GPU_ROWS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "compute_capability": ("compute capability", str),
    "target": ("instruction set", str),
    "power_limit_w": ("power limit", lambda watts: f"{watts:.0f} W"),
    "mig_enabled": ("MIG", lambda enabled: "on" if enabled else "off"),
    "mig_parent_uuid": ("MIG parent", str),
    "compute_partition": ("compute mode", str),
    "memory_partition": ("memory mode", str),
    "ecc_enabled": ("ECC", lambda enabled: "on" if enabled else "off"),
    "sriov": ("SR-IOV", str),
    "virtualisation": ("virtualised", str),
    "vnpu": ("virtual NPU", str),
    "pcie_generation_max": ("PCIe generation", str),
    "pcie_lanes": ("PCIe lanes", str),
    "max_sm_clock_hz": ("highest clock", lambda hertz: f"{hertz / 1e9:.2f} GHz"),
}


def _or_why(value: Any, show: Callable[[Any], str], why: Any) -> str:
    if value is not None:
        return show(value)
    return f"unknown: {why}" if why else "–"


def _cpu_rows(device: Device) -> Iterator[Row]:
    details: Mapping[str, Any] = device.details
    unknown: Mapping[str, Any] = details["unknown"]
    yield "cores", _cores(details)
    isa = details["isa"]
    have = [_isa_name(name) for name, present in isa.items() if present]
    lack = [_isa_name(name) for name, present in isa.items() if not present]
    yield "instructions", " ".join(have) or unknown.get("isa", "none of those that matter here")
    if lack:
        yield "not here", " ".join(lack)
    caches = ", ".join(_cache(cache) for cache in details["caches"])
    yield "caches", caches or unknown["caches"]
    yield from _cpu_memory_rows(device, details, unknown)
    yield "clocks", _clocks(details["frequency"], unknown)
    virtualisation = details["virtualisation"]
    where = {True: "virtual machine", False: "bare metal", None: "unknown whether virtual"}
    words = [virtualisation["hypervisor"], where[virtualisation["virtual"]]]
    if virtualisation["container"]:
        words.append(f"in a container ({virtualisation['container']})")
    yield "runs on", " ".join(word for word in words if word)
    if virtualisation["machine"]:
        yield "machine", virtualisation["machine"]
    yield "limits", _limits(details["limits"])


def _cpu_memory_rows(device: Device, details: Mapping[str, Any], unknown: Mapping[str, Any]) -> Iterator[Row]:
    host, pages = details["host_memory"], details["huge_pages"]
    memory = _or_why(device.memory_total_bytes, format_bytes, unknown.get("memory_total_bytes"))
    if host["total_bytes"] and host["total_bytes"] != device.memory_total_bytes:
        memory += f" allowed of {format_bytes(host['total_bytes'])}"
    swap = f"swap {format_bytes(host['swap_total_bytes'])}" if host["swap_total_bytes"] else "no swap"
    yield "memory", f"{memory}, {format_bytes(host['available_bytes'])} available on the host, {swap}"
    reserved = f"{pages['total']} × {format_bytes(pages['size_bytes'])} reserved" if pages["total"] else ""
    yield (
        "huge pages",
        ", ".join(filter(None, [f"transparent: {pages['transparent'] or 'unknown'}", reserved])),
    )
    nodes = details["numa_nodes"]
    if len(nodes) > 1:
        for node in nodes:
            cpus = f"CPUs {node['cpus']}" if node["cpus"] else "no CPUs"
            yield f"NUMA {node['node']}", f"{cpus}, {format_bytes(node['memory_bytes'])}"
    else:
        yield "NUMA", "1 node" if nodes else "no nodes described"


def _isa_name(name: str) -> str:
    return _ISA_NAMES.get(name, name.upper())


def _cores(details: Mapping[str, Any]) -> str:
    def counted(number: int | None, word: str) -> str:
        return f"{'?' if number is None else number} {word}{'' if number == 1 else 's'}"

    text = ", ".join(
        [
            counted(details["sockets"], "socket"),
            counted(details["physical_cores"], "core"),
            counted(details["logical_cpus"], "logical CPU"),
            _SMT.get(details["smt"] or "", "SMT unknown"),
        ]
    )
    usable = details["usable_cpus"]
    if usable is not None and usable != details["logical_cpus"]:
        text += f"; this process may use {usable} ({details['affinity']})"
    return text


def _cache(cache: Mapping[str, Any]) -> str:
    letter = {"Data": "d", "Instruction": "i"}.get(cache["type"], "")
    return f"L{cache['level']}{letter} {cache['instances']} × {format_bytes(cache['size_bytes'])}"


def _clocks(frequency: Mapping[str, Any], unknown: Mapping[str, Any]) -> str:
    if frequency["driver"] is None:
        return f"unknown: {unknown['frequency']}"
    parts = [frequency["driver"], f"governor {' and '.join(frequency['governors']) or 'unknown'}"]
    if frequency["min_hz"] and frequency["max_hz"]:
        parts.append(f"{frequency['min_hz'] / 1e9:.2f} to {frequency['max_hz'] / 1e9:.2f} GHz")
    parts.append({True: "boost on", False: "boost off", None: "boost unknown"}[frequency["boost"]])
    return ", ".join(parts)


def _limits(limits: Mapping[str, Any]) -> str:
    if limits["cgroup_version"] is None:
        return "no control groups"
    parts = []
    if limits["cpu_quota_cpus"] is not None:
        parts.append(f"{limits['cpu_quota_cpus']:.3g} CPUs of time")
    if limits["memory_limit_bytes"] is not None:
        parts.append(f"{format_bytes(limits['memory_limit_bytes'])} of memory")
    return f"{' and '.join(parts) or 'none'} (cgroup v{limits['cgroup_version']})"
