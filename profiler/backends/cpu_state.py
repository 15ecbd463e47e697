"""The state the CPU is in: memory, clocks, huge pages, and what stands between us and the hardware."""

from __future__ import annotations

import re
from dataclasses import dataclass

from profiler.backends.tree import Tree, parse_cpu_list, parse_fields, whole_number

_CPUS = "/sys/devices/system/cpu"

# DMI vendor or product -> hypervisor, as virt/detect of systemd does it (src/basic/virt.c).
_DMI_HYPERVISORS = (
    ("KVM", "KVM"),
    ("OpenStack", "KVM"),
    ("KubeVirt", "KVM"),
    ("Google Compute Engine", "KVM"),
    ("Amazon EC2", "Amazon EC2 (Nitro)"),
    ("QEMU", "QEMU"),
    ("VMware", "VMware"),
    ("VMW", "VMware"),
    ("innotek GmbH", "VirtualBox"),
    ("VirtualBox", "VirtualBox"),
    ("Xen", "Xen"),
    ("Bochs", "Bochs"),
    ("Parallels", "Parallels"),
    ("BHYVE", "bhyve"),
    ("Hyper-V", "Hyper-V"),
    ("Apple Virtualization", "Apple Virtualization"),
)
_CONTAINER_MARKS = (
    ("kubepods", "kubernetes"),
    ("kubelet/pods", "kubernetes"),
    ("docker", "docker"),
    ("libpod", "podman"),
    ("containerd", "containerd"),
    ("lxc", "lxc"),
)
_CONTAINER_MOUNTS = ("/", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf")


@dataclass(frozen=True)
class HostMemory:
    """Memory of the host, whatever a control group allows; None where ``/proc/meminfo`` does not say."""

    total_bytes: int | None
    available_bytes: int | None
    swap_total_bytes: int | None
    swap_free_bytes: int | None


@dataclass(frozen=True)
class HugePages:
    """Huge pages: the transparent ones by the kernel's word, the reserved ones by number."""

    transparent: str | None
    size_bytes: int | None
    total: int | None
    free: int | None


@dataclass(frozen=True)
class Frequency:
    """How clocks are governed.

    Attributes:
        driver: cpufreq driver, e.g. ``intel_pstate``, ``amd-pstate-epp``, ``acpi-cpufreq``.
        governors: the governors in use, one entry per kind.
        min_hz, max_hz: limits that the governor keeps, over all CPUs.
        boost: whether clocks above the nominal one are allowed.
    """

    driver: str | None
    governors: tuple[str, ...]
    min_hz: int | None
    max_hz: int | None
    boost: bool | None


@dataclass(frozen=True)
class Virtualisation:
    """What stands between this process and the hardware.

    Attributes:
        virtual: True in a virtual machine, False on bare metal, None where the kernel does not say.
        hypervisor: which one, or None.
        container: ``docker``, ``podman``, ``kubernetes``, …, or None.
        machine: vendor and product as the firmware says them (in a cloud: the instance type).
    """

    virtual: bool | None
    hypervisor: str | None
    container: str | None
    machine: str | None


def read_memory(tree: Tree) -> HostMemory:
    """Read ``/proc/meminfo``."""
    fields = parse_fields(tree.text("/proc/meminfo") or "")
    return HostMemory(
        total_bytes=_kibibytes(fields.get("MemTotal")),
        available_bytes=_kibibytes(fields.get("MemAvailable")),
        swap_total_bytes=_kibibytes(fields.get("SwapTotal")),
        swap_free_bytes=_kibibytes(fields.get("SwapFree")),
    )


def _kibibytes(value: str | None) -> int | None:
    number, _, unit = (value or "").partition(" ")
    kibibytes = whole_number(number) if unit == "kB" else None
    return None if kibibytes is None else kibibytes * 1024


def read_huge_pages(tree: Tree) -> HugePages:
    """Read the transparent setting (``[madvise]``) and the reserved pages of the default size."""
    fields = parse_fields(tree.text("/proc/meminfo") or "")
    chosen = re.search(r"\[(\w+)\]", tree.text("/sys/kernel/mm/transparent_hugepage/enabled") or "")
    return HugePages(
        transparent=chosen[1] if chosen else None,
        size_bytes=_kibibytes(fields.get("Hugepagesize")),
        total=whole_number(fields.get("HugePages_Total")),
        free=whole_number(fields.get("HugePages_Free")),
    )


def read_frequency(tree: Tree) -> Frequency:
    """Read cpufreq of all online CPUs and the boost switch of whichever driver is there."""
    policies = [
        f"{_CPUS}/cpu{cpu}/cpufreq"
        for cpu in parse_cpu_list(tree.text(f"{_CPUS}/online") or "")
        if tree.exists(f"{_CPUS}/cpu{cpu}/cpufreq")
    ]
    governors = {tree.text(f"{policy}/scaling_governor") for policy in policies}
    lows = [tree.integer(f"{policy}/scaling_min_freq") for policy in policies]
    highs = [tree.integer(f"{policy}/scaling_max_freq") for policy in policies]
    return Frequency(
        driver=tree.text(f"{policies[0]}/scaling_driver") if policies else None,
        governors=tuple(sorted(governor for governor in governors if governor)),
        min_hz=min((kilohertz * 1000 for kilohertz in lows if kilohertz), default=None),
        max_hz=max((kilohertz * 1000 for kilohertz in highs if kilohertz), default=None),
        boost=_boost(tree, policies),
    )


def why_no_clocks(tree: Tree) -> str:
    """Return why a machine without a cpufreq driver shows no clocks."""
    if read_virtualisation(tree).virtual:
        return "a virtual machine does not see the clocks of the hardware"
    return "there is no cpufreq driver; clocks are under the firmware's control"


def _boost(tree: Tree, policies: list[str]) -> bool | None:
    no_turbo = tree.integer(f"{_CPUS}/intel_pstate/no_turbo")
    if no_turbo is not None:
        return no_turbo == 0
    per_policy = [tree.integer(f"{policy}/boost") for policy in policies]
    values = [value for value in (tree.integer(f"{_CPUS}/cpufreq/boost"), *per_policy) if value is not None]
    return all(values) if values else None


def read_virtualisation(tree: Tree) -> Virtualisation:
    """Say from CPU flags, firmware strings and clock sources whether this is a virtual machine.

    The names are looked for in the order of systemd's ``detect-virt``; x86 has a CPU flag that is
    decisive, other architectures only give hints, so that their ``virtual`` may be None.
    """
    cpuinfo = tree.text("/proc/cpuinfo") or ""
    vendor = tree.text("/sys/class/dmi/id/sys_vendor") or ""
    product = tree.text("/sys/class/dmi/id/product_name") or ""
    machine = " ".join(f"{vendor} {product}".split()) or None
    is_x86 = re.search(r"^flags\s*:", cpuinfo, re.MULTILINE) is not None
    flagged = re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.MULTILINE) is not None
    hypervisor = _hypervisor(tree, vendor, product)
    if is_x86 and not flagged:
        # Bare-metal cloud instances carry the cloud's name in DMI, but not the CPU flag.
        return Virtualisation(False, None, _container(tree), machine)
    virtual = True if flagged or hypervisor else None
    if vendor == "Amazon EC2" and "metal" in product:
        virtual, hypervisor = False, None
    return Virtualisation(virtual, hypervisor, _container(tree), machine)


def _hypervisor(tree: Tree, vendor: str, product: str) -> str | None:
    if vendor == "Microsoft Corporation" and product.startswith("Virtual Machine"):
        return "Hyper-V"
    for mark, name in _DMI_HYPERVISORS:
        if mark in vendor or mark in product:
            return name
    kind = tree.text("/sys/hypervisor/type")
    if kind:
        return {"xen": "Xen"}.get(kind, kind)
    clocks = tree.text("/sys/devices/system/clocksource/clocksource0/available_clocksource") or ""
    for mark, name in (("kvm-clock", "KVM"), ("hyperv", "Hyper-V"), ("xen", "Xen")):
        if mark in clocks:
            return name
    if "microsoft" in (tree.text("/proc/sys/kernel/osrelease") or "").lower():
        return "Hyper-V (WSL)"
    return None


def _container(tree: Tree) -> str | None:
    # With a cgroup namespace the group is just "/"; the runtime then shows in what it mounts over the image.
    mountinfo = tree.text("/proc/self/mountinfo") or ""
    mounts = (line.split() for line in mountinfo.splitlines())
    own = [" ".join(fields) for fields in mounts if len(fields) > 4 and fields[4] in _CONTAINER_MOUNTS]
    marks = "\n".join([tree.text("/proc/self/cgroup") or "", *own])
    for mark, name in _CONTAINER_MARKS:
        if mark in marks:
            return name
    if tree.exists("/run/.containerenv"):
        return "podman"
    # A virtual machine made from an image keeps this file, but not the layered root file system.
    if tree.exists("/.dockerenv") and re.search(r" / / .* - (\S*overlay\S*|aufs|btrfs|zfs) ", mountinfo):
        return "docker"
    return tree.text("/run/systemd/container")
