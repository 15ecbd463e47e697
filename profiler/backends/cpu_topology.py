"""What the CPU is: model, cores, instruction sets, caches and NUMA nodes, from ``/proc`` and ``/sys``."""

from __future__ import annotations

import platform
import re
from collections import Counter
from dataclasses import dataclass

from profiler.backends.tree import Tree, format_cpu_list, parse_cpu_list, parse_fields, whole_number

_CPUS = "/sys/devices/system/cpu"

# Flag names as the kernel prints them: arch/x86/include/asm/cpufeatures.h.
X86_ISA = (
    "avx2",
    "avx512f",
    "avx512_bf16",
    "avx512_fp16",
    "avx512_vnni",
    "avx_vnni",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
)
# HWCAP names as the kernel prints them: Documentation/arch/arm64/elf_hwcaps.rst.
ARM_ISA = ("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2", "svebf16", "svei8mm", "sme")

# (implementer, part) of MIDR_EL1 for server cores: arch/arm64/include/asm/cputype.h.
_ARM_CORES = {
    (0x41, 0xD0C): "Arm Neoverse N1",
    (0x41, 0xD40): "Arm Neoverse V1",
    (0x41, 0xD49): "Arm Neoverse N2",
    (0x41, 0xD4F): "Arm Neoverse V2",
    (0x41, 0xD83): "Arm Neoverse V3AE",
    (0x41, 0xD84): "Arm Neoverse V3",
    (0x41, 0xD8E): "Arm Neoverse N3",
    (0x48, 0xD01): "HiSilicon TaiShan v110",
    (0xC0, 0xAC3): "Ampere-1",
    (0xC0, 0xAC4): "Ampere-1a",
}


@dataclass(frozen=True)
class Cache:
    """Caches of one level, kind and size.

    Attributes:
        level: 1, 2, 3, …
        type: ``Data``, ``Instruction`` or ``Unified``.
        size_bytes: size of one instance.
        instances: how many there are among the online CPUs.
    """

    level: int
    type: str
    size_bytes: int
    instances: int


@dataclass(frozen=True)
class NumaNode:
    """One NUMA node; ``cpus`` is empty for a node that has memory only (CXL, HBM, a GPU's memory)."""

    node: int
    cpus: str
    memory_bytes: int | None


@dataclass(frozen=True)
class Topology:
    """The processor as the kernel describes it; None where the kernel does not say.

    Attributes:
        architecture: as ``uname -m`` says.
        vendor: ``GenuineIntel``, ``AuthenticAMD``, … or None.
        model: the processor's name.
        sockets: physical packages with online CPUs.
        physical_cores: cores with online CPUs.
        logical_cpus: online CPUs of the box, whatever this process may use.
        smt: the kernel's word: ``on``, ``off``, ``forceoff``, ``notsupported`` or ``notimplemented``.
        isa: instruction set extensions that matter for inference -> present on every CPU.
        caches: by level.
        numa_nodes: all nodes, those without CPUs included.
    """

    architecture: str
    vendor: str | None
    model: str
    sockets: int | None
    physical_cores: int | None
    logical_cpus: int | None
    smt: str | None
    isa: dict[str, bool]
    caches: tuple[Cache, ...]
    numa_nodes: tuple[NumaNode, ...]


def read_topology(tree: Tree) -> Topology:
    """Read everything; never raises."""
    architecture = tree.text("/proc/sys/kernel/arch") or platform.machine()
    processors = _processors(tree)
    first = processors[0] if processors else {}
    online = parse_cpu_list(tree.text(f"{_CPUS}/online") or "")
    packages = {tree.integer(f"{_CPUS}/cpu{cpu}/topology/physical_package_id") for cpu in online}
    cores = {tree.text(f"{_CPUS}/cpu{cpu}/topology/thread_siblings_list") for cpu in online}
    return Topology(
        architecture=architecture,
        vendor=first.get("vendor_id"),
        model=_model(first, architecture),
        # The kernel writes -1 where the firmware does not describe packages.
        sockets=len(packages) if packages and not packages & {None, -1} else None,
        physical_cores=len(cores) if cores and None not in cores else None,
        logical_cpus=len(online) or len(processors) or None,
        smt=tree.text(f"{_CPUS}/smt/control"),
        isa=_isa(processors, architecture),
        caches=_caches(tree, online),
        numa_nodes=_numa_nodes(tree),
    )


def _processors(tree: Tree) -> list[dict[str, str]]:
    blocks = (tree.text("/proc/cpuinfo") or "").split("\n\n")
    fields = [parse_fields(block) for block in blocks]
    # ARM kernels before 3.14 and POWER put facts of the whole box into a last block without a number.
    return [block for block in fields if "processor" in block]


def _model(fields: dict[str, str], architecture: str) -> str:
    for key in ("model name", "cpu", "uarch"):
        if fields.get(key):
            return " ".join(fields[key].split())
    try:
        implementer, part = (int(fields[name][:20], 16) for name in ("CPU implementer", "CPU part"))
    except (KeyError, ValueError):
        return f"{architecture} CPU"
    return _ARM_CORES.get((implementer, part), f"{architecture} CPU {implementer:#04x}/{part:#05x}")


def _isa(processors: list[dict[str, str]], architecture: str) -> dict[str, bool]:
    is_arm = architecture.startswith(("aarch64", "arm"))
    wanted = ARM_ISA if is_arm else X86_ISA if architecture in ("x86_64", "i686") else ()
    flags = [set(block.get("Features" if is_arm else "flags", "").split()) for block in processors]
    common = set.intersection(*flags) if flags else set()
    return {name: name in common for name in wanted} if common else {}


def _caches(tree: Tree, online: tuple[int, ...]) -> tuple[Cache, ...]:
    instances: dict[tuple[int, str, str], int] = {}
    for cpu in online:
        for index in tree.glob(f"{_CPUS}/cpu{cpu}/cache/index*"):
            level, kind = tree.integer(f"{index}/level"), tree.text(f"{index}/type")
            size = _size_bytes(tree.text(f"{index}/size") or "")
            shared = tree.text(f"{index}/shared_cpu_list") or str(cpu)
            if level is not None and kind and size:
                instances[(level, kind, shared)] = size
    counts = Counter((level, kind, size) for (level, kind, _), size in instances.items())
    return tuple(Cache(*key, count) for key, count in sorted(counts.items()))


def _size_bytes(text: str) -> int | None:
    match = re.fullmatch(r"([0-9]{1,15})([KMG]?)B?", text)
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]] if match else None


def _numa_nodes(tree: Tree) -> tuple[NumaNode, ...]:
    nodes = []
    for path in tree.glob("/sys/devices/system/node/node[0-9]*"):
        number = whole_number(path.rpartition("node")[2])
        if number is None:
            continue
        match = re.search(r"MemTotal:\s*([0-9]{1,15}) kB", tree.text(f"{path}/meminfo") or "")
        cpus = format_cpu_list(parse_cpu_list(tree.text(f"{path}/cpulist") or ""))
        nodes.append(NumaNode(number, cpus, int(match[1]) * 1024 if match else None))
    return tuple(nodes)
