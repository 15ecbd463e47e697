"""What is known of RAPL, Intel's and AMD's energy counters of CPU packages, before any is read."""

from __future__ import annotations

from collections.abc import Sequence

from profiler.backends.base import Unavailable
from profiler.backends.cpu_state import read_virtualisation
from profiler.backends.tree import Tree

POWERCAP = "/sys/class/powercap"
# No counter that wraps (CPU packages) belongs to a part that can draw this much: the largest server
# CPUs are specified at 500 W. Beyond it a fall of the counter is a reset, not a wrap.
MAX_PACKAGE_POWER_W = 1000.0

OF_A_GUEST = "shown by a hypervisor: an estimate, or the whole host's"


def note_on(tree: Tree) -> str:
    """Return what a reader of the counters should know, or "".

    Few hypervisors show RAPL to a guest. QEMU makes up a package's counter from the host's and the time of
    the guest's threads (``docs/specs/rapl-msr.rst`` of QEMU); others pass through that of the host.
    """
    return OF_A_GUEST if read_virtualisation(tree).virtual else ""


def why_no_package(tree: Tree, listed: Sequence[str]) -> Unavailable:
    """Return why there is no package among the zones ``listed`` below :data:`POWERCAP`."""
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
        "driver_not_loaded", f"there are no RAPL zones in {POWERCAP}", "sudo modprobe intel_rapl_msr"
    )
