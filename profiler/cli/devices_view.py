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
from profiler.cli.devices_cpu import Row, cpu_rows, or_why
from profiler.cli.devices_sensors import print_rows, print_sensors, sensor_row, sentence
from profiler.engines.llamacpp_traps import LlamaCppEnvironment
from profiler.engines.vllm_traps import VllmEnvironment
from profiler.render.units import format_bytes
from profiler.sensors.survey import Surveyed, sensors_of

_PIPE_WIDTH = 100
_TO_TRY = "fake"
_OF_FAMILIES = ("nvml", "amdsmi", "dcmi")


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
        name, mark, words = sensor_row(one)
        several = sum(other.info.source == one.info.source for other in shown) > 1
        rows.append((f"{one.info.source} {name}" if several else one.info.source, mark, words))
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
        yield from cpu_rows(device)
        return
    known = device.details.get("unknown")
    unknown: Mapping[str, Any] = known if isinstance(known, dict) else {}
    yield "memory", or_why(device.memory_total_bytes, format_bytes, unknown.get("memory_total_bytes"))
    if device.uuid and device.uuid != device.key:
        yield "UUID", device.uuid
    if device.pci_address:
        yield "PCI", device.pci_address
    for key, (label, show) in _GPU_ROWS.items():
        # None without a reason is a fact that does not apply, such as the parent of a whole GPU.
        if device.details.get(key) is not None or key in unknown:
            yield label, or_why(device.details.get(key), show, unknown.get(key))
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
