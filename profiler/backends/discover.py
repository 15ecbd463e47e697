"""All backends asked once, and ``--device`` turned into devices."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import get_args

from profiler import registry
from profiler.backends.base import (
    Backend,
    BackendReport,
    Capability,
    CapabilityName,
    Device,
    Unavailable,
)
from profiler.backends.identity import normal_pci
from profiler.errors import NothingMeasuredError, UsageError, nearest

# The CPU is there on every box; an accelerator is what the box was bought for.
_LAST_BY_DEFAULT = "cpu"


def discover() -> list[BackendReport]:
    """Ask every registered backend what it finds; one that fails is reported, the others still answer."""
    return [_report(name) for name in registry.names("backends")]


def _report(name: str) -> BackendReport:
    verified = "unknown: the backend did not answer"
    try:
        backend = registry.load("backends", name)
        verified = getattr(backend, "verified", verified)
        report = backend.report()
        if isinstance(report, BackendReport):
            return report
        problem = f"its report is a {type(report).__name__}, not a BackendReport"
    except Exception as error:  # a backend of another package may fail in any way
        problem = f"{type(error).__name__}: {error}"
    return BackendReport(name, (), _failure(name, problem), verified)


def _failure(name: str, problem: str) -> Unavailable:
    first_line = next(iter(problem.splitlines()), "no reason given")
    return Unavailable(
        "backend_failed", f"the backend '{name}' failed: {first_line}", "report it to its authors"
    )


def select_device(selectors: Sequence[str], reports: Sequence[BackendReport]) -> list[Device]:
    """Turn ``--device`` values into devices, each once, in the order asked for.

    ``cuda`` is the first device of that backend, ``cuda:1`` its second; a PCI address may leave out
    the domain; a UUID may be cut short and leave out ``GPU-``. Without selectors: the first
    accelerator of cuda, rocm or another backend, else the CPU; never a simulated device.

    Args:
        selectors: values of ``--device``, possibly none.
        reports: what :func:`discover` returned.

    Raises:
        UsageError: a selector fits no device or several; one line per fault.
        NothingMeasuredError: no selector was given and there is no device at all.
    """
    if not selectors:
        return [_default(reports)]
    chosen: dict[tuple[str, str], Device] = {}
    faults = []
    for selector in selectors:
        found = _match(selector.strip(), reports)
        if isinstance(found, Device):
            chosen.setdefault((found.backend, found.key), found)
        else:
            faults.append(f"--device {selector}: {found}")
    if faults:
        raise UsageError("\n".join(faults))
    return list(chosen.values())


def _default(reports: Sequence[BackendReport]) -> Device:
    order = sorted(reports, key=lambda report: report.backend == _LAST_BY_DEFAULT)
    for report in order:
        for device in report.devices:
            if not device.simulated:
                return device
    reasons = [f"{report.backend}: {report.unavailable}" for report in reports if report.unavailable]
    raise NothingMeasuredError(
        "there is no device to measure: " + "; ".join(reasons or ["no backend answered"])
    )


def _match(selector: str, reports: Sequence[BackendReport]) -> Device | str:
    """Return the device that ``selector`` names, or why it names none."""
    by_name = {report.backend: report for report in reports}
    family, colon, number = selector.partition(":")
    if family in by_name and (not colon or re.fullmatch(r"\d+", number)):
        report = by_name[family]
        for device in report.devices:
            if device.ordinal == int(number or 0):
                return device
        if report.unavailable:
            return f"{report.unavailable}; {_here(reports)}"
        return f"{family} has only {len(report.devices)} device(s); {_here(reports)}"
    found = _by_identity(selector, [device for report in reports for device in report.devices])
    if len(found) == 1:
        return found[0]
    if found:
        return f"fits several devices, give more digits: {', '.join(device.key for device in found)}"
    return f"fits no device{nearest(selector, by_name)}; {_here(reports)}"


def _by_identity(selector: str, devices: Sequence[Device]) -> list[Device]:
    wanted = selector.lower()
    pci = normal_pci(selector)
    names = [(device, {name.lower() for name in (device.key, device.uuid) if name}) for device in devices]
    exact = [device for device, own in names if wanted in own]
    if exact:
        return exact
    if pci:
        return [device for device in devices if device.pci_address == pci]
    if not wanted:
        return []
    return [
        device
        for device, own in names
        if any(name.startswith(wanted) or name.partition("-")[2].startswith(wanted) for name in own)
    ]


def _here(reports: Sequence[BackendReport]) -> str:
    devices = [device for report in reports for device in report.devices if not device.simulated]
    known = ", ".join(f"{device.backend}:{device.ordinal} ({device.name})" for device in devices)
    return f"devices here: {known or 'none'}"


def capabilities(device: Device) -> tuple[Capability, ...]:
    """Return what can be measured on a device; a backend that fails can measure nothing."""
    try:
        backend: Backend = registry.load("backends", device.backend)
        return backend.capabilities(device)
    except Exception as error:  # a backend of another package may fail in any way
        failed = _failure(device.backend, f"{type(error).__name__}: {error}")
        return tuple(Capability(name, None, failed) for name in get_args(CapabilityName))
