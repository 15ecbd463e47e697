"""What ``aiprof devices`` says of a CPU: cores, caches, memory, clocks, and what stands between us and it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from profiler.backends.base import Device
from profiler.render.units import format_bytes

Row = tuple[str, str]
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


def or_why(value: Any, show: Callable[[Any], str], why: Any) -> str:
    """Return a fact as text, or why it is not known."""
    if value is not None:
        return show(value)
    return f"unknown: {why}" if why else "–"


def cpu_rows(device: Device) -> Iterator[Row]:
    """Yield the facts of a CPU, each with its label."""
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
    memory = or_why(device.memory_total_bytes, format_bytes, unknown.get("memory_total_bytes"))
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
