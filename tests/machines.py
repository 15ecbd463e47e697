"""Made-up machines: trees of ``/proc``, ``/sys`` and ``/etc`` files as real kernels write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

INTEL_FLAGS = "fpu sse2 avx2 avx512f avx512_bf16 avx512_fp16 avx512_vnni avx_vnni amx_tile amx_bf16 amx_int8"
MACHINE_ID = "0123456789abcdef0123456789abcdef"
CPUS = "/sys/devices/system/cpu"
POWERCAP = "/sys/class/powercap"


def write(root: Path, files: Mapping[str, object]) -> Path:
    """Write ``name -> content`` below ``root`` with the newline that the kernel ends its files with."""
    for name, content in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def link(root: Path, name: str, target: str) -> None:
    """Make a symbolic link, relative as in sysfs."""
    path = root / name.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def processors(count: int, fields: Mapping[str, str]) -> str:
    """``/proc/cpuinfo`` of equal CPUs."""
    body = "\n".join(f"{key}\t: {value}" for key, value in fields.items())
    return "\n\n".join(f"processor\t: {number}\n{body}" for number in range(count)) + "\n"


def cores(packages: list[int], siblings: list[str], caches: Mapping[str, str]) -> dict[str, object]:
    """Topology and caches of each CPU: its package, its sibling list and the sharing of each cache."""
    files: dict[str, object] = {f"{CPUS}/online": f"0-{len(packages) - 1}"}
    for cpu, (package, own) in enumerate(zip(packages, siblings, strict=True)):
        files[f"{CPUS}/cpu{cpu}/topology/physical_package_id"] = package
        files[f"{CPUS}/cpu{cpu}/topology/thread_siblings_list"] = own
        for index, (kind, size) in enumerate(caches.items()):
            folder = f"{CPUS}/cpu{cpu}/cache/index{index}"
            files[f"{folder}/level"], files[f"{folder}/type"] = kind.split()
            files[f"{folder}/size"] = size
            same = [str(other) for other, where in enumerate(packages) if where == package]
            files[f"{folder}/shared_cpu_list"] = ",".join(same) if kind.startswith("3") else own
    return files


def memory(total_kib: int, available_kib: int) -> dict[str, object]:
    text = f"MemTotal: {total_kib} kB\nMemFree: 1 kB\nMemAvailable: {available_kib} kB\n"
    pages = "HugePages_Total: 16\nHugePages_Free: 4\nHugepagesize: 2048 kB"
    return {
        "/proc/meminfo": f"{text}SwapTotal: 8388608 kB\nSwapFree: 8388600 kB\n{pages}",
        "/sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
    }


def process(cpus: str) -> dict[str, object]:
    return {
        "/proc/self/status": f"Name:\tpython\nCpus_allowed_list:\t{cpus}",
        "/proc/self/cgroup": "0::/user.slice/session.scope",
        "/proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw",
    }


def zone(folder: str, name: str, microjoules: int, largest: int | None = 262143328850) -> dict[str, object]:
    """One powercap zone below ``/sys/class/powercap``."""
    files: dict[str, object] = {
        f"{POWERCAP}/{folder}/name": name,
        f"{POWERCAP}/{folder}/energy_uj": microjoules,
    }
    if largest is not None:
        files[f"{POWERCAP}/{folder}/max_energy_range_uj"] = largest
    return files


def intel_server(root: Path) -> Path:
    """Two sockets with two cores of two threads each, AMX, RAPL with psys and mmio twins, bare metal."""
    model = {
        "vendor_id": "GenuineIntel",
        "model name": "Intel(R) Xeon(R)  Platinum 8480+",
        "flags": INTEL_FLAGS,
    }
    layout = cores(
        packages=[0, 0, 1, 1, 0, 0, 1, 1],
        siblings=["0,4", "1,5", "2,6", "3,7"] * 2,
        caches={"1 Data": "48K", "1 Instruction": "32K", "2 Unified": "2048K", "3 Unified": "107520K"},
    )
    governed: dict[str, object] = {}
    for cpu in range(8):
        folder = f"{CPUS}/cpu{cpu}/cpufreq"
        governed[f"{folder}/scaling_driver"] = "intel_pstate"
        governed[f"{folder}/scaling_governor"] = "performance" if cpu else "powersave"
        governed[f"{folder}/scaling_min_freq"] = 800000
        governed[f"{folder}/scaling_max_freq"] = 3800000
        governed[f"{folder}/scaling_cur_freq"] = 2900000
    nodes: dict[str, object] = {}
    for node, cpus in enumerate(("0-1,4-5", "2-3,6-7", "")):
        nodes[f"/sys/devices/system/node/node{node}/cpulist"] = cpus
        nodes[f"/sys/devices/system/node/node{node}/meminfo"] = f"Node {node} MemTotal:  134217728 kB"
    return write(
        root,
        {
            "/proc/cpuinfo": processors(8, model),
            "/proc/sys/kernel/arch": "x86_64",
            "/proc/sys/kernel/osrelease": "6.8.0-45-generic",
            "/proc/sys/kernel/hostname": "node17.example.org",
            "/etc/machine-id": MACHINE_ID,
            "/sys/class/dmi/id/sys_vendor": "Dell Inc.",
            "/sys/class/dmi/id/product_name": "PowerEdge R760",
            f"{CPUS}/smt/control": "on",
            f"{CPUS}/intel_pstate/no_turbo": 0,
            f"{CPUS}/cpu0/thermal_throttle/package_throttle_count": 3,
            "/sys/class/hwmon/hwmon2/name": "coretemp",
            "/sys/class/hwmon/hwmon2/temp1_input": 41000,
            **layout,
            **governed,
            **nodes,
            **memory(263192560, 250000000),
            **process("0-7"),
            **zone("intel-rapl:0", "psys", 900_000_000),
            **zone("intel-rapl:1", "package-0", 5_000_000),
            **zone("intel-rapl:1:0", "dram", 700_000),
            **zone("intel-rapl:2", "package-1", 7_500_000),
            **zone("intel-rapl-mmio:0", "package-0", 4_999_000),
        },
    )


def amd_server(root: Path) -> Path:
    """One socket of four cores without SMT, with acpi-cpufreq; two dies that show one counter."""
    flags = "fpu sse2 avx2 avx512f avx512_vnni avx512_bf16"
    model = {"vendor_id": "AuthenticAMD", "model name": "AMD EPYC 7551 32-Core Processor", "flags": flags}
    layout = cores([0] * 4, ["0", "1", "2", "3"], {"1 Data": "32K", "3 Unified": "64M"})
    return write(
        root,
        {
            "/proc/cpuinfo": processors(4, model),
            "/proc/sys/kernel/arch": "x86_64",
            f"{CPUS}/smt/control": "off",
            f"{CPUS}/cpu0/cpufreq/scaling_driver": "acpi-cpufreq",
            f"{CPUS}/cpu0/cpufreq/scaling_governor": "schedutil",
            f"{CPUS}/cpufreq/boost": 0,
            "/sys/class/hwmon/hwmon0/name": "k10temp",
            "/sys/class/hwmon/hwmon0/temp1_input": 38000,
            **layout,
            **memory(131072000, 120000000),
            **process("0-3"),
            **zone("intel-rapl:0", "package-0-die-0", 68_000_000, 65532610987),
            **zone("intel-rapl:1", "package-0-die-1", 68_000_400, 65532610987),
        },
    )


def graviton(root: Path) -> Path:
    """Two ARM cores of an EC2 instance."""
    features = "fp asimd asimdhp asimddp sve bf16 i8mm svebf16 svei8mm"
    model = {"Features": features, "CPU implementer": "0x41", "CPU part": "0xd40"}
    layout = cores([0, 0], ["0", "1"], {"1 Data": "64K", "2 Unified": "1M", "3 Unified": "32M"})
    return write(
        root,
        {
            "/proc/cpuinfo": processors(2, model),
            "/proc/sys/kernel/arch": "aarch64",
            "/sys/class/dmi/id/sys_vendor": "Amazon EC2",
            "/sys/class/dmi/id/product_name": "c7g.large",
            f"{CPUS}/smt/control": "notimplemented",
            **layout,
            **memory(3900000, 3500000),
            **process("0-1"),
        },
    )


def virtual_machine(root: Path) -> Path:
    """A KVM guest: hypervisor flag, no cpufreq, no RAPL, packages not described."""
    model = {
        "vendor_id": "GenuineIntel",
        "model name": "Intel Xeon Processor",
        "flags": "sse2 avx2 hypervisor",
    }
    layout = cores([-1, -1], ["0", "1"], {})
    return write(
        root,
        {
            "/proc/cpuinfo": processors(2, model),
            "/proc/sys/kernel/arch": "x86_64",
            "/sys/devices/system/clocksource/clocksource0/available_clocksource": "kvm-clock tsc",
            **layout,
            **memory(8000000, 7000000),
            **process("0-1"),
        },
    )


AMD_GPU = "/sys/class/drm/card{card}/device"


def amd_gpu(
    root: Path,
    card: int,
    pci: str,
    unique_id: str | None,
    power: str = "power1_average",
    node: int | None = None,
) -> None:
    """Add an MI300X-like GPU; with ``node`` also its place in the kernel's compute topology."""
    folder = AMD_GPU.format(card=card)
    files: dict[str, object] = {
        f"{folder}/vendor": "0x1002",
        f"{folder}/device": "0x74a1",
        f"{folder}/revision": "0x00",
        f"{folder}/uevent": f"DRIVER=amdgpu\nPCI_CLASS=120000\nPCI_SLOT_NAME={pci}",
        f"{folder}/mem_info_vram_total": 206158430208,
        f"{folder}/mem_info_vram_used": 297000960,
        f"{folder}/hwmon/hwmon{card}/name": "amdgpu",
        f"{folder}/hwmon/hwmon{card}/{power}": 140000000,
        f"{folder}/hwmon/hwmon{card}/power1_cap": 750000000,
        f"{folder}/hwmon/hwmon{card}/temp2_input": 45000,
        f"{folder}/hwmon/hwmon{card}/freq1_input": 2100000000,
        "/dev/kfd": "",
    }
    if unique_id is not None:
        files[f"{folder}/unique_id"] = unique_id
    if node is not None:
        domain, bus, rest = pci.split(":")
        device, function = rest.split(".")
        location = int(bus, 16) << 8 | int(device, 16) << 3 | int(function)
        properties = (
            f"simd_count 1216\nlocation_id {location}\ndomain {int(domain, 16)}\ngfx_target_version 90402"
        )
        files[f"/sys/class/kfd/kfd/topology/nodes/{node}/properties"] = properties
    write(root, files)
