"""``aiprof devices``: what is in this box, what can be measured on it and how well, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from profiler.backends.base import BackendReport, Capability, Json
    from profiler.sensors.survey import Surveyed


@click.command("devices")
@click.option("--json", "as_json", is_flag=True, help="Write JSON in base units.")
@click.option("--check", "thorough", is_flag=True, help="Read the sensors for 12 s instead of 1.5 s.")
@click.option(
    "--bundle",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Also write the raw answers of this machine to FILE (.tar.gz), without names and serial numbers.",
)
@click.option(
    "--python", metavar="PATH", envvar="AIPROF_VLLM_PYTHON",
    help="Also look at vLLM and llama-cpp-python in this Python (or AIPROF_VLLM_PYTHON): builds and traps.",
)  # fmt: skip
def command(as_json: bool, thorough: bool, bundle: Path | None, python: str | None) -> None:
    """Show this box's devices, what can be measured on them and how well, and what is missing.

    Every sensor is read for a moment: how often it has a new value, how long a read takes, whether its
    energy counter and its power agree, and how far the energy of a phase can be off.

    Exits with 4 when there is no device to measure.
    """
    from profiler.backends.discover import capabilities, discover
    from profiler.errors import NothingMeasuredError
    from profiler.sensors.box import find_sensors
    from profiler.sensors.survey import QUICK_S, THOROUGH_S, survey

    reports = discover()
    devices = [device for report in reports for device in report.devices]
    able = {f"{device.backend}:{device.key}": capabilities(device) for device in devices}
    if thorough:
        click.echo(f"reading the sensors for {THOROUGH_S:.0f} s", err=True)
    surveyed = survey(find_sensors(), THOROUGH_S if thorough else QUICK_S)
    environment = llamacpp = None
    if python is not None:
        from profiler.engines import llamacpp_traps
        from profiler.engines.vllm_traps import look_at

        llamacpp = llamacpp_traps.look_at(python, devices)
        environment = look_at(python, devices)
        if llamacpp is not None and "vllm" not in environment.versions:
            environment = None
    if as_json:
        import json
        from dataclasses import asdict

        document = _document(reports, able, surveyed)
        if environment is not None:
            document["vllm"] = asdict(environment)
        if llamacpp is not None:
            document["llamacpp"] = asdict(llamacpp)
        click.echo(json.dumps(document, indent=2, allow_nan=False))
    else:
        from profiler.cli.devices_view import print_devices, print_llamacpp, print_vllm

        print_devices(reports, able, surveyed)
        if environment is not None:
            print_vllm(environment)
        if llamacpp is not None:
            print_llamacpp(llamacpp)
    if bundle is not None:
        _write_bundle(bundle, _document(reports, able, surveyed))
    if all(device.simulated for device in devices):
        raise NothingMeasuredError("there is no device to measure on this box (see above for what to do)")


def _document(
    reports: Sequence[BackendReport],
    able: Mapping[str, tuple[Capability, ...]],
    surveyed: Sequence[Surveyed],
) -> dict[str, Json]:
    from dataclasses import asdict

    from profiler.sensors.survey import sensors_of

    backends: list[Json] = []
    of_devices: set[str] = set()
    for report in reports:
        devices: list[Json] = []
        for device in report.devices:
            capabilities = [asdict(one) for one in able[f"{device.backend}:{device.key}"]]
            own = sensors_of(device, surveyed)
            of_devices |= {one.info.key for one in own}
            devices.append(
                {
                    **asdict(device),
                    "capabilities": [*capabilities],
                    "sensors": [_sensor(one) for one in own],
                }
            )
        backends.append(
            {
                "backend": report.backend,
                "verified": report.verified,
                "unavailable": asdict(report.unavailable) if report.unavailable else None,
                "facts": dict(report.facts),
                "devices": devices,
            }
        )
    others = [_sensor(one) for one in surveyed if one.info.key not in of_devices]
    return {"backends": backends, "other_sensors": [*others]}


def _sensor(one: Surveyed) -> dict[str, Json]:
    from dataclasses import asdict

    return {
        **asdict(one.info),
        "latest": one.latest,
        "call_s": one.call_s,
        "check": None if one.check is None else asdict(one.check),
        "accuracy": one.accuracy(),
    }


def _write_bundle(path: Path, document: dict[str, Json]) -> None:
    import os

    from profiler.backends.bundle import write_bundle
    from profiler.backends.scrub import SCRUBBED, find_secrets
    from profiler.backends.tree import Tree

    tree = Tree()
    sizes = write_bundle(path, tree, find_secrets(tree, os.environ), document)
    folders: dict[str, list[int]] = {}
    for name, size in sizes.items():
        # A server has hundreds of files per CPU; the folder says what they are.
        folders.setdefault("/".join(name.split("/")[:5]), []).append(size)
    for name, own in folders.items():
        count = f" ({len(own)} files)" if len(own) > 1 else ""
        click.echo(f"{sum(own):>9,} B  {name}{count}", err=True)
    click.echo(f"{path}: {len(sizes)} files, {path.stat().st_size:,} bytes packed.", err=True)
    click.echo(f"Taken out: {', '.join(SCRUBBED)}. Look through it before you send it.", err=True)
